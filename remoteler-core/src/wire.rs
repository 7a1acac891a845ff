//! Paths, content types and small bodies of the auth service's HTTP API: what the server registers and the remote client calls.
//! Owns names only; the values that travel are those of [`crate::AuthApi`].
//!
//! Every answer is JSON but for recordings. A failed call has the status of [`status`] and an [`crate::ApiError`] as its
//! body. Calls that answer nothing have status 204 and no body. Secrets travel in bodies, never in paths or queries.
//! Names in paths are percent-encoded with [`segment`].

use serde::{Deserialize, Serialize};

use crate::{ApiErrorKind, Secret};

/// ALPN of a connection that a proxy passes on to the auth service undecrypted.
pub const ALPN_AUTH: &str = "remoteler-auth";

/// Content type of all requests and answers but recordings.
pub const JSON: &str = "application/json";
/// Content type of recordings, both ways.
pub const OCTETS: &str = "application/octet-stream";

/// Largest JSON body read, both ways where nothing else is said: 1 MiB.
pub const MAX_JSON: usize = 1024 * 1024;
/// Largest body of [`EVENTS`], both ways: 16 MiB.
pub const MAX_EVENTS_BODY: usize = 16 * 1024 * 1024;
/// Most events in one `POST` of [`EVENTS`].
pub const MAX_EVENTS: usize = 1000;
/// Largest part of a recording in one request or answer: 1 MiB.
pub const MAX_CHUNK: usize = 1024 * 1024;

/// `GET` → [`crate::Ping`].
pub const PING: &str = "/v1/ping";
/// `GET` → [`crate::TrustBundle`].
pub const TRUST: &str = "/v1/trust";
/// `POST` [`crate::LoginRequest`] → [`crate::UserCerts`].
pub const LOGIN: &str = "/v1/login";
/// `POST` [`crate::SignUpRequest`] → [`crate::SignedUp`].
pub const SIGN_UP: &str = "/v1/signup";
/// `POST` [`InviteQuery`] → [`crate::Invited`].
pub const INVITED_USER: &str = "/v1/signup/user";
/// `POST` [`crate::JoinRequest`] → [`crate::HostCerts`].
pub const JOIN: &str = "/v1/join";

/// `POST` without a body, with [`RenewQuery`] as query → [`crate::HostCerts`].
pub const RENEW_HOST: &str = "/v1/host/certificates";
/// `PUT` [`crate::TrustAck`] → [`crate::TrustAcked`].
pub const TRUST_ACK: &str = "/v1/host/trust";
/// `GET` → `[`[`crate::RotationStatus`]`]`; `POST` [`crate::RotateRequest`] → [`crate::RotationStatus`].
pub const ROTATIONS: &str = "/v1/rotations";

/// `POST` [`crate::SignRequest`] → [`crate::SignedCertificates`].
pub const CERTIFICATES: &str = "/v1/certificates";
/// `GET` → `[`[`crate::Revocation`]`]`; `POST` [`crate::NewRevocation`] → [`crate::Revocation`].
pub const REVOCATIONS: &str = "/v1/revocations";
/// `DELETE` → nothing. `{revocation}` is a [`crate::RevocationTarget`].
pub const REVOCATION: &str = "/v1/revocations/{revocation}";
/// `GET` → [`crate::RevocationList`]. `{list}` is a [`crate::RevocationListName`].
pub const REVOCATION_LIST: &str = "/v1/revocation_lists/{list}";

/// `GET` with [`PolicyQuery`] as query → [`crate::PolicyUpdate`], or status 204 when nothing has changed.
pub const POLICY: &str = "/v1/policy";
/// How long [`INVENTORY`] waits for a change at the most, and who asks for [`POLICY`] over a connection that may be lost without a word.
pub const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(25);
/// How long [`POLICY`] waits for a change at the most.
pub const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);
/// `GET` → `[`[`crate::Resource`]`]`, roles only.
pub const ROLES: &str = "/v1/roles";
/// `GET` → `[`[`crate::NodeRecord`]`]`.
pub const NODES: &str = "/v1/nodes";
/// `PUT` [`crate::NodeRecord`] → nothing. `{host_id}` is that of the record.
pub const NODE: &str = "/v1/nodes/{host_id}";
/// `GET` → `[`[`crate::KubeRecord`]`]`.
pub const KUBE_CLUSTERS: &str = "/v1/kube_clusters";
/// `PUT` [`crate::KubeRecord`] → nothing. `{name}` is that of the record.
pub const KUBE_CLUSTER: &str = "/v1/kube_clusters/{name}";
/// `GET` → `[`[`crate::AppRecord`]`]`.
pub const APPS: &str = "/v1/apps";
/// `PUT` [`crate::AppRecord`] → nothing. `{name}` is that of the record.
pub const APP: &str = "/v1/apps/{name}";
/// `PUT` [`ProxyAnnouncement`] → nothing.
pub const PROXY: &str = "/v1/proxy";
/// `GET` with [`InventoryQuery`] as query → [`crate::InventoryUpdate`].
pub const INVENTORY: &str = "/v1/inventory";

