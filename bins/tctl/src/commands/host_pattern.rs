//! For which host names a client believes an authority: what an administrator types after `--hosts`. Owns the rule that it is never all (I71).

use std::{fmt, net::IpAddr, str::FromStr};

/// A DNS name whose first label may be `*` above two others, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPattern(String);

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Self(text));
        }
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        let narrow = name.len() == text.len() || name.contains('.');
        if narrow && text.len() <= 253 && name.split('.').all(label) {
            return Ok(Self(text));
        }
        Err(format!("{text:?} is no host name; write it like db.example.com or *.example.com"))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // I71
    #[test]
    fn some_hosts_can_be_named_and_never_all_of_them() {
        for fine in ["db.example.com", "*.prod.example.com", "DB", "192.0.2.7", "2001:db8::1"] {
            assert_eq!(fine.parse::<HostPattern>().unwrap().to_string(), fine.to_ascii_lowercase());
        }
        for wrong in
            ["", "*", "*.", "*.com", "*.*", "a.*.b.c", "a,b", "!a", "a b", "a#b", "a|b", "-a", "a..b", "%h", "@a"]
        {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong:?}");
        }
    }
}
