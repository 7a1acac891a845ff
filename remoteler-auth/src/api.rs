//! The service as one caller sees it: [`AuthApi`] in process. Each change runs in a task of its own, so that a caller who goes away
//! leaves all or nothing.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use remoteler_core::{
    ApiError, ApiErrorKind, AuditEvent, AuthApi, EventQuery, ExplainRequest, Explanation, HostApi, HostCerts,
    InstanceId, InventoryUpdate, Invite, JoinRequest, KubeRecord, LeaseAnswer, LeaseReport, LeaseRequest, LoginRequest,
    NewRevocation, NewToken, NewUser, NodeRecord, Ping, PolicyUpdate, PolicyVersion, RecordingChunk, RecordingInfo,
    Resource, ResourceKind, Revision, Revocation, RevocationList, RevocationListName, RevocationTarget, RotateRequest,
    RotationStatus, Secret, SessionId, SignRequest, SignUpRequest, SignedCertificates, TokenCreated, TokenSummary,
    TrustAck, TrustAcked, TrustBundle, UserCerts, UserName, UserSummary,
    evidence::{ExportQuery, ExportStart, ExportTile, ExportTileQuery},
};

use crate::{
    Caller,
    failure::{ApiResult, bad_request},
    service::Inner,
};

/// A caller at the service.
#[derive(Clone)]
pub(crate) struct Handle {
    inner: Arc<Inner>,
    caller: Arc<Caller>,
}

impl Handle {
    pub(crate) fn new(inner: Arc<Inner>, caller: Caller) -> Self {
        Self { inner, caller: Arc::new(caller) }
    }
}

/// Runs `work` to its end, also when the caller stops waiting.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = ApiResult<T>> + Send + 'static,
) -> ApiResult<T> {
    tokio::spawn(work).await.unwrap_or_else(|cause| {
        tracing::error!(error = &cause as &dyn std::error::Error, "an operation did not finish");
        Err(ApiError::new(ApiErrorKind::Internal, "the operation did not finish; the auth service's log says why"))
    })
}

/// `change!(self, operation(arguments…))`: the operation in a task of its own.
macro_rules! change {
    ($handle:expr, $operation:ident($($argument:expr),*)) => {{
        let Handle { inner, caller } = $handle.clone();
        detached(async move { inner.$operation(&caller $(, $argument)*).await }).await
    }};
}

#[async_trait]
impl HostApi for Handle {
    async fn renew_host(&self, instance: Option<InstanceId>) -> Result<HostCerts, ApiError> {
        change!(self, renew_host(instance))
    }

    async fn acknowledge_trust(&self, ack: TrustAck) -> Result<TrustAcked, ApiError> {
        change!(self, acknowledge_trust(ack))
    }

    async fn policy(&self, known: Option<PolicyVersion>, wait: Duration) -> Result<Option<PolicyUpdate>, ApiError> {
        self.inner.watch_policy(&self.caller, known, wait).await
    }

    async fn announce_node(&self, record: NodeRecord) -> Result<(), ApiError> {
        change!(self, announce_node(record))
    }

    async fn announce_kube(&self, record: KubeRecord) -> Result<(), ApiError> {
        change!(self, announce_kube(record))
    }

    async fn announce_proxy(&self, public_addr: String) -> Result<(), ApiError> {
        change!(self, announce_proxy(public_addr))
    }

    async fn record_events(&self, events: Vec<AuditEvent>) -> Result<(), ApiError> {
        change!(self, record_events(events))
    }

    async fn record_texts(&self, texts: Vec<String>) -> Result<(), ApiError> {
        let events = texts.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>();
        self.record_events(events.map_err(|_| bad_request("a text is no event"))?).await
    }

    async fn append_recording(&self, chunk: RecordingChunk) -> Result<(), ApiError> {
        change!(self, append_recording(chunk))
    }

    async fn recording_size(&self, session: SessionId) -> Result<u64, ApiError> {
        self.inner.recording_size(&self.caller, session).await
    }

    async fn take_lease(&self, request: LeaseRequest) -> Result<LeaseAnswer, ApiError> {
        change!(self, take_lease(request))
    }

    async fn report_leases(&self, report: LeaseReport) -> Result<(), ApiError> {
        change!(self, report_leases(report))
    }

    async fn prove_session(
        &self,
        request: remoteler_core::SessionProofRequest,
    ) -> Result<remoteler_core::SessionProven, ApiError> {
        change!(self, prove_session(request))
    }