/// `POST` `[`[`crate::AuditEvent`]`]` → nothing; `GET` with [`crate::EventQuery`] as query → `[`[`crate::AuditEvent`]`]`.
pub const EVENTS: &str = "/v1/events";
/// `GET` → [`crate::evidence::ExportStart`]: the newest checkpoint.
pub const AUDIT_CHECKPOINT: &str = "/v1/audit/checkpoint";
/// `GET` with [`crate::evidence::ExportQuery`] as query → [`crate::evidence::ExportStart`].
pub const AUDIT_EXPORT: &str = "/v1/audit/export";
/// `GET` with [`crate::evidence::ExportTileQuery`] as query → [`crate::evidence::ExportTile`].
pub const AUDIT_TILE: &str = "/v1/audit/tile";
/// `GET` → `[`[`crate::RecordingInfo`]`]`.
pub const RECORDINGS: &str = "/v1/recordings";
/// `PUT` octets with [`ChunkQuery`] as query → nothing; `GET` with [`OffsetQuery`] as query → octets.
pub const RECORDING: &str = "/v1/recordings/{session_id}";
/// `GET` → the number of octets kept (a JSON number).
pub const RECORDING_SIZE: &str = "/v1/recordings/{session_id}/size";

/// `POST` → [`crate::BackupStatus`].
pub const BACKUPS: &str = "/v1/backups";
/// `GET` → [`crate::BackupStatus`].
pub const BACKUP: &str = "/v1/backups/{id}";
/// `GET` with [`OffsetQuery`] as query → octets.
pub const BACKUP_CONTENT: &str = "/v1/backups/{id}/content";

/// `GET` → `[`[`crate::UserSummary`]`]`; `POST` [`crate::NewUser`] → [`crate::Invite`].
pub const USERS: &str = "/v1/users";
/// `PUT` [`crate::NewUser`] → nothing; `DELETE` → nothing. `{name}` is that of the document.
pub const USER: &str = "/v1/users/{name}";
/// `POST` without a body → [`crate::Invite`].
pub const USER_RESET: &str = "/v1/users/{name}/reset";
/// `PUT` [`PasswordChange`] → nothing.
pub const USER_PASSWORD: &str = "/v1/users/{name}/password";

/// `GET` → `[`[`crate::TokenSummary`]`]`; `POST` [`crate::NewToken`] → [`crate::TokenCreated`].
pub const TOKENS: &str = "/v1/tokens";
/// `POST` [`TokenRevocation`] → nothing. No `DELETE`: what is removed may be named by the secret itself.
pub const TOKEN_REVOKE: &str = "/v1/tokens/revoke";

/// `GET` → `[`[`crate::Resource`]`]`. `{kind}` is [`crate::ResourceKind::as_str`].
pub const RESOURCES: &str = "/v1/resources/{kind}";
/// `PUT` `[`[`crate::Resource`]`]` of roles, users and policy tests with [`ReplaceQuery`] as query → nothing.
pub const POLICY_DOCUMENTS: &str = "/v1/resources";
/// `GET` → `[`[`crate::Resource`]`]` (one); `PUT` [`crate::Resource`] with [`ReplaceQuery`] as query → nothing; `DELETE` → nothing.
pub const RESOURCE: &str = "/v1/resources/{kind}/{name}";

