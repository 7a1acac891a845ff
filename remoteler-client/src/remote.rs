//! The auth service over HTTP, as one caller: the other implementation of [`AuthApi`]. Owns the translation between calls and
//! requests; whom to believe is settled when it is made.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, AuthApi, Clock, EventQuery, ExplainRequest, Explanation, HostApi, HostCerts,
    InstanceId, InventoryUpdate, Invite, JoinRequest, KubeRecord, LeaseAnswer, LeaseReport, LeaseRequest, LoginRequest,
    NewRevocation, NewToken, NewUser, NodeRecord, Ping, PolicyUpdate, PolicyVersion, RecordingChunk, RecordingInfo,
    Resource, ResourceKind, Revision, Revocation, RevocationList, RevocationListName, RevocationTarget, RotateRequest,
    RotationStatus, Secret, SessionId, SignRequest, SignUpRequest, SignedCertificates, TokenCreated, TokenSummary,
    TrustAck, TrustAcked, TrustBundle, UserCerts, UserName, UserSummary,
    evidence::{ExportQuery, ExportStart, ExportTile, ExportTileQuery},
    printable, wire,
};
use remoteler_tunnel::{SharedTlsIdentity, Ways};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    connector::{AuthTrust, ConnectError, Connector, LateLinks},
    http::{Answer, Call, HttpClient, HttpError},
};

/// Characters of a failure's message that are shown.
const MAX_MESSAGE: usize = 2000;

/// A handle on the auth service for one caller. Connections are opened when they are needed and kept for the next call.
///
/// Deadlines: 10 s to connect, 30 s for a request. Nothing is retried but a GET, or a request that cannot have arrived.
pub struct RemoteAuth {
    http: HttpClient,
    /// Through the links of this host's agent, once it has any.
    linked: Option<(HttpClient, LateLinks)>,
}

impl RemoteAuth {
    /// The service at `addr` (`host:port`), or behind the proxy there: both speak the ALPN `remoteler-auth`, and the TLS session is
    /// with the auth service either way. Without `identity` the caller is anonymous.
    ///
    /// # Errors
    /// [`ConnectError`] when the identity cannot be used. Nothing is connected yet.
    pub fn tls(addr: &str, identity: Option<Arc<SharedTlsIdentity>>, trust: AuthTrust) -> Result<Self, ConnectError> {
        Ok(Self::over(Connector::auth(addr, identity, trust)?))
    }

    /// The same by another clock than this machine's.
    ///
    /// # Errors
    /// As [`RemoteAuth::tls`].
    pub fn tls_by_clock(
        addr: &str,
        identity: Option<Arc<SharedTlsIdentity>>,
        trust: AuthTrust,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectError> {
        Ok(Self::over(Connector::auth_by_clock(addr, identity, trust, clock)?))
    }

    /// The same, by other ways out of this network than the straight one.
    #[must_use]
    pub fn by(self, ways: &Ways) -> Self {
        Self { http: self.http.by(ways), ..self }
    }

    /// The same through the links of this host's agent while there are any: what is asked there waits for longer, and costs no connection.
    #[must_use]
    pub fn or_through(self, links: &LateLinks) -> Self {
        Self { linked: self.http.through(links).map(|http| (http, links.clone())), ..self }
    }

    /// The ways out that it takes.
    pub(crate) fn ways(&self) -> Ways {
        self.http.ways()
    }

    /// The service on this machine, as its administrator: the socket belongs to it and is open to its user and root.
    #[must_use]
    pub fn unix(socket: &Path) -> Self {
        Self::over(Connector::Unix(socket.into()))
    }

    const fn over(connector: Connector) -> Self {
        Self { http: HttpClient::new(connector), linked: None }
    }

    async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        let answer = self.exchange(&call).await?;
        self.read(&call, &answer)
    }

    fn read<T: DeserializeOwned>(&self, call: &Call, answer: &Answer) -> Result<T, ApiError> {
        serde_json::from_slice(&answer.body).map_err(|cause| {
            let place = self.http.place();
            let path = &call.path;
            ApiError::new(
                ApiErrorKind::Internal,
                format!("{place} answered {path} in a way this program does not read ({cause}); compare the versions"),
            )
        })
    }