    async fn announce_app(&self, record: remoteler_core::AppRecord) -> Result<(), ApiError> {
        change!(self, announce_app(record))
    }

    async fn ended_app_sessions(
        &self,
        request: remoteler_core::AppSessionsRequest,
    ) -> Result<remoteler_core::AppSessionsEnded, ApiError> {
        change!(self, ended_app_sessions(request))
    }

    async fn app_token(&self, request: remoteler_core::AppTokenRequest) -> Result<remoteler_core::AppToken, ApiError> {
        change!(self, app_token(request))
    }
}

#[async_trait]
impl AuthApi for Handle {
    async fn ping(&self) -> Result<Ping, ApiError> {
        Ok(Ping {
            cluster_name: self.inner.cluster.clone(),
            server_version: env!("CARGO_PKG_VERSION").into(),
            server_time: self.inner.clock.now(),
        })
    }

    async fn trust_bundle(&self) -> Result<TrustBundle, ApiError> {
        Ok(self.inner.issuer.trust())
    }

    async fn login(&self, request: LoginRequest) -> Result<UserCerts, ApiError> {
        change!(self, login(request))
    }

    async fn sign_up(&self, request: SignUpRequest) -> Result<remoteler_core::SignedUp, ApiError> {
        change!(self, sign_up(request))
    }

    async fn invited_user(&self, token: Secret) -> Result<remoteler_core::Invited, ApiError> {
        change!(self, invited_user(&token))
    }

    async fn join(&self, request: JoinRequest) -> Result<HostCerts, ApiError> {
        change!(self, join(request))
    }

    async fn rotations(&self) -> Result<Vec<RotationStatus>, ApiError> {
        self.inner.rotations(&self.caller).await
    }

    async fn rotate(&self, request: RotateRequest) -> Result<RotationStatus, ApiError> {
        change!(self, rotate(request))
    }

    async fn sign_certificates(&self, request: SignRequest) -> Result<SignedCertificates, ApiError> {
        change!(self, sign_certificates(request))
    }

