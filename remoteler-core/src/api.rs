//! What services and tools ask of the auth service. Two implementations: in process (`remoteler-auth`) and over HTTP
//! (`remoteler-client`). A handle stands for one caller: who calls was settled when the handle was made, so no method takes an identity.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    AppName, AuditEvent, ClusterName, ExplainRequest, Explanation, HostId, InstanceId, InventoryUpdate, JoinMethod,
    KubeClusterName, KubeRecord, Labels, LeaseAnswer, LeaseReport, LeaseRequest, NewRevocation, NodeName, NodeRecord,
    PolicyUpdate, PolicyVersion, RecordingInfo, Resource, ResourceKind, Revision, Revocation, RevocationList,
    RevocationListName, RevocationTarget, RoleName, RotateRequest, RotationStatus, Secret, ServiceAccount, SessionId,
    SignRequest, SignedCertificates, SystemRole, Timestamp, TokenScope, Traits, TrustAck, TrustAcked, TrustBundle,
    UserName,
    evidence::{ExportQuery, ExportStart, ExportTile, ExportTileQuery},
};

/// What kind of failure it is; becomes the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ApiErrorKind {
    /// The request is wrong: 400.
    BadRequest,
    /// Who calls is not known or proven: 401.
    Unauthenticated,
    /// The caller may not: 403.
    Denied,
    /// No such thing: 404.
    NotFound,
    /// It is there already, or was changed meanwhile: 409.
    Conflict,
    /// Another machine is this host: the caller runs on a copy of its disk, or of a former state of it: 403.
    Copied,
    /// Too many attempts: 429.
    RateLimited,
    /// The password is right, and a one-time code is needed beside it: 401.
    SecondFactorNeeded,
    /// The service failed: 500.
    Internal,
    /// The service cannot be reached or cannot do it now; the same request may be sent again: 503.
    Unavailable,
    /// The password is right, and a security key is needed beside it, which only a browser can ask: 401.
    SecurityKeyNeeded,
    /// The password is needed, and was not given: 401.
    PasswordNeeded,
    /// The login at the identity provider is too long ago for this: 401.
    FreshLoginNeeded,
}

/// A failed call: what the caller may know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub kind: ApiErrorKind,
    /// One line: what failed, with which input, what to do.
    pub message: String,
}

impl ApiError {
    /// Makes one.
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What the service says of itself to anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Its cluster.
    pub cluster_name: ClusterName,
    /// Its program's version.
    pub server_version: String,
    /// Its clock.
    pub server_time: Timestamp,
}

/// Shortest life of a user's certificates that may be asked for. Clients take certificates within a minute of their end for ended, so
/// shorter ones would be of no use.
pub const LEAST_LOGIN_TTL: Duration = Duration::from_secs(120);

/// A login with a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Who, as typed; need not be a user name, and is not said to be none.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// One-time code or recovery code; absent at first: [`ApiErrorKind::SecondFactorNeeded`] says when it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Secret>,
    /// Public key to be certified for SSH, OpenSSH's one-line form.
    pub ssh_public_key: String,
    /// Public key to be certified for TLS: PEM of a SubjectPublicKeyInfo.
    pub tls_public_key: String,
    /// Life wanted, in seconds, at least [`LEAST_LOGIN_TTL`]; absent: what the roles allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The client's address as the proxy saw it; only a proxy is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<String>,
}

/// Certificates of a user, and what to trust.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserCerts {
    /// SSH certificate, OpenSSH's one-line form.
    pub ssh_certificate: String,
    /// X.509 certificate, PEM.
    pub tls_certificate: String,
    /// Both end then.
    pub expires: Timestamp,
    /// Roles in them.
    pub roles: BTreeSet<RoleName>,
    /// Operating-system accounts in them.
    pub logins: Vec<String>,
    /// Authorities to trust.
    pub trust: TrustBundle,
    /// The connector at whose provider the browser may be logged in still; where that ends, the proxy's page for it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logout_connector: Option<String>,
}

