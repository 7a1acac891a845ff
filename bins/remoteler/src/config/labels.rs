//! `k=v,k2=v2` as flags give labels.

use remoteler_core::Labels;

/// Reads `k=v,k2=v2`. Names are 1 to 128 of letters, digits and `. _ - /`.
///
/// # Errors
/// The pair that is none.
pub fn parse_labels(text: &str) -> Result<Labels, String> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("{pair:?} is no label; NAME=VALUE is expected"))?;
            check_label(name.trim(), value.trim())?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Checks one label.
pub(super) fn check_label(name: &str, value: &str) -> Result<(), String> {
    let name_ok = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'));
    if !name_ok {
        return Err(format!("{name:?} is no label name; letters, digits and '. _ - /' are expected"));
    }
    if value.len() > 256 || value.chars().any(char::is_control) {
        return Err(format!("the value of label {name} is longer than 256 octets or holds control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs_joined_by_commas() {
        let labels = parse_labels("env=prod, team=a=b").unwrap();
        assert_eq!(labels["env"], "prod");
        assert_eq!(labels["team"], "a=b");
        assert!(parse_labels("env").is_err());
        assert!(parse_labels("e nv=x").is_err());
    }
}