    async fn revoke(&self, wanted: NewRevocation) -> Result<Revocation, ApiError> {
        change!(self, revoke(wanted))
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, ApiError> {
        self.inner.revocations(&self.caller).await
    }

    async fn unrevoke(&self, target: RevocationTarget) -> Result<(), ApiError> {
        change!(self, unrevoke(target))
    }

    async fn revocation_list(&self, name: RevocationListName) -> Result<RevocationList, ApiError> {
        let inner = Arc::clone(&self.inner);
        inner.revocation_list(name).await
    }

    async fn roles(&self) -> Result<Vec<Resource>, ApiError> {
        self.inner.role_documents(&self.caller).await
    }

    async fn nodes(&self) -> Result<Vec<Arc<NodeRecord>>, ApiError> {
        self.inner.nodes(&self.caller).await
    }

    async fn kube_clusters(&self) -> Result<Vec<KubeRecord>, ApiError> {
        self.inner.kube_clusters(&self.caller).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<AuditEvent>, ApiError> {
        self.inner.events(&self.caller, query).await
    }

    async fn recordings(&self) -> Result<Vec<RecordingInfo>, ApiError> {
        self.inner.recordings(&self.caller).await
    }

    async fn read_recording(&self, session: SessionId, offset: u64) -> Result<Vec<u8>, ApiError> {
        self.inner.read_recording(&self.caller, session, offset).await
    }

    async fn create_user(&self, user: NewUser) -> Result<Invite, ApiError> {
        change!(self, create_user(user))
    }

    async fn update_user(&self, user: NewUser) -> Result<(), ApiError> {
        change!(self, update_user(user))
    }

    async fn users(&self) -> Result<Vec<UserSummary>, ApiError> {
        self.inner.users(&self.caller).await
    }

    async fn delete_user(&self, name: UserName) -> Result<(), ApiError> {
        change!(self, delete_user(name))
    }

    async fn reset_user(&self, name: UserName) -> Result<Invite, ApiError> {
        change!(self, reset_user(name))
    }

    async fn set_password(&self, name: UserName, password: Secret) -> Result<(), ApiError> {
        change!(self, set_password(name, password))
    }

    async fn create_token(&self, token: NewToken) -> Result<TokenCreated, ApiError> {
        change!(self, create_token(token))
    }

    async fn tokens(&self) -> Result<Vec<TokenSummary>, ApiError> {
        self.inner.tokens(&self.caller).await
    }

    async fn delete_token(&self, id_or_token: Secret) -> Result<(), ApiError> {
        change!(self, delete_token(&id_or_token))
    }

    async fn resources(&self, kind: ResourceKind, name: Option<String>) -> Result<Vec<Resource>, ApiError> {
        self.inner.resources(&self.caller, kind, name).await
    }

    async fn connector_secrets(&self, kind: ResourceKind, name: Option<String>) -> Result<Vec<Resource>, ApiError> {
        change!(self, connector_secrets(kind, name))
    }

    async fn put_resource(&self, resource: Resource, replace: bool) -> Result<(), ApiError> {
        change!(self, put_resource(resource, replace))
    }

    async fn put_policy(&self, documents: Vec<Resource>, replace: bool) -> Result<(), ApiError> {
        change!(self, put_policy(documents, replace))
    }

    async fn delete_resource(&self, kind: ResourceKind, name: String) -> Result<(), ApiError> {
        change!(self, delete_resource(kind, name))
    }

    async fn start_backup(&self) -> Result<remoteler_core::BackupStatus, ApiError> {
        change!(self, start_backup())
    }

    async fn backup(&self, id: String) -> Result<remoteler_core::BackupStatus, ApiError> {
        self.inner.backup(&self.caller, &id).await
    }

    async fn read_backup(&self, id: String, offset: u64) -> Result<Vec<u8>, ApiError> {
        self.inner.read_backup(&self.caller, &id, offset).await
    }

    async fn factors(&self) -> Result<Vec<remoteler_core::Factor>, ApiError> {
        self.inner.factors(&self.caller).await
    }

    async fn offer_factor(&self, proof: remoteler_core::FreshProof) -> Result<remoteler_core::OfferedTotp, ApiError> {
        change!(self, offer_factor(proof))
    }

    async fn add_factor(&self, factor: remoteler_core::NewFactor) -> Result<remoteler_core::FactorAdded, ApiError> {
        change!(self, add_factor(factor))
    }

    async fn remove_factor(&self, removal: remoteler_core::FactorRemoval) -> Result<(), ApiError> {
        change!(self, remove_factor(removal))
    }

    async fn create_rejoin_token(&self, node: String) -> Result<TokenCreated, ApiError> {
        change!(self, create_rejoin_token(&node))
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Vec<Explanation>, ApiError> {
        self.inner.explain(&self.caller, request).await
    }

    async fn audit_checkpoint(&self) -> Result<ExportStart, ApiError> {
        change!(self, audit_checkpoint())
    }

    async fn start_export(&self, query: ExportQuery) -> Result<ExportStart, ApiError> {
        change!(self, start_export(query))
    }

    async fn export_tile(&self, query: ExportTileQuery) -> Result<ExportTile, ApiError> {
        self.inner.export_tile(&self.caller, query).await
    }

    async fn login_methods(&self) -> Result<remoteler_core::LoginMethods, ApiError> {
        self.inner.login_methods().await
    }

    async fn begin_login(&self, request: remoteler_core::BeginLogin) -> Result<remoteler_core::LoginBegun, ApiError> {
        change!(self, begin_login(request))
    }

    async fn browser_step(&self, step: remoteler_core::BrowserStep) -> Result<remoteler_core::BrowserAnswer, ApiError> {
        change!(self, browser_step(step))
    }

    async fn poll_login(&self, poll: remoteler_core::LoginPoll) -> Result<remoteler_core::LoginProgress, ApiError> {
        self.inner.poll_login(poll).await
    }

    async fn redeem_login(
        &self,
        request: remoteler_core::RedeemLogin,
    ) -> Result<remoteler_core::SealedCerts, ApiError> {
        change!(self, redeem_login(request))
    }

    async fn test_connector(&self, connector: Resource) -> Result<remoteler_core::LoginBegun, ApiError> {
        change!(self, test_connector(connector))
    }

    async fn inventory(&self, after: Option<Revision>, wait: Duration) -> Result<InventoryUpdate, ApiError> {
        self.inner.watch_inventory(&self.caller, after, wait).await
    }

    async fn apps(&self) -> Result<Vec<remoteler_core::AppRecord>, ApiError> {
        self.inner.apps(&self.caller).await
    }

    async fn redeem_app_code(
        &self,
        request: remoteler_core::AppCodeRequest,
    ) -> Result<remoteler_core::AppSessionOpened, ApiError> {
        change!(self, redeem_app_code(request))
    }

    async fn app_certificate(
        &self,
        request: remoteler_core::AppCertificateRequest,
    ) -> Result<remoteler_core::AppCertified, ApiError> {
        change!(self, app_certificate(request))
    }
}