    async fn run(&self, call: Call) -> Result<(), ApiError> {
        self.exchange(&call).await.map(|_| ())
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, ApiError> {
        if let Some(answer) = self.exchange_linked(call).await {
            return answer;
        }
        self.judge(self.http.call(call).await)
    }

    /// Through a link; `None` when there is none that leads there, and nothing was asked then.
    async fn exchange_linked(&self, call: &Call) -> Option<Result<Answer, ApiError>> {
        let (http, _) = self.linked.as_ref().filter(|(_, links)| links.are_open())?;
        match http.call(call).await {
            Err(HttpError::Connect(cause)) => {
                tracing::debug!(%cause, "the auth service is not reached through a link");
                None
            }
            answered => {
                // Connections of its own are not needed while there is a link.
                self.http.tidy();
                Some(self.judge(answered))
            }
        }
    }

    fn judge(&self, answered: Result<Answer, HttpError>) -> Result<Answer, ApiError> {
        let answer = answered.map_err(unavailable)?;
        refusal(&answer, &self.http.place()).map_or(Ok(answer), Err)
    }
}

pub(crate) fn unavailable(error: HttpError) -> ApiError {
    let kind = match error {
        HttpError::TooLarge { .. } => ApiErrorKind::Internal,
        HttpError::Connect(_) | HttpError::Broken { .. } | HttpError::Timeout { .. } => ApiErrorKind::Unavailable,
    };
    ApiError::new(kind, error.to_string())
}

/// What an answer other than 2xx says. Text of the other side is shown on terminals, so it is made harmless (I72).
pub(crate) fn refusal(answer: &Answer, place: &str) -> Option<ApiError> {
    if answer.status.is_success() {
        return None;
    }
    Some(match serde_json::from_slice::<ApiError>(&answer.body) {
        Ok(error) => ApiError::new(error.kind, printable(&error.message.chars().take(MAX_MESSAGE).collect::<String>())),
        Err(_) => ApiError::new(
            wire::kind_of_status(answer.status.as_u16()),
            format!("{place} answered with status {} and no explanation", answer.status.as_u16()),
        ),
    })
}

pub(crate) fn get(path: impl Into<String>) -> Call {
    Call { method: Method::GET, path: path.into(), content_type: None, body: Bytes::new(), waits: Duration::ZERO }
}

fn delete(path: String) -> Call {
    Call { method: Method::DELETE, path, content_type: None, body: Bytes::new(), waits: Duration::ZERO }
}

pub(crate) fn send(method: Method, path: impl Into<String>, body: &impl Serialize) -> Call {
    let body =
        serde_json::to_vec(body).expect("bodies of the API are strings, numbers, lists and maps with string keys");
    Call { method, path: path.into(), content_type: Some(wire::JSON), body: body.into(), waits: Duration::ZERO }
}

/// `path` with the fields of `query` that are there.
fn with_query(path: &str, query: &impl Serialize) -> String {
    let fields = serde_json::to_value(query).expect("queries are flat");
    let pairs = fields.as_object().into_iter().flatten().filter_map(|(name, value)| {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
            serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => return None,
        };
        Some(format!("{}={}", wire::segment(name), wire::segment(&text)))
    });
    let pairs = pairs.collect::<Vec<_>>().join("&");
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{pairs}") }
}

#[async_trait]
impl HostApi for RemoteAuth {
    async fn renew_host(&self, instance: Option<InstanceId>) -> Result<HostCerts, ApiError> {
        let path = with_query(wire::RENEW_HOST, &wire::RenewQuery { instance });
        self.call(Call { method: Method::POST, path, content_type: None, body: Bytes::new(), waits: Duration::ZERO })
            .await
    }

