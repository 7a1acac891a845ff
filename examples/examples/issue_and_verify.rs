//! Issues a user's SSH and X.509 certificates from two fresh authorities and verifies them as a node and a proxy would.

use std::time::Duration;

use remoteler_ca::{Authority, SshPermits, TlsPublicKey, UserProfile};
use remoteler_client::KeyPairs;
use remoteler_core::{
    CaKind, Clock, ClusterName, Login, OsEntropy, RoleName, SshCertificatePurpose, SystemClock, TrustBundle,
    UserIdentity, UserName, verify_ssh_certificate,
};
use ssh_key::{Certificate, PublicKey};

fn main() -> anyhow::Result<()> {
    let (cluster, now) = (ClusterName::new("root.example.com")?, SystemClock.now());
    let users = Authority::generate(&cluster, CaKind::User, now, &OsEntropy)?;
    let hosts = Authority::generate(&cluster, CaKind::Host, now, &OsEntropy)?;
    let trust = TrustBundle::new(cluster.clone(), users.public(), hosts.public());

    // The keys are made where they are used; only their public halves travel.
    let keys = KeyPairs::generate("ann")?;
    let profile = UserProfile {
        identity: UserIdentity {
            user: UserName::new("ann")?,
            cluster,
            roles: [RoleName::new("access")?].into(),
            traits: Default::default(),
            logins: vec![Login::new("root")?],
        },
        ssh_key: PublicKey::from_openssh(&keys.ssh_public)?,
        tls_key: TlsPublicKey::from_pem(&keys.tls_public)?,
        not_after: now.plus(Duration::from_secs(3600)),
        permits: SshPermits { pty: true, port_forwarding: true, agent_forwarding: false },
    };
    // Between the two steps the serials are known and nothing is signed: that is where the audit event belongs.
    let prepared = profile.prepare(&users, now, &OsEntropy)?;
    println!("serials: ssh {}, tls {}", prepared.ssh_serial(), prepared.tls_serial());
    let issued = users.issue_user(prepared)?;
    println!("{}", issued.ssh_certificate);

    let certificate = Certificate::from_openssh(&issued.ssh_certificate)?;
    let verified = verify_ssh_certificate(&certificate, &trust, SshCertificatePurpose::User, now)?;
    println!("verified: {verified:?}");
    let refused = verify_ssh_certificate(&certificate, &trust, SshCertificatePurpose::Host("ann"), now);
    println!("as a host: {}", refused.expect_err("a user's certificate is never a host's"));
    Ok(())
}
