//! Names and ids. Each is a type made by a constructor that checks; a value of the type is always well formed.
//! Never holds a name that could be read as an option, a path or a second field where it is printed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a string is not the name it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        let value = value.chars().take(80).collect();
        Self { what, value, rule }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `value` and makes the name of it.
            ///
            /// # Errors
            /// [`NameError`] says which rule the value breaks.
            pub fn new(value: impl AsRef<str>) -> Result<Self, NameError> {
                let value = value.as_ref();
                $check(value).map_err(|rule| NameError::new($what, value, rule))?;
                Ok(Self(value.into()))
            }

            /// The name as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

name_type!(
    /// The realm of one auth service. A lower-case DNS name of at most 200 characters; part of every certificate.
    ClusterName,
    "cluster name",
    check_dns_name
);
name_type!(
    /// The name of an SSH server we run: a lower-case DNS name of at most 200 characters.
    NodeName,
    "node name",
    check_dns_name
);
name_type!(
    /// A user of the cluster: 1 to 128 of `A-Z a-z 0-9 . _ @ + -`, starting with a letter, digit or `_`.
    UserName,
    "user name",
    check_user_name
);
name_type!(
    /// A role's name: 1 to 128 of `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
    RoleName,
    "role name",
    check_role_name
);
name_type!(
    /// An operating-system account, as it stands among an SSH certificate's principals.
    Login,
    "login",
    check_login
);
name_type!(
    /// A Kubernetes cluster as we name it: 1 to 128 of `A-Z a-z 0-9 . _ : -`, starting with a letter or digit.
    KubeClusterName,
    "Kubernetes cluster name",
    check_kube_cluster_name
);

name_type!(
    /// A web application as we name it: a lower-case DNS label, for by default it is the first one of the application's address.
    AppName,
    "web application name",
    check_app_name
);

impl ClusterName {
    /// The suffix below which this cluster's web applications are named in SNI: `app.<cluster>`.
    #[must_use]
    pub fn app_suffix(&self) -> String {
        format!("app.{self}")
    }

    /// The suffix below which this cluster's Kubernetes services are named in SNI: `kube.<cluster>`.
    #[must_use]
    pub fn kube_suffix(&self) -> String {
        format!("kube.{self}")
    }
}

impl KubeClusterName {
    /// The TLS server name of this Kubernetes cluster's service: `k<32 hex>.kube.<cluster>`, where the hex digits are the first
    /// 16 octets of the SHA-256 of the name. A digest, because a name may have characters and a length that a DNS label cannot have.
    #[must_use]
    pub fn server_name(&self, cluster: &ClusterName) -> String {
        format!("{}.{}", label_of('k', &self.0), cluster.kube_suffix())
    }
}

impl AppName {
    /// The TLS server name of this application's service: `a<32 hex>.app.<cluster>`, made as [`KubeClusterName::server_name`] is.
    #[must_use]
    pub fn server_name(&self, cluster: &ClusterName) -> String {
        format!("{}.{}", label_of('a', &self.0), cluster.app_suffix())
    }
}

/// `first` and the first 16 octets of the SHA-256 of `name` in hex.
fn label_of(first: char, name: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let mut label = String::with_capacity(33);
    label.push(first);
    for octet in digest.as_ref().iter().take(16) {
        label.push_str(&format!("{octet:02x}"));
    }
    label
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// Wraps a UUID drawn by the caller.
            #[must_use]
            pub const fn from_uuid(id: uuid::Uuid) -> Self {
                Self(id)
            }

            /// The UUID itself.
            #[must_use]
            pub const fn uuid(&self) -> uuid::Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                // Only the hyphenated form: one id has one spelling, so that it can be part of a file name.
                let id = (value.len() == 36).then(|| uuid::Uuid::try_parse(value).ok()).flatten();
                id.map(Self).ok_or_else(|| NameError::new($what, value, "a UUID of 36 characters is expected"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

id_type!(
    /// A host of the cluster. Drawn by the auth service when the host joins, never taken from the machine.
    HostId,
    "host id"
);
id_type!(
    /// One session of a user on a node, in a Kubernetes cluster or in a web application.
    SessionId,
    "session id"
);
id_type!(
    /// One run of a host's daemon. Drawn anew at each start, so that two runs at the same time are told apart.
    InstanceId,
    "instance id"
);

/// Checks a principal of an SSH certificate (I4): 1 to 256 octets of UTF-8 without control characters, white space,
/// comma or quotes, not starting with `-`.
///
/// # Errors
/// The rule that is broken.
pub fn check_principal(value: &str) -> Result<(), NameError> {
    principal_rule(value).map_err(|rule| NameError::new("principal", value, rule))
}

fn principal_rule(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > 256 {
        return Err("1 to 256 octets are allowed");
    }
    if value.starts_with('-') {
        return Err("it must not start with '-'");
    }
    if value.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '`')) {
        return Err("control characters, white space, commas and quotes are not allowed");
    }
    Ok(())
}

fn check_login(value: &str) -> Result<(), &'static str> {
    principal_rule(value)?;
    if value.contains(['/', ':', '\\', '*', '?', '%', '#', '!', '|']) {
        return Err("'/', ':', '\\', '*', '?', '%', '#', '!' and '|' are not allowed");
    }
    Ok(())
}

