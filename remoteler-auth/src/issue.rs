//! The cluster's two authorities and what they issue. Every certificate passes through here: checked profile, audit event, signature,
//! in that order (I75).

mod single;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use remoteler_ca::{
    Authority, HostProfile, IssuedUser, KeyRing, PreparedHost, PreparedUser, Purpose, SshPermits, TlsPublicKey,
    UserProfile,
};
use remoteler_core::{
    AuditKind, AuditSink, CaKind, Clock, ClusterName, Entropy, HostIdentity, LEAST_LOGIN_TTL, Login, Role, RoleOptions,
    RotationPhase, Timestamp, TrustBundle, UserIdentity, UserName,
};
pub(crate) use single::{About, SingleIssue};
use single::{ssh_key, tls_key};
use ssh_key::PublicKey;

use crate::{
    AuditLog,
    authorities::Authorities,
    blocking::sign,
    failure::{self, ApiResult, bad_request},
    key_params::{AuthorityKeys, KeyParams},
    records::Records,
    revocations,
    service::StartError,
};

/// Longest key text read from a request, in octets: an RSA key of 8192 bits takes 1500. It also bounds how deep a parser can be led.
const MAX_KEY: usize = 4 * 1024;
/// No user certificate lives longer, whatever roles say.
const MAX_TTL: Duration = Duration::from_secs(30 * 3600);
/// The principal of a user whose roles give no account: SSH certificates without principals do not exist.
pub(crate) const NO_LOGIN: &str = "no-login";

/// Both authorities, with all they need to issue.
pub(crate) struct Issuer {
    authorities: ArcSwap<Authorities>,
    keys: Arc<AuthorityKeys>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    audit: AuditLog,
}

/// Certificates of a host.
pub(crate) struct IssuedHost {
    /// For its servers.
    pub(crate) serving: remoteler_ca::IssuedHost,
    /// For its TLS clients, when it is another: PEM.
    pub(crate) tls_client_pem: Option<String>,
}

/// User certificates that were checked and may be issued once, by the authority they were prepared for: should a rotation move on in between,
/// it is still believed, for it is let go two phases later at the earliest.
pub(crate) struct UserIssue {
    prepared: PreparedUser,
    authority: Arc<Authority>,
    /// The administrator who asked for it; empty where the user did.
    by: String,
}

/// Serials of a host's certificates that are to be issued.
pub(crate) struct HostSerials {
    /// Decimal.
    pub(crate) ssh: String,
    /// Hex octets joined by colons: the server's and, if it is another, the client's.
    pub(crate) tls: Vec<String>,
}

impl HostIssue {
    /// What the certificates will be called.
    pub(crate) fn serials(&self) -> HostSerials {
        let tls = std::iter::once(&self.serving).chain(&self.client).map(|each| each.prepared.tls_serial()).collect();
        HostSerials { ssh: self.serving.prepared.ssh_serial(), tls }
    }
}

/// The same for a host: one for its servers and, while the two differ, one for its clients.
pub(crate) struct HostIssue {
    serving: HostSignature,
    client: Option<HostSignature>,
}

struct HostSignature {
    prepared: PreparedHost,
    authority: Arc<Authority>,
}

impl UserIssue {
    /// Whose they will be.
    pub(crate) const fn identity(&self) -> &UserIdentity {
        self.prepared.identity()
    }

    /// The same, on the word of an administrator.
    pub(crate) fn asked_by(self, by: String) -> Self {
        Self { by, ..self }
    }

    /// When the certificates will end.
    pub(crate) const fn expires(&self) -> Timestamp {
        self.prepared.not_after()
    }

    /// What the TLS certificate will be called.
    pub(crate) fn tls_serial(&self) -> String {
        self.prepared.tls_serial().to_string()
    }
}

/// The two public keys of a request.
#[derive(Clone)]
pub(crate) struct SubjectKeys {
    ssh: PublicKey,
    tls: TlsPublicKey,
}

impl SubjectKeys {
    /// Reads them; algorithms and sizes are checked when the profile is prepared.
    pub(crate) fn parse(ssh: &str, tls: &str) -> ApiResult<Self> {
        Ok(Self { ssh: ssh_key(ssh)?, tls: tls_key(tls)? })
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
        ring: Option<Arc<KeyRing>>,
        params: KeyParams,
    ) -> Result<Self, StartError> {
        let keys = Arc::new(AuthorityKeys::new(Arc::clone(&entropy), ring, params));
        let authorities = Authorities::open(cluster, records, clock.now(), &keys).await?;
        Ok(Self { authorities: ArcSwap::from_pointee(authorities), keys, clock, entropy, audit })
    }

    /// Both authorities as they are now.
    pub(crate) fn authorities(&self) -> Arc<Authorities> {
        self.authorities.load_full()
    }

    /// Puts both authorities in force.
    pub(crate) fn replace(&self, authorities: Authorities) {
        self.authorities.store(Arc::new(authorities));
    }

    /// Where their private keys are made and kept.
    pub(crate) const fn keys(&self) -> &Arc<AuthorityKeys> {
        &self.keys
    }

    pub(crate) fn trust(&self) -> TrustBundle {
        self.authorities.load().trust().clone()
    }

