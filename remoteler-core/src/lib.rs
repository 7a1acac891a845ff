//! Values and decisions of Remoteler, without IO: names, identities and their one encoding in certificates,
//! roles and the access decision, trust bundles and the only two functions that verify certificates, audit
//! events, and the traits through which the parts of the system see each other.
//!
//! Nothing here opens a socket or a file, reads a clock or starts a task: `now` and random bytes come in as
//! arguments or through [`Clock`] and [`Entropy`].

mod access;
mod account;
mod api;
mod app;
mod audit;
mod audit_bound;
#[cfg(test)]
mod audit_schema;
mod audit_sink;
mod audit_text;
mod backup;
mod browser_login;
mod capture;
mod clock;
mod cluster_config;
mod cluster_settings;
mod connected_user;
mod connector;
mod decision;
mod entropy;
mod erased;
pub mod evidence;
mod explain;
mod forward;
mod heartbeat;
mod identity;
mod identity_ssh;
mod identity_x509;
mod inventory;
mod inward;
mod jwk;
mod kube_resources;
mod label;
mod live;
mod lock;
mod mfa;
mod name;
mod pattern;
mod policy;
mod policy_test;
mod policy_view;
mod predicate;
mod recording;
mod rejoin;
mod resource;
mod revocation;
mod revocation_list;
mod role;
mod role_options;
mod rotation;
mod rule;
mod saml_connector;
mod sealed_answer;
mod secret;
mod session_mfa;
mod sign;
mod source;
mod storage;
mod template;
mod text;
mod token;
mod trust;
mod verify;
mod verify_ssh;
mod verify_x509;
pub mod wire;