fn check_dns_name(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > 200 {
        return Err("1 to 200 characters are allowed");
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if !value.split('.').all(label_ok) {
        return Err("labels of a-z, 0-9, '-' and '_' joined by dots are expected, in lower case");
    }
    Ok(())
}

fn check_user_name(value: &str) -> Result<(), &'static str> {
    charset(value, b"._@+-", "only letters, digits and '. _ @ + -' are allowed")?;
    if value.starts_with(['.', '@', '+']) {
        return Err("it must start with a letter, a digit or '_'");
    }
    Ok(())
}

fn check_role_name(value: &str) -> Result<(), &'static str> {
    charset(value, b"._-", "only letters, digits and '. _ -' are allowed")?;
    if value.starts_with(['.', '_']) {
        return Err("it must start with a letter or digit");
    }
    Ok(())
}

fn check_kube_cluster_name(value: &str) -> Result<(), &'static str> {
    charset(value, b"._:-", "only letters, digits and '. _ : -' are allowed")?;
    if value.starts_with(['.', '_', ':']) {
        return Err("it must start with a letter or digit");
    }
    Ok(())
}

fn check_app_name(value: &str) -> Result<(), &'static str> {
    let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    if !(1..=63).contains(&value.len()) || !value.bytes().all(fits) || value.starts_with('-') || value.ends_with('-') {
        return Err("one DNS label is expected: 1 to 63 of a-z, 0-9 and '-', with no '-' at its ends");
    }
    Ok(())
}

fn charset(value: &str, punctuation: &[u8], rule: &'static str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > 128 {
        return Err("1 to 128 characters are allowed");
    }
    if value.starts_with('-') {
        return Err("it must not start with '-'");
    }
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || punctuation.contains(&b)) {
        return Err(rule);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_read_as_options_or_fields_are_refused() {
        for bad in ["", "-oProxyCommand=x", "a b", "a,b", "a\nb", "a\"b", "a'b", "a\u{7}b", "a\u{85}b"] {
            assert!(check_principal(bad).is_err(), "{bad:?}"); // I4
            assert!(UserName::new(bad).is_err(), "{bad:?}");
            assert!(Login::new(bad).is_err(), "{bad:?}");
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        assert!(check_principal(&"x".repeat(257)).is_err());
    }

    #[test]
    fn ordinary_names_are_taken_as_they_are() {
        assert_eq!(UserName::new("ann@example.com").unwrap().as_str(), "ann@example.com");
        assert_eq!(NodeName::new("gw-17.lab").unwrap().as_str(), "gw-17.lab");
        assert_eq!(Login::new("root").unwrap().as_str(), "root");
        assert!(NodeName::new("Upper").is_err());
        assert!(NodeName::new("a..b").is_err());
    }

    #[test]
    fn a_kube_server_name_is_one_dns_label_below_the_cluster() {
        let cluster = ClusterName::new("root.example.com").unwrap();
        let name = KubeClusterName::new("arn:aws:eks:eu-1:123:cluster").unwrap().server_name(&cluster);
        let (label, rest) = name.split_once('.').unwrap();
        assert_eq!((label.len(), rest), (33, "kube.root.example.com"));
    }

    #[test]
    fn an_app_name_is_one_dns_label_and_its_server_name_is_not_that_of_a_kubernetes_cluster() {
        for bad in ["", "Billing", "a.b", "a_b", "-a", "a-", "a b", "..", &"a".repeat(64)] {
            assert!(AppName::new(bad).is_err(), "{bad:?}");
        }
        let cluster = ClusterName::new("root").unwrap();
        let name = AppName::new("billing").unwrap().server_name(&cluster);
        assert!(name.starts_with('a') && name.ends_with(".app.root") && name.len() == 33 + ".app.root".len(), "{name}");
        assert_ne!(name, KubeClusterName::new("billing").unwrap().server_name(&cluster));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        assert_eq!(id.to_string(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
        assert!("67e5504410b1426f9247bb680e5fe0c8".parse::<SessionId>().is_err()); // I66
        assert!("../../../../../../../../etc/passwd__".parse::<SessionId>().is_err());
    }
}
