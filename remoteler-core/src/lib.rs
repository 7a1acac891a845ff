//! Values and decisions of Remoteler, without IO: names, identities and their one encoding in certificates,
//! roles and the access decision, trust bundles and the only two functions that verify certificates, audit
//! events, and the traits through which the parts of the system see each other.
//!
//! Nothing here opens a socket or a file, reads a clock or starts a task: `now` and random bytes come in as
//! arguments or through [`Clock`] and [`Entropy`].

mod access;
mod api;
mod audit;
mod audit_bound;
mod clock;
mod cluster_settings;
mod entropy;
mod identity;
mod identity_ssh;
mod identity_x509;
mod inventory;
mod jwk;
mod label;
mod live;
mod lock;
mod name;
mod policy;
mod policy_view;
mod recording;
mod rejoin;
mod resource;
mod revocation;
mod revocation_list;
mod role;
mod role_options;
mod rotation;
mod rule;
mod secret;
mod sign;
mod source;
mod storage;
mod template;
mod text;
mod trust;
mod verify;
mod verify_ssh;
mod verify_x509;
pub mod wire;

pub use access::{AccessDenied, DenyReason, KubeAccess, SshAccess, authorize_kube, authorize_ssh};
pub use api::{
    ApiError, ApiErrorKind, AuthApi, EventQuery, HostCerts, Invite, JoinRequest, LEAST_LOGIN_TTL, LoginRequest,
    NewToken, NewUser, Ping, RecordingChunk, SignUpRequest, TokenCreated, TokenSummary, UserCerts, UserSummary,
};
pub use audit::{AuditError, AuditEvent, AuditKind, AuditSink, ConnectionFields, NullAudit, SessionFields};
pub use audit_bound::BoundedRefusals;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use cluster_settings::{ClusterSettings, LOCKS_HOLD};
pub use entropy::{Entropy, OsEntropy, fill_random, random_uuid};
pub use identity::{
    HostIdentity, Identity, IdentityError, KubeUserIdentity, SystemRole, Traits, UnknownSystemRole, UserIdentity,
};
pub use identity_ssh::{SSH_IDENTITY_EXTENSION, ssh_identity, ssh_identity_value};
pub use identity_x509::{X509_IDENTITY_OID, X509Naming, x509_identity, x509_naming};
pub use inventory::{KubeRecord, NodeRecord};
pub use jwk::{Jwk, JwkSet};
pub use label::{LabelError, LabelMatcher, Labels, OneOrMany, Pattern};
pub use live::{ConnectionKind, EndReason, LiveGuard, LiveSignal, LiveWork, Looked, Subject, Terms};
pub use lock::{Lock, LockContext, LockSpec, LockTarget, Locked, Locks};
pub use name::{
    ClusterName, HostId, KubeClusterName, Login, NameError, NodeName, RoleName, SessionId, UserName, check_principal,
};
pub use policy::{Knowledge, Policy, PolicySource, SharedPolicy};
pub use policy_view::{PolicyLimits, PolicyUpdate, PolicyVersion, PolicyVersionError, PolicyView};
pub use recording::{RecordingError, RecordingInfo, RecordingStore};
pub use rejoin::{RejoinError, RejoinProof, RejoinStatement};
pub use resource::{Metadata, Resource, ResourceError, ResourceKind};
pub use revocation::{RevocationTarget, RevocationTargetError, Revocations, ShownCertificate, TlsSerial};
pub use revocation_list::{
    NewRevocation, Revocation, RevocationList, RevocationListFormat, RevocationListName, RevocationReason,
    UnknownRevocationList,
};
pub use role::{ConditionsSpec, Role, RoleConditions, RoleError, RoleSpec, RuleSpec, parse_duration, preset_roles};
pub use role_options::{
    EnabledSpec, Forwarding, LockMode, OptionError, OptionsSpec, PortForwarding, PortForwardingEach,
    PortForwardingSpec, RoleOptions,
};
pub use rotation::{
    KeyPlace, KeyPlaces, RotateRequest, RotationKind, RotationPhase, RotationPlan, RotationStatus, RotationView,
    ServiceContact, TrustAck,
};
pub use rule::{RuleAccess, Verb, authorize_rule};
pub use secret::Secret;
pub use sign::{SignRequest, SignedCertificates};
pub use source::SourceNet;
pub use storage::{Expected, Item, Page, Revision, Storage, StorageError};
pub use template::TemplateError;
pub use text::{printable, steers_terminal, with_causes};
pub use trust::{CaKind, CaSet, TrustBundle, TrustError, spki_pin};
pub use verify::{Verified, VerifiedHost, VerifiedUser, VerifyError};
pub use verify_ssh::{SSH_PARSER_STACK, SshCertificatePurpose, check_ssh_key, verify_ssh_certificate};
pub use verify_x509::{X509Purpose, verify_x509_chain};