/// A host asks to be let in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Join token; with a service account's token the name of the resource that lets it in.
    pub token: Secret,
    /// Name wanted.
    pub node_name: NodeName,
    /// Services it will run; each must be allowed by the token.
    pub roles: BTreeSet<SystemRole>,
    /// Kubernetes clusters it will announce.
    #[serde(default)]
    pub kube_clusters: BTreeSet<KubeClusterName>,
    /// Web applications it will announce.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub apps: BTreeSet<AppName>,
    /// Public key to be certified for SSH, OpenSSH's one-line form.
    pub ssh_public_key: String,
    /// Public key to be certified for TLS: PEM of a SubjectPublicKeyInfo.
    pub tls_public_key: String,
    /// The host believed whoever answered, because it was given no pin of the host authority; it says so itself, for the audit log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_pin: bool,
    /// The host has joined before and wants to be that host again: same id, name and services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<crate::RejoinProof>,
    /// Token of the pod's service account, for the cluster's name as its audience: the host joins without a secret of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Secret>,
}

/// Certificates of a host, and what to trust.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostCerts {
    /// Id given to the host.
    pub host_id: HostId,
    /// Cluster it now belongs to.
    pub cluster_name: ClusterName,
    /// SSH host certificate, OpenSSH's one-line form.
    pub ssh_certificate: String,
    /// X.509 certificate, PEM; for TLS servers, and for TLS clients when there is no other for them.
    pub tls_certificate: String,
    /// X.509 certificate for TLS clients, PEM, of the same key: while clients are already to show certificates of a new authority and
    /// servers not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_certificate: Option<String>,
    /// Authorities to trust.
    pub trust: TrustBundle,
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Name.
    pub name: UserName,
    /// Roles; at least one.
    pub roles: BTreeSet<RoleName>,
    /// Attributes, `logins` among them.
    #[serde(default)]
    pub traits: Traits,
}

/// What may be seen of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSummary {
    /// Name.
    pub name: UserName,
    /// Roles.
    pub roles: BTreeSet<RoleName>,
    /// Attributes.
    pub traits: Traits,
    /// Whether a password is set.
    pub has_password: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// A one-time sign-up link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invite {
    /// For whom.
    pub user: UserName,
    /// The secret part; with the proxy's address in front: `https://PROXY/web/invite/TOKEN`.
    pub token: Secret,
    /// Public address of a proxy, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_addr: Option<String>,
    /// Until when.
    pub expires: Timestamp,
}

/// Uses a sign-up link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignUpRequest {
    /// The link's secret part.
    pub token: Secret,
    /// Password to be set.
    pub password: Secret,
    /// A code of the factor that [`crate::Invited`] offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Secret>,
}

/// A join token to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What may join with it.
    pub roles: BTreeSet<SystemRole>,
    /// Life in seconds; default 3600, at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The token itself, if it must be a given one; at least 16 characters. Default: 256 random bits in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Secret>,
    /// How many hosts may join with it; absent: any number, until its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// As [`TokenScope::names`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// As [`TokenScope::labels`].
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// A join token, shown once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The token.
    pub token: Secret,
    /// Until when.
    pub expires: Timestamp,
    /// What may join with it, and how it is called then.
    #[serde(flatten)]
    pub scope: TokenScope,
    /// How many hosts may join with it; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// The one host that may use it, to join again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<HostId>,
    /// Pin of the host authority whose certificates servers show now, to be given as `--ca-pin`.
    pub ca_pin: String,
    /// All pins: during a rotation one of each authority, of which servers show either.
    #[serde(default)]
    pub ca_pins: Vec<String>,
    /// Public address of a proxy, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_addr: Option<String>,
}

/// What may be seen of a token later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSummary {
    /// The first 12 hex digits of its hash; of one without a secret its name.
    pub id: String,
    /// How a host shows that it may use it.
    #[serde(default)]
    pub join_method: JoinMethod,
    /// What may join with it, and how it is called then.
    #[serde(flatten)]
    pub scope: TokenScope,
    /// Until when; absent: for ever, which only tokens without a secret are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How many hosts may still join with it; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// The one host that may use it, to join again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<HostId>,
    /// Pods that may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccount>,
}

