//! Who knocks: keys with the certificates that go with them, from a login, from a host's state, or forged. A forger here may hold the
//! keys of any authority, the cluster's own included, and sign what that authority never would.

use std::{fs, path::Path, process::Command, time::Duration};

use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use remoteler_ca::{Authority, StoredAuthority};
use remoteler_core::{
    CaKind, Clock, ClusterName, HostId, HostIdentity, Identity, KubeClusterName, Login, NodeName, OsEntropy,
    SSH_IDENTITY_EXTENSION, SystemClock, SystemRole, Timestamp, UserIdentity, UserName, X509_IDENTITY_OID, fill_random,
    ssh_identity_value, x509_naming,
};
use remoteler_tests::{Cluster, User, eventually, os_login, run};
use remoteler_tunnel::TlsIdentity;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use ssh_key::{
    Certificate, PrivateKey,
    certificate::{Builder, CertType},
    private::{Ed25519Keypair, KeypairData},
};

/// Certificates and keys for both protocols.
#[derive(Clone)]
pub(crate) struct Bearer {
    pub(crate) ssh_key: PrivateKey,
    pub(crate) ssh_certificate: Certificate,
    pub(crate) tls: TlsIdentity,
}

impl Bearer {
    /// The holder of a login, as the files of `~/.tsh` have it.
    pub(crate) fn of_login(user: &User) -> Self {
        let keys = user.tsh_home().join("keys/127.0.0.1");
        let text = |suffix: &str| fs::read_to_string(keys.join(format!("{}{suffix}", user.name()))).unwrap();
        Self::from_text(&text(""), &text("-cert.pub"), &text(".crt"), &text(".key"))
    }

    /// The host that a daemon is, as its data directory has it.
    pub(crate) fn of_host(data_dir: &Path) -> Self {
        let state = host_state(data_dir);
        let text = |field: &str| state[field].as_str().unwrap();
        Self::from_text(
            text("ssh_private_key"),
            text("ssh_certificate"),
            text("tls_certificate"),
            text("tls_private_key"),
        )
    }

    fn from_text(ssh_key: &str, ssh_certificate: &str, tls_certificate: &str, tls_key: &str) -> Self {
        Self {
            ssh_key: PrivateKey::from_openssh(ssh_key).unwrap(),
            ssh_certificate: Certificate::from_openssh(ssh_certificate.trim_end()).unwrap(),
            tls: TlsIdentity::from_pem(tls_certificate.as_bytes(), tls_key.as_bytes()).unwrap(),
        }
    }

    /// Waits until the certificates have ended.
    pub(crate) fn expire(self) -> Self {
        let end = self.ssh_certificate.valid_before() + 1;
        eventually("the certificate ends", || {
            let now = SystemClock.now().unix_seconds_unsigned();
            if now > end { Ok(()) } else { Err(format!("{now} is not after {end}")) }
        });
        self
    }
}

/// When a forged certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Window {
    /// For an hour.
    Hour,
    /// Without an end, as hosts' are.
    ForEver,
}

/// Makes an authority of that name, as `remoteler-ca` makes them.
pub(crate) fn authority(cluster: &str, kind: CaKind) -> StoredAuthority {
    let cluster = ClusterName::new(cluster).unwrap();
    Authority::generate(&cluster, kind, SystemClock.now(), &OsEntropy).unwrap().to_stored()
}

/// The authority of a running cluster, private keys and all: what its auth service's database holds.
pub(crate) fn stolen_authority(cluster: &Cluster, kind: CaKind) -> StoredAuthority {
    let query = format!("SELECT value FROM items WHERE key = 'authorities/{}'", kind.as_str());
    let out = run(Command::new("sqlite3").arg("-readonly").arg(cluster.data_dir().join("auth.sqlite")).arg(query)).ok();
    let set: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    serde_json::from_value(set["active"].clone()).unwrap()
}

/// Signs certificates of `identity` with the keys of `signer`, whatever it would say to that.
pub(crate) fn forge(signer: &StoredAuthority, identity: &Identity, window: Window) -> Bearer {
    let now = SystemClock.now();
    let from = now.minus(Duration::from_secs(60));
    let until = match window {
        Window::Hour => now.plus(Duration::from_secs(3600)),
        Window::ForEver => Timestamp::from_unix_seconds(253_402_300_799),
    };
    let ssh_key = ed25519(fill_random(&OsEntropy));
    Bearer {
        ssh_certificate: forge_ssh(signer, identity, &ssh_key, from, until),
        ssh_key,
        tls: forge_tls(signer, identity, from, until),
    }
}