    async fn acknowledge_trust(&self, ack: TrustAck) -> Result<TrustAcked, ApiError> {
        let answer = self.exchange(&send(Method::PUT, wire::TRUST_ACK, &ack)).await?;
        // An auth service of an earlier version answers nothing.
        Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    async fn policy(&self, known: Option<PolicyVersion>, wait: Duration) -> Result<Option<PolicyUpdate>, ApiError> {
        let asking = |most: Duration| {
            let wait = wait.min(most);
            let call = get(with_query(wire::POLICY, &wire::PolicyQuery { known, wait_seconds: wait.as_secs() }));
            // What waits no longer than others has their time.
            Call { waits: wait.saturating_sub(wire::MAX_WAIT), ..call }
        };
        let call = asking(wire::MAX_WAIT);
        let answer = match self.exchange_linked(&asking(wire::LONGEST_WAIT)).await {
            Some(answer) => answer?,
            // A connection of its own may be lost without a word.
            None => self.judge(self.http.call(&call).await)?,
        };
        if answer.status == StatusCode::NO_CONTENT { Ok(None) } else { self.read(&call, &answer).map(Some) }
    }

    async fn announce_node(&self, record: NodeRecord) -> Result<(), ApiError> {
        let path = wire::path(wire::NODE, &record.host_id.to_string());
        self.run(send(Method::PUT, path, &record)).await
    }

    async fn announce_kube(&self, record: KubeRecord) -> Result<(), ApiError> {
        let path = wire::path(wire::KUBE_CLUSTER, record.name.as_str());
        self.run(send(Method::PUT, path, &record)).await
    }

    async fn announce_proxy(&self, public_addr: String) -> Result<(), ApiError> {
        self.run(send(Method::PUT, wire::PROXY, &wire::ProxyAnnouncement { public_addr })).await
    }

    async fn record_events(&self, events: Vec<AuditEvent>) -> Result<(), ApiError> {
        self.run(send(Method::POST, wire::EVENTS, &events)).await
    }

    async fn record_texts(&self, texts: Vec<String>) -> Result<(), ApiError> {
        let (body, path) = (format!("[{}]", texts.join(",")).into(), wire::EVENTS.into());
        let content_type = Some(wire::JSON);
        self.run(Call { method: Method::POST, path, content_type, body, waits: Duration::ZERO }).await
    }

    async fn append_recording(&self, chunk: RecordingChunk) -> Result<(), ApiError> {
        let path = wire::path(wire::RECORDING, &chunk.session_id.to_string());
        let path = with_query(&path, &wire::ChunkQuery { offset: chunk.offset, last: chunk.last });
        let body = chunk.octets.into();
        self.run(Call { method: Method::PUT, path, content_type: Some(wire::OCTETS), body, waits: Duration::ZERO })
            .await
    }

    async fn recording_size(&self, session: SessionId) -> Result<u64, ApiError> {
        self.call(get(wire::path(wire::RECORDING_SIZE, &session.to_string()))).await
    }

    async fn take_lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, ApiError> {
        self.call(send(Method::POST, wire::LEASES, &request)).await
    }

    async fn report_leases(&self, report: LeaseReport) -> Result<(), ApiError> {
        self.run(send(Method::PUT, wire::LEASES, &report)).await
    }

    async fn prove_session(
        &self,
        request: remoteler_core::SessionProofRequest,
    ) -> Result<remoteler_core::SessionProven, ApiError> {
        self.call(send(Method::POST, wire::SESSION_PROOFS, &request)).await
    }

    async fn announce_app(&self, record: remoteler_core::AppRecord) -> Result<(), ApiError> {
        let path = wire::path(wire::APP, record.name.as_str());
        self.run(send(Method::PUT, path, &record)).await
    }

    async fn ended_app_sessions(
        &self,
        request: remoteler_core::AppSessionsRequest,
    ) -> Result<remoteler_core::AppSessionsEnded, ApiError> {
        self.call(send(Method::POST, wire::APP_SESSIONS_ENDED, &request)).await
    }

    async fn app_token(&self, request: remoteler_core::AppTokenRequest) -> Result<remoteler_core::AppToken, ApiError> {
        self.call(send(Method::POST, wire::APP_TOKENS, &request)).await
    }
}

#[async_trait]
impl AuthApi for RemoteAuth {
    async fn ping(&self) -> Result<Ping, ApiError> {
        self.call(get(wire::PING)).await
    }

    async fn trust_bundle(&self) -> Result<TrustBundle, ApiError> {
        self.call(get(wire::TRUST)).await
    }