/// Which events are wanted. All conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventQuery {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Of this kind, such as `session.start`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// With this `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The newest so many, in order of time; default 100, at most 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// At this node, or in this Kubernetes cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of what succeeded, or of what failed and was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<EventOutcome>,
    /// Older than the event with this `uid`: the first one of an answer leads to the page before. Not found when there is no such event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<uuid::Uuid>,
}

/// Whether what an event tells of worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventOutcome {
    /// It did.
    Success,
    /// It failed, or was refused.
    Failure,
}

/// Part of a recording on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingChunk {
    /// Session.
    pub session_id: SessionId,
    /// Number of the first octet.
    pub offset: u64,
    /// At most 1 MiB.
    pub octets: Vec<u8>,
    /// Whether the recording ends here.
    pub last: bool,
}

/// What a host asks for itself, whatever it runs: certificates, rules, its heartbeats, audit events, recordings and connections that are counted.
///
/// It is apart from [`AuthApi`] so that the program of a device holds these calls, and none of those of people and of proxies for them.
/// What is said there of errors and cancel safety holds here.
#[async_trait]
pub trait HostApi: Send + Sync {
    /// New certificates for the calling host, for the keys it joined with: same id, name, services and labels (I10); of the next generation
    /// when `instance` is the run that speaks for the host. Hosts. [`ApiErrorKind::Copied`] when another machine does.
    async fn renew_host(&self, instance: Option<InstanceId>) -> Result<HostCerts, ApiError>;
    /// Says which generation of the trust bundle the calling host acts by. Hosts, at each change and as often as it says.
    /// [`ApiErrorKind::Copied`] when another machine is that host.
    async fn acknowledge_trust(&self, ack: TrustAck) -> Result<TrustAcked, ApiError>;

    /// What of the rules differs from `known`, as soon as anything does, or `None` after `wait` (at most an hour): trust bundle, roles, locks and
    /// settings. Hosts. A host that is locked is told that, and no roles.
    async fn policy(&self, known: Option<PolicyVersion>, wait: Duration) -> Result<Option<PolicyUpdate>, ApiError>;

    /// A node's heartbeat. That node.
    async fn announce_node(&self, record: NodeRecord) -> Result<(), ApiError>;
    /// A Kubernetes service's heartbeat. That service.
    async fn announce_kube(&self, record: KubeRecord) -> Result<(), ApiError>;
    /// A proxy's public address, for links and hints. Proxies.
    async fn announce_proxy(&self, public_addr: String) -> Result<(), ApiError>;

    /// Stores events of a service; one with a `uid` that is there already is passed over. Hosts. At most 1,000 at once.
    /// On [`ApiErrorKind::RateLimited`] nothing was stored: keep them and send them again.
    async fn record_events(&self, events: Vec<AuditEvent>) -> Result<(), ApiError>;
    /// The same of events that are texts already ([`AuditEvent::to_text`]): who only passes them on does not read them.
    /// [`ApiErrorKind::BadRequest`] when one of them is no event; nothing was stored then.
    async fn record_texts(&self, texts: Vec<String>) -> Result<(), ApiError>;
    /// Stores a part of a recording. The node whose session it is. On [`ApiErrorKind::Conflict`] ask [`HostApi::recording_size`];
    /// on [`ApiErrorKind::RateLimited`] send it again later.
    async fn append_recording(&self, chunk: RecordingChunk) -> Result<(), ApiError>;
    /// Octets stored so far, 0 when none. The node whose session it is.
    async fn recording_size(&self, session: SessionId) -> Result<u64, ApiError>;

