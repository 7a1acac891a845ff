//! The cluster's two authorities and what they issue. Every certificate passes through here: checked profile, audit event, signature,
//! in that order (I75).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use remoteler_ca::{
    Authority, HostProfile, IssuedHost, IssuedUser, KeyRing, PreparedHost, PreparedUser, SshPermits, StoredAuthority,
    TlsPublicKey, UserProfile,
};
use remoteler_core::{
    AuditKind, AuditSink, CaKind, Clock, ClusterName, Entropy, HostIdentity, Login, Role, Timestamp, TrustBundle,
    UserIdentity, UserName,
};
use ssh_key::PublicKey;

use crate::{
    AuditLog,
    failure::{self, ApiResult, bad_request},
    records::{RecordError, Records, key},
    service::StartError,
};

/// Longest key text read from a request, in octets: an RSA key of 8192 bits takes 1500. It also bounds how deep a parser can be led.
const MAX_KEY: usize = 4 * 1024;
/// No user certificate lives longer, whatever roles say.
const MAX_TTL: Duration = Duration::from_secs(30 * 3600);
/// The principal of a user whose roles give no account: SSH certificates without principals do not exist.
const NO_LOGIN: &str = "no-login";

/// Both authorities, with all they need to issue.
pub(crate) struct Issuer {
    user: Authority,
    host: Authority,
    trust: TrustBundle,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    audit: AuditLog,
}

/// The two public keys of a request.
pub(crate) struct SubjectKeys {
    ssh: PublicKey,
    tls: TlsPublicKey,
}

impl SubjectKeys {
    /// Reads them; algorithms and sizes are checked when the profile is prepared.
    pub(crate) fn parse(ssh: &str, tls: &str) -> ApiResult<Self> {
        if ssh.len() > MAX_KEY || tls.len() > MAX_KEY {
            return Err(bad_request(format!("a public key has at most {MAX_KEY} octets")));
        }
        let ssh = PublicKey::from_openssh(ssh.trim())
            .map_err(|cause| bad_request(format!("ssh_public_key is no public key in OpenSSH's form: {cause}")))?;
        let tls = TlsPublicKey::from_pem(tls)
            .map_err(|cause| bad_request(format!("tls_public_key is refused: {}", failure::chain(&cause))))?;
        Ok(Self { ssh, tls })
    }
}

impl Issuer {
    /// Loads the authorities, or makes them at the first start.
    pub(crate) async fn open(
        cluster: &ClusterName,
        records: &Records,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        audit: AuditLog,
        ring: Option<&KeyRing>,
    ) -> Result<Self, StartError> {
        let user = load(cluster, CaKind::User, records, clock.now(), entropy.as_ref(), ring).await?;
        let host = load(cluster, CaKind::Host, records, clock.now(), entropy.as_ref(), ring).await?;
        let trust = TrustBundle { cluster: cluster.clone(), user: user.public(), host: host.public() };
        Ok(Self { user, host, trust, clock, entropy, audit })
    }

    pub(crate) const fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    /// Checks everything about a user certificate: its end is the earliest of what all `roles` and the request allow.
    pub(crate) fn prepare_user(
        &self,
        identity: UserIdentity,
        roles: &[Arc<Role>],
        keys: SubjectKeys,
        requested: Option<Duration>,
    ) -> ApiResult<(PreparedUser, Timestamp)> {
        let limits = roles.iter().map(|role| role.options().max_session_ttl);
        let ttl = limits.chain(requested).fold(MAX_TTL, Duration::min);
        if ttl < Duration::from_secs(1) {
            return Err(bad_request("a certificate lives at least 1 second"));
        }
        let now = self.clock.now();
        let not_after = Timestamp::from_unix_seconds(now.plus(ttl).unix_seconds()); // certificates count whole seconds
        let permits = SshPermits {
            pty: true,
            port_forwarding: roles.iter().any(|role| {
                let forwarding = role.options().port_forwarding;
                forwarding.local || forwarding.remote
            }),
            agent_forwarding: roles.iter().any(|role| role.options().forward_agent),
        };
        let profile = UserProfile { identity, ssh_key: keys.ssh, tls_key: keys.tls, not_after, permits };
        let prepared =
            profile.prepare(&self.user, now, self.entropy.as_ref()).map_err(|cause| failure::profile(&cause))?;
        Ok((prepared, not_after))
    }