/// `POST` [`ConnectorSecretsRequest`] → `[`[`crate::Resource`]`]`. No `GET`: each answer is an event of its own.
pub const CONNECTOR_SECRETS: &str = "/v1/connectors/secrets";
/// `POST` [`RejoinTokenRequest`] → [`crate::TokenCreated`].
pub const REJOIN_TOKENS: &str = "/v1/rejoin_tokens";
/// `POST` [`crate::ExplainRequest`] → `[`[`crate::Explanation`]`]`.
pub const EXPLAIN: &str = "/v1/explain";

/// `GET` → [`crate::LoginMethods`].
pub const LOGIN_METHODS: &str = "/v1/logins/methods";
/// `POST` [`crate::BeginLogin`] → [`crate::LoginBegun`].
pub const LOGINS: &str = "/v1/logins";
/// `POST` [`crate::BrowserStep`] → [`crate::BrowserAnswer`].
pub const LOGIN_BROWSER: &str = "/v1/logins/browser";
/// `POST` [`crate::LoginPoll`] → [`crate::LoginProgress`].
pub const LOGIN_POLL: &str = "/v1/logins/poll";
/// `POST` [`crate::RedeemLogin`] → [`crate::SealedCerts`].
pub const LOGIN_REDEEM: &str = "/v1/logins/redeem";
/// `POST` [`crate::Resource`] → [`crate::LoginBegun`].
pub const CONNECTOR_TEST: &str = "/v1/connectors/test";
/// `GET` → `[`[`crate::Factor`]`]`, the caller's own; `POST` [`crate::NewFactor`] → [`crate::FactorAdded`].
pub const FACTORS: &str = "/v1/factors";
/// `POST` [`crate::FreshProof`] → [`crate::OfferedTotp`].
pub const FACTOR_OFFER: &str = "/v1/factors/offer";
/// `POST` [`crate::FactorRemoval`] → nothing. No `DELETE`: a proof travels along.
pub const FACTOR_REMOVE: &str = "/v1/factors/remove";
/// `POST` [`crate::LeaseRequest`] → [`crate::LeaseAnswer`]; `PUT` [`crate::LeaseReport`] → nothing.
pub const LEASES: &str = "/v1/leases";

/// `POST` [`crate::SessionProofRequest`] → [`crate::SessionProven`].
pub const SESSION_PROOFS: &str = "/v1/session_proofs";

/// `POST` [`crate::AppCodeRequest`] → [`crate::AppSessionOpened`].
pub const APP_SESSIONS: &str = "/v1/app_sessions";
/// `POST` [`crate::AppCertificateRequest`] → [`crate::AppCertified`].
pub const APP_CERTIFICATES: &str = "/v1/app_sessions/certificates";
/// `POST` [`crate::AppSessionsRequest`] → [`crate::AppSessionsEnded`].
pub const APP_SESSIONS_ENDED: &str = "/v1/app_sessions/ended";
/// `POST` [`crate::AppTokenRequest`] → [`crate::AppToken`].
pub const APP_TOKENS: &str = "/v1/app_tokens";

/// `GET` → the OpenAPI document of all of the above.
pub const OPENAPI: &str = "/v1/openapi.json";