    /// Counts a connection of a user whose roles limit how many there may be, if there is room for it. Nodes and Kubernetes services.
    async fn take_lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, ApiError>;
    /// Which counted connections the calling host holds, and which have ended. Nodes and Kubernetes services.
    async fn report_leases(&self, report: LeaseReport) -> Result<(), ApiError>;
    /// Takes a user's second factor for one session. Nodes, for sessions there; users, for themselves. [`ApiErrorKind::SecondFactorNeeded`] without a
    /// code, [`ApiErrorKind::Unauthenticated`] for a wrong or used one, [`ApiErrorKind::Denied`] when the user has no factor.
    async fn prove_session(&self, request: crate::SessionProofRequest) -> Result<crate::SessionProven, ApiError>;
    /// A web application's heartbeat. Its service. Conflict when its address is that of another application, or of a proxy.
    async fn announce_app(&self, record: crate::AppRecord) -> Result<(), ApiError>;
    /// Which of these sessions with web applications have ended, or are none of the service's own applications. App services.
    async fn ended_app_sessions(&self, request: crate::AppSessionsRequest)
    -> Result<crate::AppSessionsEnded, ApiError>;
    /// An identity token for who showed a certificate at a web application. Its service. [`ApiErrorKind::Unauthenticated`] when the certificate is not
    /// believed or its session has ended, [`ApiErrorKind::Denied`] when its holder may not use the application.
    async fn app_token(&self, request: crate::AppTokenRequest) -> Result<crate::AppToken, ApiError>;
}

/// The auth service, as one caller sees it. All methods are cancel safe: a dropped future has done all or nothing.
///
/// Errors: [`ApiErrorKind::Denied`] when the caller may not, [`ApiErrorKind::Unavailable`] when the service does not answer;
/// others are said where they matter.
#[async_trait]
pub trait AuthApi: HostApi {
    /// Who the service is. Anybody.
    async fn ping(&self) -> Result<Ping, ApiError>;
    /// The authorities believed now. Anybody.
    async fn trust_bundle(&self) -> Result<TrustBundle, ApiError>;
    /// Logs a user in. Anybody. Wrong user and wrong password give the same answer after the same work; that a code is needed too, only who has
    /// the password hears ([`ApiErrorKind::SecondFactorNeeded`]).
    async fn login(&self, request: LoginRequest) -> Result<UserCerts, ApiError>;
    /// Sets a password through a sign-up link. Anybody with the link. Takes the link away.
    async fn sign_up(&self, request: SignUpRequest) -> Result<crate::SignedUp, ApiError>;
    /// For whom a sign-up link is, without using it, and the second factor that is offered. Anybody with the link.
    async fn invited_user(&self, token: Secret) -> Result<crate::Invited, ApiError>;
    /// Lets a host in, or in again. Anybody with a token. Conflict when the name belongs to another host, which a host that was in
    /// before proves itself to be by [`JoinRequest::rejoin`].
    async fn join(&self, request: JoinRequest) -> Result<HostCerts, ApiError>;

    /// Where the rotations stand. Users who may read `cert_authority`.
    async fn rotations(&self) -> Result<Vec<RotationStatus>, ApiError>;
    /// Takes a step in a rotation. Users who may update `cert_authority`. Conflict when the phase cannot follow the present one, or
    /// services have not acknowledged that one.
    async fn rotate(&self, request: RotateRequest) -> Result<RotationStatus, ApiError>;

    /// Issues what an administrator asks for. Users who may create `user_cert` or `host_cert`. Not found when there is no such user.
    async fn sign_certificates(&self, request: SignRequest) -> Result<SignedCertificates, ApiError>;
    /// Revokes a certificate or a key; once more what is revoked already: its reason and end become the new ones. Users who may update
    /// `cert_authority`. Conflict when too much is revoked.
    async fn revoke(&self, wanted: NewRevocation) -> Result<Revocation, ApiError>;
    /// What is revoked. Users who may read `cert_authority`.
    async fn revocations(&self) -> Result<Vec<Revocation>, ApiError>;
    /// Takes a revocation back. Users who may update `cert_authority`.
    async fn unrevoke(&self, target: RevocationTarget) -> Result<(), ApiError>;
    /// The list of what is revoked, for programs that are not ours. Anybody.
    async fn revocation_list(&self, name: RevocationListName) -> Result<RevocationList, ApiError>;