fn forge_ssh(
    signer: &StoredAuthority,
    identity: &Identity,
    key: &PrivateKey,
    from: Timestamp,
    until: Timestamp,
) -> Certificate {
    let (kind, principals) = match identity {
        Identity::User(user) => (CertType::User, user.logins.iter().map(ToString::to_string).collect()),
        Identity::Host(host) => (CertType::Host, host.principals()),
        Identity::KubeUser(restricted) => {
            (CertType::User, restricted.user.logins.iter().map(ToString::to_string).collect())
        }
        Identity::AppUser(restricted) => {
            (CertType::User, restricted.user.logins.iter().map(ToString::to_string).collect())
        }
        Identity::ProvenUser(proven) => (CertType::User, proven.user.logins.iter().map(ToString::to_string).collect()),
    };
    let subject = key.public_key().key_data().clone();
    let nonce: [u8; 32] = fill_random(&OsEntropy);
    let mut builder =
        Builder::new(nonce, subject, from.unix_seconds_unsigned(), until.unix_seconds_unsigned()).unwrap();
    builder.serial(7).unwrap().cert_type(kind).unwrap().key_id(identity.subject()).unwrap();
    for principal in principals {
        builder.valid_principal(principal).unwrap();
    }
    builder.extension(SSH_IDENTITY_EXTENSION, ssh_identity_value(identity)).unwrap();
    builder.sign(&ssh_signer(signer)).unwrap()
}

fn forge_tls(signer: &StoredAuthority, identity: &Identity, from: Timestamp, until: Timestamp) -> TlsIdentity {
    let moment = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds()).unwrap();
    let authority_key = KeyPair::from_pem(signer.x509_key.clear().unwrap().reveal()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&signer.x509_certificate, authority_key).unwrap();
    let naming = x509_naming(identity);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, naming.common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
    (params.not_before, params.not_after) = (moment(from), moment(until));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    // The authority goes with it, as a forger would hope that somebody takes it for one.
    let chain = format!("{}{}", leaf.pem(), signer.x509_certificate);
    TlsIdentity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

/// PKCS#8 of Ed25519 (RFC 8410) has the seed behind 16 octets.
fn ssh_signer(signer: &StoredAuthority) -> PrivateKey {
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(signer.ssh_key.clear().unwrap().reveal().as_bytes()).unwrap();
    ed25519(pkcs8.secret_pkcs8_der()[16..48].try_into().unwrap())
}

fn ed25519(seed: [u8; 32]) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&seed)), "").unwrap()
}

/// What the certificates of user `name` say.
pub(crate) fn user_identity(name: &str, cluster: &str) -> Identity {
    let roles = ["access", "editor"].map(|role| remoteler_core::RoleName::new(role).unwrap());
    let groups = ["developers".to_owned()];
    Identity::User(UserIdentity {
        user: UserName::new(name).unwrap(),
        cluster: ClusterName::new(cluster).unwrap(),
        roles: roles.into_iter().collect(),
        traits: [("kubernetes_groups".to_owned(), groups.into_iter().collect())].into_iter().collect(),
        logins: vec![Login::new(os_login()).unwrap()],
    })
}

/// What the certificates of the cluster's own daemon say, but with every role.
pub(crate) fn host_identity(cluster: &Cluster, named: &str, kube: &str) -> Identity {
    let id: HostId = host_state(&cluster.data_dir())["host_id"].as_str().unwrap().parse().unwrap();
    Identity::Host(HostIdentity {
        id,
        name: NodeName::new(Cluster::NODE).unwrap(),
        cluster: ClusterName::new(named).unwrap(),
        roles: [SystemRole::Auth, SystemRole::Proxy, SystemRole::Node, SystemRole::Kube].into(),
        kube_clusters: [KubeClusterName::new(kube).unwrap()].into(),
        apps: Default::default(),
        labels: Default::default(),
        generation: 0,
    })
}

/// `host.json`
pub(crate) fn host_state(data_dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(data_dir.join("host.json")).unwrap()).unwrap()
}