    async fn login(&self, request: LoginRequest) -> Result<UserCerts, ApiError> {
        self.call(send(Method::POST, wire::LOGIN, &request)).await
    }

    async fn sign_up(&self, request: SignUpRequest) -> Result<remoteler_core::SignedUp, ApiError> {
        self.call(send(Method::POST, wire::SIGN_UP, &request)).await
    }

    async fn invited_user(&self, token: Secret) -> Result<remoteler_core::Invited, ApiError> {
        self.call(send(Method::POST, wire::INVITED_USER, &wire::InviteQuery { token })).await
    }

    async fn join(&self, request: JoinRequest) -> Result<HostCerts, ApiError> {
        self.call(send(Method::POST, wire::JOIN, &request)).await
    }

    async fn rotations(&self) -> Result<Vec<RotationStatus>, ApiError> {
        self.call(get(wire::ROTATIONS)).await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<RotationStatus, ApiError> {
        self.call(send(Method::POST, wire::ROTATIONS, &request)).await
    }

    async fn sign_certificates(&self, request: SignRequest) -> Result<SignedCertificates, ApiError> {
        self.call(send(Method::POST, wire::CERTIFICATES, &request)).await
    }

    async fn revoke(&self, wanted: NewRevocation) -> Result<Revocation, ApiError> {
        self.call(send(Method::POST, wire::REVOCATIONS, &wanted)).await
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, ApiError> {
        self.call(get(wire::REVOCATIONS)).await
    }

    async fn unrevoke(&self, target: RevocationTarget) -> Result<(), ApiError> {
        self.run(delete(wire::path(wire::REVOCATION, &target.to_string()))).await
    }

    async fn revocation_list(&self, name: RevocationListName) -> Result<RevocationList, ApiError> {
        self.call(get(wire::path(wire::REVOCATION_LIST, &name.to_string()))).await
    }

    async fn roles(&self) -> Result<Vec<Resource>, ApiError> {
        self.call(get(wire::ROLES)).await
    }

    async fn nodes(&self) -> Result<Vec<Arc<NodeRecord>>, ApiError> {
        let nodes: Vec<NodeRecord> = self.call(get(wire::NODES)).await?;
        Ok(nodes.into_iter().map(Arc::new).collect())
    }

    async fn kube_clusters(&self) -> Result<Vec<KubeRecord>, ApiError> {
        self.call(get(wire::KUBE_CLUSTERS)).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<AuditEvent>, ApiError> {
        self.call(get(with_query(wire::EVENTS, &query))).await
    }

    async fn recordings(&self) -> Result<Vec<RecordingInfo>, ApiError> {
        self.call(get(wire::RECORDINGS)).await
    }

    async fn read_recording(&self, session: SessionId, offset: u64) -> Result<Vec<u8>, ApiError> {
        let path = wire::path(wire::RECORDING, &session.to_string());
        let answer = self.exchange(&get(with_query(&path, &wire::OffsetQuery { offset }))).await?;
        Ok(answer.body.to_vec())
    }

    async fn create_user(&self, user: NewUser) -> Result<Invite, ApiError> {
        self.call(send(Method::POST, wire::USERS, &user)).await
    }

    async fn update_user(&self, user: NewUser) -> Result<(), ApiError> {
        self.run(send(Method::PUT, wire::path(wire::USER, user.name.as_str()), &user)).await
    }

    async fn users(&self) -> Result<Vec<UserSummary>, ApiError> {
        self.call(get(wire::USERS)).await
    }

    async fn delete_user(&self, name: UserName) -> Result<(), ApiError> {
        self.run(delete(wire::path(wire::USER, name.as_str()))).await
    }

    async fn reset_user(&self, name: UserName) -> Result<Invite, ApiError> {
        let path = wire::path(wire::USER_RESET, name.as_str());
        self.call(Call { method: Method::POST, path, content_type: None, body: Bytes::new(), waits: Duration::ZERO })
            .await
    }

    async fn set_password(&self, name: UserName, password: Secret) -> Result<(), ApiError> {
        let path = wire::path(wire::USER_PASSWORD, name.as_str());
        self.run(send(Method::PUT, path, &wire::PasswordChange { password })).await
    }

    async fn create_token(&self, token: NewToken) -> Result<TokenCreated, ApiError> {
        self.call(send(Method::POST, wire::TOKENS, &token)).await
    }

    async fn tokens(&self) -> Result<Vec<TokenSummary>, ApiError> {
        self.call(get(wire::TOKENS)).await
    }

    async fn delete_token(&self, id_or_token: Secret) -> Result<(), ApiError> {
        self.run(send(Method::POST, wire::TOKEN_REVOKE, &wire::TokenRevocation { id_or_token })).await
    }

    async fn resources(&self, kind: ResourceKind, name: Option<String>) -> Result<Vec<Resource>, ApiError> {
        let path = match name {
            Some(name) => wire::resource_path(kind, &name),
            None => wire::path(wire::RESOURCES, kind.as_str()),
        };
        self.call(get(path)).await
    }

    async fn connector_secrets(&self, kind: ResourceKind, name: Option<String>) -> Result<Vec<Resource>, ApiError> {
        self.call(send(Method::POST, wire::CONNECTOR_SECRETS, &wire::ConnectorSecretsRequest { kind, name })).await
    }

    async fn put_resource(&self, resource: Resource, replace: bool) -> Result<(), ApiError> {
        let kind = ResourceKind::parse(&resource.kind)
            .map_err(|cause| ApiError::new(ApiErrorKind::BadRequest, cause.to_string()))?;
        let path = wire::resource_path(kind, &resource.metadata.name);
        self.run(send(Method::PUT, with_query(&path, &wire::ReplaceQuery { replace }), &resource)).await
    }

    async fn put_policy(&self, documents: Vec<Resource>, replace: bool) -> Result<(), ApiError> {
        self.run(send(Method::PUT, with_query(wire::POLICY_DOCUMENTS, &wire::ReplaceQuery { replace }), &documents))
            .await
    }

    async fn delete_resource(&self, kind: ResourceKind, name: String) -> Result<(), ApiError> {
        self.run(delete(wire::resource_path(kind, &name))).await
    }

    async fn start_backup(&self) -> Result<remoteler_core::BackupStatus, ApiError> {
        self.call(Call {
            method: Method::POST,
            path: wire::BACKUPS.into(),
            content_type: None,
            body: Bytes::new(),
            waits: Duration::ZERO,
        })
        .await
    }

    async fn backup(&self, id: String) -> Result<remoteler_core::BackupStatus, ApiError> {
        self.call(get(wire::path(wire::BACKUP, &id))).await
    }

    async fn read_backup(&self, id: String, offset: u64) -> Result<Vec<u8>, ApiError> {
        let path = wire::path(wire::BACKUP_CONTENT, &id);
        let answer = self.exchange(&get(with_query(&path, &wire::OffsetQuery { offset }))).await?;
        Ok(answer.body.to_vec())
    }

    async fn factors(&self) -> Result<Vec<remoteler_core::Factor>, ApiError> {
        self.call(get(wire::FACTORS)).await
    }

    async fn offer_factor(&self, proof: remoteler_core::FreshProof) -> Result<remoteler_core::OfferedTotp, ApiError> {
        self.call(send(Method::POST, wire::FACTOR_OFFER, &proof)).await
    }

    async fn add_factor(&self, factor: remoteler_core::NewFactor) -> Result<remoteler_core::FactorAdded, ApiError> {
        self.call(send(Method::POST, wire::FACTORS, &factor)).await
    }

    async fn remove_factor(&self, removal: remoteler_core::FactorRemoval) -> Result<(), ApiError> {
        self.run(send(Method::POST, wire::FACTOR_REMOVE, &removal)).await
    }

    async fn create_rejoin_token(&self, node: String) -> Result<TokenCreated, ApiError> {
        self.call(send(Method::POST, wire::REJOIN_TOKENS, &wire::RejoinTokenRequest { node })).await
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Vec<Explanation>, ApiError> {
        self.call(send(Method::POST, wire::EXPLAIN, &request)).await
    }

    async fn audit_checkpoint(&self) -> Result<ExportStart, ApiError> {
        self.call(get(wire::AUDIT_CHECKPOINT)).await
    }

    async fn start_export(&self, query: ExportQuery) -> Result<ExportStart, ApiError> {
        self.call(get(with_query(wire::AUDIT_EXPORT, &query))).await
    }

    async fn export_tile(&self, query: ExportTileQuery) -> Result<ExportTile, ApiError> {
        self.call(get(with_query(wire::AUDIT_TILE, &query))).await
    }

    async fn login_methods(&self) -> Result<remoteler_core::LoginMethods, ApiError> {
        self.call(get(wire::LOGIN_METHODS)).await
    }

    async fn begin_login(&self, request: remoteler_core::BeginLogin) -> Result<remoteler_core::LoginBegun, ApiError> {
        self.call(send(Method::POST, wire::LOGINS, &request)).await
    }

    async fn browser_step(
        &self,
        request: remoteler_core::BrowserStep,
    ) -> Result<remoteler_core::BrowserAnswer, ApiError> {
        self.call(send(Method::POST, wire::LOGIN_BROWSER, &request)).await
    }

    async fn poll_login(&self, request: remoteler_core::LoginPoll) -> Result<remoteler_core::LoginProgress, ApiError> {
        self.call(send(Method::POST, wire::LOGIN_POLL, &request)).await
    }

    async fn redeem_login(
        &self,
        request: remoteler_core::RedeemLogin,
    ) -> Result<remoteler_core::SealedCerts, ApiError> {
        self.call(send(Method::POST, wire::LOGIN_REDEEM, &request)).await
    }

    async fn test_connector(&self, request: remoteler_core::Resource) -> Result<remoteler_core::LoginBegun, ApiError> {
        self.call(send(Method::POST, wire::CONNECTOR_TEST, &request)).await
    }

    async fn inventory(&self, after: Option<Revision>, wait: Duration) -> Result<InventoryUpdate, ApiError> {
        let wait_seconds = wait.min(wire::MAX_WAIT).as_secs();
        self.call(get(with_query(wire::INVENTORY, &wire::InventoryQuery { after, wait_seconds }))).await
    }

    async fn apps(&self) -> Result<Vec<remoteler_core::AppRecord>, ApiError> {
        self.call(get(wire::APPS)).await
    }

    async fn redeem_app_code(
        &self,
        request: remoteler_core::AppCodeRequest,
    ) -> Result<remoteler_core::AppSessionOpened, ApiError> {
        self.call(send(Method::POST, wire::APP_SESSIONS, &request)).await
    }

    async fn app_certificate(
        &self,
        request: remoteler_core::AppCertificateRequest,
    ) -> Result<remoteler_core::AppCertified, ApiError> {
        self.call(send(Method::POST, wire::APP_CERTIFICATES, &request)).await
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use remoteler_core::Timestamp;

    use super::*;

    #[test]
    fn a_query_holds_the_fields_that_are_there_and_nothing_else() {
        let query = EventQuery {
            from: Some(Timestamp::from_unix_millis(0)),
            event: Some("user.login".into()),
            user: Some("a&b=c d".into()),
            ..EventQuery::default()
        };
        assert_eq!(
            with_query(wire::EVENTS, &query),
            "/v1/events?from=1970-01-01T00%3A00%3A00.000Z&type=user.login&user=a%26b%3Dc%20d"
        );
        assert_eq!(with_query(wire::EVENTS, &EventQuery::default()), "/v1/events");
    }

    #[test]
    fn a_refusal_keeps_its_kind_and_cannot_write_on_the_terminal() {
        let error = ApiError::new(ApiErrorKind::Denied, "no \u{1b}[2J\u{202e}way");
        let answer = Answer { status: StatusCode::FORBIDDEN, body: serde_json::to_vec(&error).unwrap().into() };
        let seen = refusal(&answer, "x").unwrap();
        assert_eq!(seen.kind, ApiErrorKind::Denied);
        assert_eq!(seen.message, "no \\u{1b}[2J\\u{202e}way"); // I72

        let bare = Answer { status: StatusCode::BAD_GATEWAY, body: Bytes::from_static(b"<html>") };
        assert_eq!(refusal(&bare, "x").unwrap().kind, ApiErrorKind::Unavailable);
    }
}