    /// All role documents. Hosts, and users who may read roles.
    async fn roles(&self) -> Result<Vec<Resource>, ApiError>;
    /// Nodes: all for proxies and administrators, for users those they may see.
    async fn nodes(&self) -> Result<Vec<Arc<NodeRecord>>, ApiError>;
    /// Kubernetes clusters: all for proxies and administrators, for users those they may see.
    async fn kube_clusters(&self) -> Result<Vec<KubeRecord>, ApiError>;

    /// Events that fit `query`. Users who may list events.
    async fn events(&self, query: EventQuery) -> Result<Vec<AuditEvent>, ApiError>;
    /// Recordings. Users who may list sessions see all, others their own.
    async fn recordings(&self) -> Result<Vec<RecordingInfo>, ApiError>;
    /// At most 1 MiB of a recording from `offset`; empty at the end. Users who may read sessions, others their own.
    async fn read_recording(&self, session: SessionId, offset: u64) -> Result<Vec<u8>, ApiError>;

    /// Makes a user. Users who may create users.
    async fn create_user(&self, user: NewUser) -> Result<Invite, ApiError>;
    /// Changes roles and traits of a user that exists.
    async fn update_user(&self, user: NewUser) -> Result<(), ApiError>;
    /// All users.
    async fn users(&self) -> Result<Vec<UserSummary>, ApiError>;
    /// Removes a user.
    async fn delete_user(&self, name: UserName) -> Result<(), ApiError>;
    /// Takes the password away and makes a new sign-up link.
    async fn reset_user(&self, name: UserName) -> Result<Invite, ApiError>;
    /// Sets a password, as an administrator.
    async fn set_password(&self, name: UserName, password: Secret) -> Result<(), ApiError>;

    /// Makes a join token.
    async fn create_token(&self, token: NewToken) -> Result<TokenCreated, ApiError>;
    /// Tokens that still work.
    async fn tokens(&self) -> Result<Vec<TokenSummary>, ApiError>;
    /// Removes the token with this id, or this token.
    async fn delete_token(&self, id_or_token: Secret) -> Result<(), ApiError>;

    /// Documents of a kind, or the one of that name.
    async fn resources(&self, kind: ResourceKind, name: Option<String>) -> Result<Vec<Resource>, ApiError>;
    /// Documents of connectors of a kind, or the one of that name, with their secrets in the clear. Who may read and change them; each is audited.
    async fn connector_secrets(&self, kind: ResourceKind, name: Option<String>) -> Result<Vec<Resource>, ApiError>;
    /// Writes a document of any kind that documents make; without `replace` it must not exist yet ([`ApiErrorKind::Conflict`]).
    async fn put_resource(&self, resource: Resource, replace: bool) -> Result<(), ApiError>;
    /// Writes documents of roles, users and policy tests as one change: each is checked as if the others stood already, and all are written or
    /// none. At most [`crate::MAX_OPERATIONS`].
    async fn put_policy(&self, documents: Vec<Resource>, replace: bool) -> Result<(), ApiError>;
    /// Removes a document.
    async fn delete_resource(&self, kind: ResourceKind, name: String) -> Result<(), ApiError>;