    /// Audits and signs a user certificate.
    pub(crate) async fn issue_user(&self, prepared: PreparedUser, expires: Timestamp) -> ApiResult<IssuedUser> {
        let identity = prepared.identity();
        let event = AuditKind::CertCreate {
            cert_type: CaKind::User.as_str().into(),
            user: identity.user.to_string(),
            ssh_serial: prepared.ssh_serial().to_string(),
            tls_serial: prepared.tls_serial().to_string(),
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            logins: identity.logins.iter().map(ToString::to_string).collect(),
            expires: Some(expires),
        };
        self.record(event).await?;
        self.user.issue_user(prepared).map_err(|cause| failure::authority(&cause))
    }

    /// Checks everything about a host certificate.
    pub(crate) fn prepare_host(&self, identity: HostIdentity, keys: SubjectKeys) -> ApiResult<PreparedHost> {
        let profile = HostProfile { identity, ssh_key: keys.ssh, tls_key: keys.tls };
        profile.prepare(&self.host, self.clock.now(), self.entropy.as_ref()).map_err(|cause| failure::profile(&cause))
    }

    /// Audits and signs a host certificate.
    pub(crate) async fn issue_host(&self, prepared: PreparedHost) -> ApiResult<IssuedHost> {
        let identity = prepared.identity();
        let event = AuditKind::CertCreate {
            cert_type: CaKind::Host.as_str().into(),
            user: identity.id.to_string(),
            ssh_serial: prepared.ssh_serial().to_string(),
            tls_serial: prepared.tls_serial().to_string(),
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            logins: Vec::new(),
            expires: None,
        };
        self.record(event).await?;
        self.host.issue_host(prepared).map_err(|cause| failure::authority(&cause))
    }

    async fn record(&self, event: AuditKind) -> ApiResult<()> {
        self.audit.record(event).await.map_err(|cause| failure::audit(&cause))
    }
}

/// The accounts for a certificate: what the roles give, in order and once each, or the placeholder.
pub(crate) fn logins(roles: &[Arc<Role>], traits: &remoteler_core::Traits) -> Vec<Login> {
    let mut seen = BTreeSet::new();
    let mut logins: Vec<Login> = roles.iter().flat_map(|role| role.logins(traits)).collect();
    logins.retain(|login| seen.insert(login.to_string()));
    if logins.is_empty() {
        logins.extend(Login::new(NO_LOGIN));
    }
    logins
}

/// The identity a stored user gets: everything from the record, nothing from the request (I9).
pub(crate) fn user_identity(
    cluster: &ClusterName,
    user: &UserName,
    roles: &[Arc<Role>],
    traits: &remoteler_core::Traits,
) -> UserIdentity {
    UserIdentity {
        user: user.clone(),
        cluster: cluster.clone(),
        roles: roles.iter().map(|role| role.name().clone()).collect(),
        traits: traits.clone(),
        logins: logins(roles, traits),
    }
}

async fn load(
    cluster: &ClusterName,
    kind: CaKind,
    records: &Records,
    now: Timestamp,
    entropy: &dyn Entropy,
    ring: Option<&KeyRing>,
) -> Result<Authority, StartError> {
    let key = key::of(key::AUTHORITIES, kind.as_str());
    if let Some((stored, revision)) = records.read_at::<StoredAuthority>(&key).await? {
        let Some(ring) = ring else { return Ok(Authority::from_stored(&stored)?) };
        let authority = Authority::from_sealed(&stored, ring)?;
        if !stored.is_sealed_by(ring) {
            records.replace(&key, revision, &authority.to_stored()).await?;
            tracing::info!(cluster = %cluster, kind = kind.as_str(), "the authority's keys were sealed");
        }
        return Ok(authority);
    }
    let mut made = Authority::generate(cluster, kind, now, entropy)?;
    if let Some(ring) = ring {
        made = Authority::from_sealed(&made.to_stored(), ring)?;
    }
    match records.create(&key, &made.to_stored(), None).await {
        Ok(()) => Ok(made),
        Err(cause) => Err(RecordError::into(cause)),
    }
}