pub use access::{
    AccessDenied, AppAccess, AppGrant, DenyReason, KubeAccess, SshAccess, authorize_app, authorize_kube,
    authorize_kube_request, authorize_ssh, authorize_ssh_proven, grant_app,
};
pub use account::{Account, AccountWish, OwnCertificate, WebSession};
pub use api::{
    ApiError, ApiErrorKind, AuthApi, EventOutcome, EventQuery, HostApi, HostCerts, Invite, JoinRequest,
    LEAST_LOGIN_TTL, LoginRequest, NewToken, NewUser, Ping, RecordingChunk, SignUpRequest, TokenCreated, TokenSummary,
    UserCerts, UserSummary,
};
pub use app::{
    AppAddress, AppCertificateRequest, AppCertified, AppCodeRequest, AppRecord, AppSessionOpened, AppSessionsEnded,
    AppSessionsRequest, AppToken, AppTokenRequest, MAX_APP_SESSIONS_ASKED, app_state_hash,
};
pub use audit::{AuditEvent, AuditKind, ConnectionFields, SessionFields};
pub use audit_bound::BoundedRefusals;
pub use audit_sink::{AuditError, AuditSink, NullAudit};
pub use backup::BackupStatus;
pub use browser_login::{
    BeginLogin, BrowserAction, BrowserAnswer, BrowserStep, BrowserView, ConnectorChoice, ConnectorReport, LocalChoice,
    LoginBegun, LoginMethods, LoginPoll, LoginProgress, LoopbackUrl, MappingOutcome, NotLoopback, PageRefusal,
    RedeemLogin, SealedCerts, draw_login_code, read_login_code,
};
pub use capture::CapturePattern;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use cluster_config::{
    AuthPreferenceSpec, AuthType, AuthTypeError, ClusterConfig, ClusterConfigError, IdleTimeout, IdleTimeoutError,
    NetworkingSpec, ORIGIN_LABEL, RecordingMode, SecondFactor, SessionRecordingSpec, VerificationInterval,
    VerificationIntervalError, singleton_name,
};
pub use cluster_settings::{ClusterSettings, LOCKS_HOLD};
pub use connected_user::ConnectedUser;
pub use connector::{
    ClaimMapping, ConnectorError, DEFAULT_OIDC_SCOPES, GithubSpec, OidcSpec, TeamMapping, check_connector_name,
};
pub use decision::{Finding, RoleOutcome, Visibility};
pub use entropy::{Entropy, OsEntropy, fill_random, random_uuid};
pub use erased::Erased;
pub use explain::{
    ExplainRequest, ExplainedKind, Explanation, ShownOptions, explain_app, explain_kube, explain_ssh,
    prospective_identity,
};
pub use forward::ForwardDirection;
pub use heartbeat::Heartbeat;
pub use identity::{
    AppProxy, AppUserIdentity, HostIdentity, Identity, IdentityError, KubeUserIdentity, ProvenUserIdentity, SystemRole,
    Traits, UnknownSystemRole, UserIdentity,
};
pub use identity_ssh::{SSH_IDENTITY_EXTENSION, ssh_identity, ssh_identity_value};
pub use identity_x509::{X509_IDENTITY_OID, X509Naming, x509_identity, x509_naming};
pub use inventory::{InventoryUpdate, KubeRecord, NodeRecord, ProxyRecord};
pub use inward::may_lead_to;
pub use jwk::{Jwk, JwkSet};
pub use kube_resources::{KubeRequest, KubeResourceError, KubeResourceSpec, KubeTarget, KubeVerb};
pub use label::{LabelError, Labels, OneOrMany};
pub use live::{
    ConnectionCount, ConnectionKind, ConnectionLease, EndReason, LEASE_LIFE, LeaseAnswer, LeaseReport, LeaseRequest,
    LiveGuard, LiveSignal, LiveWork, Looked, MAX_LEASES_IN_REPORT, Place, Subject, Terms,
};
pub use lock::{Lock, LockContext, LockSpec, LockTarget, Locked, Locks};
pub use mfa::{Factor, FactorAdded, FactorKind, FactorRemoval, FreshProof, Invited, NewFactor, OfferedTotp, SignedUp};
pub use name::{
    AppName, ClusterName, HostId, InstanceId, KubeClusterName, Login, NameError, NodeName, RoleName, SessionId,
    UserName, check_principal,
};
pub use pattern::{Expression, Pattern, PatternError};
pub use policy::{Knowledge, Policy, PolicySource, SharedPolicy};
pub use policy_test::{
    Expect, GivenSpec, KubeObjectSpec, PolicyTest, PolicyTestError, PolicyTestSpec, TargetSpec, TestOutcome, TestWorld,
};
pub use policy_view::{PolicyLimits, PolicyUpdate, PolicyVersion, PolicyVersionError, PolicyView};
pub use predicate::{EvalError, PredicateError};
pub use recording::{RecordingError, RecordingInfo, RecordingStore};
pub use rejoin::{RejoinError, RejoinProof, RejoinStatement};
pub use resource::{Metadata, Resource, ResourceError, ResourceKind};
pub use revocation::{RevocationTarget, RevocationTargetError, Revocations, ShownCertificate, TlsSerial};
pub use revocation_list::{
    NewRevocation, Revocation, RevocationList, RevocationListFormat, RevocationListName, RevocationReason,
    UnknownRevocationList,
};
pub use role::{ConditionsSpec, Role, RoleError, RoleSpec, RoleVersion, RuleSpec, parse_duration, preset_roles};
pub use role_options::{
    EnabledSpec, Forwarding, LockMode, OptionError, OptionsSpec, PortForwarding, PortForwardingEach,
    PortForwardingSpec, RoleOptions,
};
pub use rotation::{
    KeyPlace, KeyPlaces, RotateRequest, RotationKind, RotationPhase, RotationPlan, RotationStatus, RotationView,
    ServiceContact, TrustAck, TrustAcked,
};
pub use rule::{RuleAccess, Verb, authorize_rule};
pub use saml_connector::{AttributeMapping, SamlRequestBinding, SamlSpec};
pub use sealed_answer::{AnswerKey, FollowKey, SealedAnswerError, is_answer_key, seal_answer};
pub use secret::Secret;
pub use session_mfa::{
    ProofMismatch, SSH_PROOF_LIFE, SessionProof, SessionProofRequest, SessionProven, SessionPurpose, SessionTarget,
    WantedSession,
};
pub use sign::{SignRequest, SignedCertificates};
pub use source::{CustomerNet, SourceNet};
pub use storage::{
    Change, Changes, Expected, Item, MAX_KEY, MAX_OPERATIONS, MAX_PAGE, MAX_VALUE, Operation, Page, Revision, Storage,
    StorageError, Transaction, check_key, check_size,
};
pub use template::TemplateError;
pub use text::{printable, printable_json, steers_terminal, with_causes};
pub use token::{
    JoinMethod, KubernetesAllow, KubernetesRules, ServiceAccount, ServiceAccountError, TokenChecker, TokenScope,
    TokenScopeError, TokenSpec,
};
pub use trust::{CaKind, CaSet, TrustBundle, TrustError, spki_pin};
pub use verify::{OnlyAt, Verified, VerifiedHost, VerifiedUser, VerifyError};
pub use verify_ssh::{SSH_PARSER_STACK, SshCertificatePurpose, check_ssh_key, verify_ssh_certificate};
pub use verify_x509::{X509Purpose, verify_x509_chain};
