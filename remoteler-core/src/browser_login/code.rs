//! The code that people compare or type: how it is drawn and read.

use crate::Entropy;

/// Letters of a code: no vowels, so that no words come about, and nothing that looks alike (RFC 8628 section 6.1).
const CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// A code that people compare or type, such as `BCDF-GHJK`: 34 bits, good for ten minutes and a few attempts.
#[must_use]
pub fn draw_login_code(entropy: &dyn Entropy) -> String {
    let mut code = String::with_capacity(9);
    while code.len() < 9 {
        let [octet]: [u8; 1] = crate::fill_random(entropy);
        // 240 is the largest multiple of 20 in an octet: what is above would make some letters likelier.
        if let Some(letter) = CODE_LETTERS.get(usize::from(octet % 20)).filter(|_| octet < 240) {
            code.push(char::from(*letter));
            if code.len() == 4 {
                code.push('-');
            }
        }
    }
    code
}

/// A code as it was typed, in its one form; `None` when it cannot be one.
#[must_use]
pub fn read_login_code(typed: &str) -> Option<String> {
    if typed.len() > 64 {
        return None;
    }
    let letters: String = typed.chars().filter(|c| !matches!(c, '-' | ' ')).collect::<String>().to_ascii_uppercase();
    let right = letters.len() == 8 && letters.bytes().all(|letter| CODE_LETTERS.contains(&letter));
    let (first, second) = letters.split_at_checked(4).filter(|_| right)?;
    Some(format!("{first}-{second}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OsEntropy;

    #[test]
    fn a_code_is_read_however_it_is_typed_and_nothing_else_is_a_code() {
        let code = draw_login_code(&OsEntropy);
        assert_eq!(code.len(), 9);
        assert_eq!(read_login_code(&code).as_ref(), Some(&code));
        assert_eq!(read_login_code(&format!(" {} ", code.to_lowercase().replace('-', " "))), Some(code));
        for wrong in ["", "BCDF-GHJ", "BCDF-GHJA", "BCDF-GHJKL", "ÄÖÜß-GHJK", &"B".repeat(1000)] {
            assert_eq!(read_login_code(wrong), None, "{wrong}");
        }
    }
}