    /// Begins to make a backup. The administrator of the machine alone. Conflict while another one is made or fetched.
    async fn start_backup(&self) -> Result<crate::BackupStatus, ApiError>;
    /// How far the backup is; keeps it for another minute. The administrator of the machine alone.
    async fn backup(&self, id: String) -> Result<crate::BackupStatus, ApiError>;
    /// At most 1 MiB of a backup from `offset`; empty at the end, which ends it. The administrator of the machine alone.
    async fn read_backup(&self, id: String, offset: u64) -> Result<Vec<u8>, ApiError>;
    /// Makes a token with which one host, named by node name or id, joins again as who it is, once; every other machine that shows its
    /// certificates is refused from then on. Users who may create tokens.
    async fn create_rejoin_token(&self, node: String) -> Result<TokenCreated, ApiError>;
    /// Whether and why a user may do something. Users about themselves, who hear less; users who may read users and roles, about anybody. Not found
    /// when there is no such user or target, or none that a user may see.
    async fn explain(&self, request: ExplainRequest) -> Result<Vec<Explanation>, ApiError>;
    /// The audit log's newest checkpoint, signed just now, and its key. Users who may list events or read `cert_authority`.
    async fn audit_checkpoint(&self) -> Result<ExportStart, ApiError>;
    /// Begins an export of the audit log. Users who may list and read events.
    async fn start_export(&self, query: ExportQuery) -> Result<ExportStart, ApiError>;
    /// A tile of an export. Users who may list and read events.
    async fn export_tile(&self, query: ExportTileQuery) -> Result<ExportTile, ApiError>;

    /// Ways to log in. Anybody.
    async fn login_methods(&self) -> Result<crate::LoginMethods, ApiError>;
    /// Begins a login that a browser finishes. Anybody; those who begin many and finish none are [`ApiErrorKind::RateLimited`].
    async fn begin_login(&self, request: crate::BeginLogin) -> Result<crate::LoginBegun, ApiError>;
    /// A step of the browser. Anybody.
    async fn browser_step(&self, step: crate::BrowserStep) -> Result<crate::BrowserAnswer, ApiError>;
    /// How far a login is. Who began it. Not found when there is no such login, or it has expired.
    async fn poll_login(&self, poll: crate::LoginPoll) -> Result<crate::LoginProgress, ApiError>;
    /// The certificates of a confirmed login, once. Who began it and has the grant.
    async fn redeem_login(&self, request: crate::RedeemLogin) -> Result<crate::SealedCerts, ApiError>;
    /// Begins a login by a connector that need not be stored, which shows what it would give and issues nothing. Users who may create connectors
    /// of that kind.
    async fn test_connector(&self, connector: Resource) -> Result<crate::LoginBegun, ApiError>;
    /// The calling user's second factors. Users.
    async fn factors(&self) -> Result<Vec<crate::Factor>, ApiError>;
    /// Offers the calling user a secret for an authenticator app, for 10 minutes. Users, with a fresh proof.
    async fn offer_factor(&self, proof: crate::FreshProof) -> Result<crate::OfferedTotp, ApiError>;
    /// Takes what was offered as a factor. Users, with a code of it.
    async fn add_factor(&self, factor: crate::NewFactor) -> Result<crate::FactorAdded, ApiError>;
    /// Removes a factor of the calling user. Users, with a fresh proof. Conflict when it is the last one and everybody needs one.
    async fn remove_factor(&self, removal: crate::FactorRemoval) -> Result<(), ApiError>;

    /// What has changed in the inventory after the revision `after`, as soon as anything has; after `wait` (at most 25 s) that nothing has. All there is,
    /// at once, when `after` is none or too long ago. Proxies and administrators.
    async fn inventory(&self, after: Option<Revision>, wait: Duration) -> Result<InventoryUpdate, ApiError>;
    /// Web applications: all for proxies and administrators, for users those they may see.
    async fn apps(&self) -> Result<Vec<crate::AppRecord>, ApiError>;
    /// Turns the one-time code of a launch into a session, once. Proxies. Not found when there is no such code of this browser for this application.
    async fn redeem_app_code(&self, request: crate::AppCodeRequest) -> Result<crate::AppSessionOpened, ApiError>;
    /// Looks whether a session with a web application goes on, and issues a certificate in it. Proxies. [`ApiErrorKind::Unauthenticated`] when there is no
    /// such session for this application, or none any more; [`ApiErrorKind::Denied`] when its user may not use the application any more.
    async fn app_certificate(&self, request: crate::AppCertificateRequest) -> Result<crate::AppCertified, ApiError>;
}