/// Proxy's web API, without client certificate: `POST` [`crate::LoginRequest`] → [`crate::UserCerts`].
pub const WEB_LOGIN: &str = "/v1/webapi/login";
/// Proxy's web API: `POST` [`crate::SignUpRequest`] → [`crate::SignedUp`].
pub const WEB_SIGN_UP: &str = "/v1/webapi/signup";
/// Proxy's web API: `POST` [`InviteQuery`] → [`crate::Invited`].
pub const WEB_INVITED_USER: &str = "/v1/webapi/signup/user";
/// Proxy's web API: `GET` → [`crate::Ping`].
pub const WEB_PING: &str = "/v1/webapi/ping";
/// The proxy: `GET` → [`crate::JwkSet`], the public keys of identity tokens (RFC 7517).
pub const WEB_JWKS: &str = "/.well-known/jwks.json";
/// Proxy's web API: `GET` → a revocation list as OpenSSH and TLS programs read it. `{list}` is a [`crate::RevocationListName`], or one with
/// `.pem` behind it for an X.509 list.
pub const WEB_REVOCATION_LIST: &str = "/v1/webapi/revocations/{list}";
/// Proxy's web API: `GET` → [`crate::LoginMethods`].
pub const WEB_LOGIN_METHODS: &str = "/v1/webapi/logins/methods";
/// Proxy's web API: `POST` [`crate::BeginLogin`] → [`crate::LoginBegun`].
pub const WEB_LOGINS: &str = "/v1/webapi/logins";
/// Proxy's web API: `POST` [`crate::LoginPoll`] → [`crate::LoginProgress`].
pub const WEB_LOGIN_POLL: &str = "/v1/webapi/logins/poll";
/// Proxy's web API: `POST` [`crate::RedeemLogin`] → [`crate::SealedCerts`].
pub const WEB_LOGIN_REDEEM: &str = "/v1/webapi/logins/redeem";
/// Page of the proxy that a login's browser opens: `GET`, HTML.
pub const WEB_LOGIN_PAGE: &str = "/web/login/{id}";
/// Where the form with a password on [`WEB_LOGIN_PAGE`] goes: `POST`.
pub const WEB_LOGIN_LOCAL: &str = "/web/login/{id}/local";
/// Where the page that asks for a security key in a login leads: `POST`.
pub const WEB_LOGIN_KEY: &str = "/web/login/{id}/key";
/// Page of the proxy on which a login is confirmed: `GET` and `POST`, HTML.
pub const WEB_LOGIN_CONFIRM: &str = "/web/login/{id}/confirm";
/// Page of the proxy to which identity providers send browsers back: `GET`.
pub const WEB_LOGIN_CALLBACK: &str = "/web/callback/{connector}";
/// Of the proxy: `GET` → what an identity provider of SAML needs to know of us, XML.
pub const WEB_SAML_METADATA: &str = "/web/saml/{connector}/metadata";
/// Page of the proxy on which the code of a login elsewhere is typed: `GET` and `POST`, HTML.
pub const WEB_DEVICE: &str = "/web/device";
/// Page of the proxy that leads to where the login at an identity provider ends: `GET`, HTML or a redirect. Its part is the connector's name.
pub const WEB_LOGOUT: &str = "/web/logout/{connector}";
/// Page of the proxy to which an identity provider sends the browser after [`WEB_LOGOUT`]: `GET`, HTML. Its part is the connector's name.
pub const WEB_LOGGED_OUT: &str = "/web/logout/{connector}/done";
/// Page of the proxy after a login: `GET`, HTML.
pub const WEB_LOGIN_DONE: &str = "/web/done";
/// Page of the proxy on which an invited user sets a password: `GET` and `POST`, HTML.
pub const WEB_INVITE: &str = "/web/invite/{token}";
/// Page of the proxy on which users see and change what is theirs: `GET`, HTML.
pub const WEB_ACCOUNT: &str = "/web/account";
/// Where the forms of [`WEB_ACCOUNT`] go: `POST`.
pub const WEB_ACCOUNT_FORM: &str = "/web/account/{form}";
/// Page of the proxy on which a security key is touched for one session: `GET` and `POST`, HTML.
pub const WEB_SESSION: &str = "/web/session/{id}";
/// Page of the proxy through which a browser comes to a web application: `GET` and `POST`, HTML or a redirect. Its part is the application's name; the
/// query's `state` is [`crate::app_state_hash`] of the state cookie at the application, `path` where the browser wants to go there.
pub const WEB_LAUNCH: &str = "/web/launch/{app}";
/// Path at an application to which [`WEB_LAUNCH`] sends the browser back, with the one-time code as the query's `code`.
pub const APP_SESSION_PATH: &str = "/.remoteler/session";

/// Body of [`INVITED_USER`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteQuery {
    /// The link's secret part.
    pub token: Secret,
}

/// Body of [`PROXY`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyAnnouncement {
    /// `host:port` under which users reach the proxy.
    pub public_addr: String,
}

/// Query of a `PUT` of [`RECORDING`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkQuery {
    /// Number of the first octet of the body.
    pub offset: u64,
    /// Whether the recording ends with it.
    #[serde(default)]
    pub last: bool,
}

/// Query of a `GET` of [`RECORDING`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetQuery {
    /// Number of the first octet wanted; default 0.
    #[serde(default)]
    pub offset: u64,
}

/// Query of [`POLICY`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuery {
    /// What the asker has; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<crate::PolicyVersion>,
    /// How long to wait for a change; default 0, at most 3600.
    #[serde(default)]
    pub wait_seconds: u64,
}

