//! Names in copies: what a server may call a file, and what a file is called that somebody asked for.

use super::CopyError;
use crate::player::printable;

/// Checks a name that a server sent for an entry of a directory (I63).
pub(super) fn checked(name: &str) -> Result<&str, CopyError> {
    let unsafe_name = name.is_empty()
        || name == "."
        || name == ".."
        || name.len() > 255
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control);
    if unsafe_name { Err(CopyError::UnsafeName(printable(name).chars().take(300).collect())) } else { Ok(name) }
}

/// The name under which a remote path that the user asked for is stored here. Taken from what was asked for, never from an answer.
pub(super) fn last_component(path: &str) -> Result<&str, CopyError> {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => Err(CopyError::NoName(printable(path))),
        name => checked(name),
    }
}

/// A path for SFTP: relative ones are relative to the home directory, which `~/` therefore also means.
pub(super) fn remote_path(path: &str) -> String {
    let path = match path.strip_prefix("~/") {
        Some(rest) => rest.trim_start_matches('/'),
        None if path == "~" => "",
        None => path,
    };
    if path.is_empty() { ".".to_owned() } else { path.to_owned() }
}

/// `name` in the directory `parent`.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.ends_with('/') { format!("{parent}{name}") } else { format!("{parent}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_name_a_file_outside_the_target() {
        // I63
        for bad in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "\u{1b}[2J", &"x".repeat(256)]
        {
            assert!(matches!(checked(bad), Err(CopyError::UnsafeName(_))), "{bad:?}");
        }
        assert_eq!(checked("..a b").unwrap(), "..a b");
    }

    #[test]
    fn what_was_asked_for_gives_the_name() {
        assert_eq!(last_component("/var/log/syslog").unwrap(), "syslog");
        assert_eq!(last_component("dir/").unwrap(), "dir");
        for bad in ["", "/", "..", "a/..", "."] {
            assert!(last_component(bad).is_err(), "{bad:?}");
        }
        assert_eq!(remote_path("~/x"), "x");
        assert_eq!(remote_path(""), ".");
    }
}