    /// Checks everything about a user certificate: its end is the earliest of what all `roles` and the request allow.
    pub(crate) fn prepare_user(
        &self,
        identity: UserIdentity,
        roles: &[Arc<Role>],
        keys: SubjectKeys,
        requested: Option<Duration>,
    ) -> ApiResult<UserIssue> {
        revocations::check_keys(self.authorities().trust(), &keys.ssh, &keys.tls)?;
        let now = self.clock.now();
        let not_after = user_end(now, roles, requested)?;
        let permits = permits(roles);
        let profile = UserProfile { identity, ssh_key: keys.ssh, tls_key: keys.tls, not_after, permits };
        let authority = Arc::clone(self.authorities().user.active());
        let prepared =
            profile.prepare(&authority, now, self.entropy.as_ref()).map_err(|cause| failure::profile(&cause))?;
        Ok(UserIssue { prepared, authority, by: String::new() })
    }

    /// Audits and signs a user certificate.
    pub(crate) async fn issue_user(&self, issue: UserIssue) -> ApiResult<IssuedUser> {
        let UserIssue { prepared, authority, by } = issue;
        let identity = prepared.identity();
        let event = AuditKind::CertCreate {
            cert_type: CaKind::User.as_str().into(),
            purpose: Purpose::User.as_str().into(),
            by,
            user: identity.user.to_string(),
            subject: String::new(),
            ssh_serial: prepared.ssh_serial().to_string(),
            tls_serial: prepared.tls_serial().to_string(),
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            logins: identity.logins.iter().map(ToString::to_string).collect(),
            expires: Some(prepared.not_after()),
        };
        self.record(event).await?;
        sign(&authority, |authority| authority.issue_user(prepared)).await
    }

    /// Checks everything about a host's certificates.
    pub(crate) fn prepare_host(&self, identity: HostIdentity, keys: SubjectKeys) -> ApiResult<HostIssue> {
        let authorities = self.authorities();
        revocations::check_keys(authorities.trust(), &keys.ssh, &keys.tls)?;
        let host = &authorities.host;
        let profile = HostProfile { identity, ssh_key: keys.ssh, tls_key: keys.tls };
        let client = if host.rotation.phase() == RotationPhase::UpdateClients {
            Some(self.prepare_host_at(host.active(), profile.clone())?)
        } else {
            None
        };
        Ok(HostIssue { serving: self.prepare_host_at(host.serving(), profile)?, client })
    }

    fn prepare_host_at(&self, authority: &Arc<Authority>, profile: HostProfile) -> ApiResult<HostSignature> {
        let prepared = profile
            .prepare(authority, self.clock.now(), self.entropy.as_ref())
            .map_err(|cause| failure::profile(&cause))?;
        Ok(HostSignature { prepared, authority: Arc::clone(authority) })
    }

    /// Audits and signs a host's certificates: those that its servers are to show now and, if it is another, the one for its clients.
    pub(crate) async fn issue_host(&self, issue: HostIssue) -> ApiResult<IssuedHost> {
        let HostIssue { serving, client } = issue;
        let serving = self.sign_host(serving).await?;
        let tls_client_pem = match client {
            Some(client) => Some(self.sign_host(client).await?.tls_certificate_pem),
            None => None,
        };
        Ok(IssuedHost { serving, tls_client_pem })
    }

    async fn sign_host(&self, issue: HostSignature) -> ApiResult<remoteler_ca::IssuedHost> {
        let HostSignature { prepared, authority } = issue;
        let identity = prepared.identity();
        let event = AuditKind::CertCreate {
            cert_type: CaKind::Host.as_str().into(),
            purpose: Purpose::Host.as_str().into(),
            by: String::new(),
            user: identity.id.to_string(),
            subject: String::new(),
            ssh_serial: prepared.ssh_serial().to_string(),
            tls_serial: prepared.tls_serial().to_string(),
            roles: identity.roles.iter().map(ToString::to_string).collect(),
            logins: Vec::new(),
            expires: None,
        };
        self.record(event).await?;
        sign(&authority, |authority| authority.issue_host(prepared)).await
    }

    async fn record(&self, event: AuditKind) -> ApiResult<()> {
        self.audit.record(event).await.map_err(|cause| failure::audit(&cause))
    }
}

/// When a user's certificate ends: the earliest of what all `roles` and the request allow (I6), in whole seconds, as certificates count.
fn user_end(now: Timestamp, roles: &[Arc<Role>], requested: Option<Duration>) -> ApiResult<Timestamp> {
    let limits = roles.iter().map(|role| role.options().max_session_ttl);
    let ttl = limits.chain(requested).fold(MAX_TTL, Duration::min);
    if ttl < Duration::from_secs(1) {
        return Err(bad_request("a certificate lives at least 1 second"));
    }
    Ok(Timestamp::from_unix_seconds(now.plus(ttl).unix_seconds()))
}

/// What the roles permit in an SSH session.
fn permits(roles: &[Arc<Role>]) -> SshPermits {
    let options = roles.iter().map(|role| *role.options()).reduce(RoleOptions::merge).unwrap_or_default();
    let forwarding = options.port_forwarding;
    SshPermits {
        pty: true,
        port_forwarding: forwarding.local.allowed() || forwarding.remote.allowed(),
        agent_forwarding: options.forward_agent,
    }
}

/// For how long certificates are asked for; at the longest, roles decide.
pub(crate) fn asked_life(seconds: Option<u64>) -> ApiResult<Option<Duration>> {
    let least = LEAST_LOGIN_TTL.as_secs();
    if seconds.is_some_and(|wanted| wanted < least) {
        return Err(bad_request(format!("certificates can be asked for {least} seconds at the least; ask for more")));
    }
    Ok(seconds.map(Duration::from_secs))
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