/// Query of [`INVENTORY`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryQuery {
    /// Up to where the asker has it; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<crate::Revision>,
    /// How long to wait for a change; default 0, at most 25.
    #[serde(default)]
    pub wait_seconds: u64,
}

/// Query of a `PUT` of [`RESOURCE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceQuery {
    /// Whether a document of that name may be there; default no.
    #[serde(default)]
    pub replace: bool,
}

/// Body of [`USER_PASSWORD`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The new one.
    pub password: Secret,
}

/// Body of [`TOKEN_REVOKE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRevocation {
    /// The token's id as [`crate::TokenSummary`] shows it, or the token.
    pub id_or_token: Secret,
}

/// Query of a `POST` of [`RENEW_HOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewQuery {
    /// Which run of the host's daemon asks; a program that does not say so gets certificates of the generation it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<crate::InstanceId>,
}

/// Body of [`CONNECTOR_SECRETS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorSecretsRequest {
    /// One of the kinds of connectors.
    pub kind: crate::ResourceKind,
    /// Which one; absent: all of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Body of [`REJOIN_TOKENS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejoinTokenRequest {
    /// Node name or host id.
    pub node: String,
}

/// The HTTP status of a failed call.
#[must_use]
pub const fn status(kind: ApiErrorKind) -> u16 {
    match kind {
        ApiErrorKind::BadRequest => 400,
        ApiErrorKind::Unauthenticated
        | ApiErrorKind::SecondFactorNeeded
        | ApiErrorKind::SecurityKeyNeeded
        | ApiErrorKind::PasswordNeeded
        | ApiErrorKind::FreshLoginNeeded => 401,
        ApiErrorKind::Denied | ApiErrorKind::Copied => 403,
        ApiErrorKind::NotFound => 404,
        ApiErrorKind::Conflict => 409,
        ApiErrorKind::RateLimited => 429,
        ApiErrorKind::Internal => 500,
        ApiErrorKind::Unavailable => 503,
    }
}

/// The kind of a failed call by its HTTP status, for answers without a body of ours.
#[must_use]
pub const fn kind_of_status(status: u16) -> ApiErrorKind {
    match status {
        401 => ApiErrorKind::Unauthenticated,
        403 => ApiErrorKind::Denied,
        404 => ApiErrorKind::NotFound,
        409 => ApiErrorKind::Conflict,
        429 => ApiErrorKind::RateLimited,
        502..=504 => ApiErrorKind::Unavailable,
        400..=499 => ApiErrorKind::BadRequest,
        _ => ApiErrorKind::Internal,
    }
}

/// `value` as one segment of a path: everything but unreserved characters (RFC 3986 section 2.3) percent-encoded.
#[must_use]
pub fn segment(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(octet));
        } else {
            encoded.push_str(&format!("%{octet:02X}"));
        }
    }
    encoded
}

/// The path `template` with its only `{…}` replaced by `value`, percent-encoded.
///
/// A template without `{…}` comes back as it is.
#[must_use]
pub fn path(template: &str, value: &str) -> String {
    match (template.split_once('{'), template.split_once('}')) {
        (Some((before, _)), Some((_, after))) => format!("{before}{}{after}", segment(value)),
        _ => template.to_owned(),
    }
}

/// The path [`RESOURCE`] of one document.
#[must_use]
pub fn resource_path(kind: crate::ResourceKind, name: &str) -> String {
    format!("/v1/resources/{}/{}", kind.as_str(), segment(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_exactly_one_segment_of_the_path() {
        assert_eq!(path(USER, "a/../b?x"), "/v1/users/a%2F..%2Fb%3Fx");
        assert_eq!(path(USER_RESET, "ann"), "/v1/users/ann/reset");
        assert_eq!(resource_path(crate::ResourceKind::Role, "access"), "/v1/resources/role/access");
    }

    #[test]
    fn kinds_of_failure_and_statuses_stand_for_each_other() {
        for kind in [
            ApiErrorKind::BadRequest,
            ApiErrorKind::Unauthenticated,
            ApiErrorKind::Denied,
            ApiErrorKind::NotFound,
            ApiErrorKind::Conflict,
            ApiErrorKind::RateLimited,
            ApiErrorKind::Internal,
            ApiErrorKind::Unavailable,
        ] {
            assert_eq!(kind_of_status(status(kind)), kind);
        }
    }
}
