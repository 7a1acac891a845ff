//! Certificates that an administrator asks for, for users, servers and programs that cannot log in or join: what is asked and what is
//! answered. Owns the form of both. Names of users come with what the cluster keeps of them (I9), and only public keys travel (I8).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{KubeClusterName, RoleName, Timestamp, TrustBundle, UserName};

/// One certificate wanted, or the pair of a user. Each variant says what it will be good for; no other use is possible.
///
/// `ssh_public_key` is in OpenSSH's one-line form, `tls_public_key` PEM of a SubjectPublicKeyInfo. `ttl_seconds` is the life that is wanted:
/// users get at most what all their roles allow, hosts get certificates without an end where it is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "snake_case", deny_unknown_fields)]
pub enum SignRequest {
    /// What a login gives: an SSH and an X.509 certificate for the cluster itself.
    User {
        /// For whom.
        user: UserName,
        /// Key for SSH.
        ssh_public_key: String,
        /// Key for TLS.
        tls_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
    },
    /// An SSH certificate for servers that are not ours.
    OpensshUser {
        /// For whom; the accounts are those that the user's roles give.
        user: UserName,
        /// Key for SSH.
        ssh_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
    },
    /// An X.509 certificate for one Kubernetes cluster.
    Kubernetes {
        /// For whom.
        user: UserName,
        /// The one place where it counts.
        kube_cluster: KubeClusterName,
        /// Key for TLS.
        tls_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
        /// Whether the answer is of use only with the address of a proxy in it: without one nothing is issued then.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        needs_proxy: bool,
    },
    /// An X.509 certificate for a client of a database.
    Database {
        /// For whom.
        user: UserName,
        /// Account in the database: one of the user's trait `db_users`, or without that trait the user's own name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        database_user: Option<String>,
        /// Key for TLS.
        tls_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
    },
    /// An X.509 certificate for the logon at a Windows desktop.
    SmartCard {
        /// For whom.
        user: UserName,
        /// Account in the domain: one of the user's trait `windows_logins`, or without that trait the user's own name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        windows_user: Option<String>,
        /// DNS name of the Active Directory domain.
        domain: String,
        /// `S-1-5-…`: the account's security identifier, for domain controllers that demand it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sid: Option<String>,
        /// `http://…`: where domain controllers fetch the revocation list of the authority of users.
        crl_url: String,
        /// Key of the card.
        tls_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
    },
    /// An SSH host certificate for a server that is not ours.
    OpensshHost {
        /// Names and addresses by which clients reach it.
        names: Vec<String>,
        /// The server's key.
        ssh_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
    },
    /// An X.509 certificate for a TLS server that is no host of the cluster.
    Server {
        /// Names and addresses by which clients reach it.
        names: Vec<String>,
        /// The server's key.
        tls_public_key: String,
        /// Life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_seconds: Option<u64>,
    },
}

/// What was issued, and what its holder is to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCertificates {
    /// SSH certificate, OpenSSH's one-line form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_certificate: Option<String>,
    /// X.509 certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<String>,
    /// Who or what is named in it: user, account in the database or the domain, first name of the host.
    pub subject: String,
    /// When it ends; absent: with the rotation of the authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Roles in it.
    #[serde(default)]
    pub roles: BTreeSet<RoleName>,
    /// Accounts or names in an SSH certificate.
    #[serde(default)]
    pub logins: Vec<String>,
    /// Authorities of the cluster.
    pub trust: TrustBundle,
    /// Public address of a proxy, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_addr: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    // I9
    #[test]
    fn roles_accounts_and_unknown_fields_cannot_be_asked_for() {
        let asked = |more: &str| {
            format!(r#"{{"purpose":"user","user":"ann","ssh_public_key":"s","tls_public_key":"t"{more}}}"#)
        };
        assert!(serde_json::from_str::<SignRequest>(&asked("")).is_ok());
        for more in [r#","roles":["editor"]"#, r#","logins":["root"]"#, r#","names":["h"]"#, r#","database_user":"d""#]
        {
            assert!(serde_json::from_str::<SignRequest>(&asked(more)).is_err(), "{more}");
        }
        assert!(
            serde_json::from_str::<SignRequest>(r#"{"purpose":"host","names":["h"],"ssh_public_key":"s"}"#).is_err()
        );
    }
}
