//! The table of routes: what the router registers and what the OpenAPI document describes, so that neither knows more than the other.

mod backup;
mod evidence;
mod explain;
mod leases;
mod logins;
mod mfa;
pub(super) mod policy;
mod session_mfa;

use std::fmt::Display;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    response::IntoResponse,
    routing::{MethodRouter, delete, get, post, put},
};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use remoteler_core::{
    ApiError, AppCertificateRequest, AppCodeRequest, AppName, AppRecord, AppSessionsRequest, AppTokenRequest,
    AuditEvent, EventQuery, HostId, JoinRequest, KubeClusterName, KubeRecord, LoginRequest, NewRevocation, NewToken,
    NewUser, NodeRecord, RecordingChunk, Resource, ResourceKind, RevocationListName, RevocationTarget, RotateRequest,
    SessionId, SignRequest, SignUpRequest, TrustAck, UserName,
    wire::{
        self, ChunkQuery, ConnectorSecretsRequest, InviteQuery, OffsetQuery, PasswordChange, ProxyAnnouncement,
        RejoinTokenRequest, RenewQuery, ReplaceQuery, TokenRevocation,
    },
};

use super::{
    body::{Api, Failure, Input, Octets, Path, Query, done, json, octets},
    openapi::openapi_document,
};
use crate::failure::{bad_request, not_found};

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No body.
    Nothing,
    /// A value of this schema.
    One(&'static str),
    /// A list of them.
    Many(&'static str),
    /// Octets of a recording.
    Octets,
    /// The OpenAPI document.
    Document,
}

/// One operation.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// Name of the schema whose fields are query parameters.
    pub(super) query: Option<&'static str>,
    pub(super) request: Shape,
    pub(super) answer: Shape,
    handler: MethodRouter,
}

impl Route {
    fn new(summary: &'static str, path: &'static str, method: Method, answer: Shape, handler: MethodRouter) -> Self {
        Self { method, path, summary, query: None, request: Shape::Nothing, answer, handler }
    }

    fn takes(self, schema: &'static str) -> Self {
        Self { request: Shape::One(schema), ..self }
    }

    fn query(self, schema: &'static str) -> Self {
        Self { query: Some(schema), ..self }
    }

    /// Allows a larger body than [`wire::MAX_JSON`].
    fn limit(self, octets: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(octets)), ..self }
    }
}

/// The router of the whole API. Requests carry the caller's handle.
pub(super) fn router() -> Router {
    let routes = table();
    let router = routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    router
        .fallback(async || Failure(not_found("there is no such call; GET /v1/openapi.json lists the calls there are")))
        .method_not_allowed_fallback(async || Failure(bad_request("the path does not take this method")))
        .layer(DefaultBodyLimit::max(wire::MAX_JSON))
}

/// All operations.
pub(super) fn table() -> Vec<Route> {
    let mut routes = open_to_anybody();
    routes.extend(cluster());
    routes.extend(audit());
    routes.extend(revocation());
    routes.extend(evidence::routes());
    routes.extend(administration());
    routes.extend(backup::routes());
    routes.extend(explain::table());
    routes.extend(policy::routes());
    routes.extend(logins::table());
    routes.extend(mfa::routes());
    routes.extend(leases::routes());
    routes.extend(session_mfa::routes());
    routes
}

fn open_to_anybody() -> Vec<Route> {
    use Shape::One;
    vec![
        Route::new(
            "Who the service is",
            wire::PING,
            Method::GET,
            One("Ping"),
            get(async |Api(api): Api| json(api.ping().await)),
        ),
        Route::new(
            "The authorities believed now",
            wire::TRUST,
            Method::GET,
            One("TrustBundle"),
            get(async |Api(api): Api| json(api.trust_bundle().await)),
        ),
        Route::new(
            "Logs a user in with a password",
            wire::LOGIN,
            Method::POST,
            One("UserCerts"),
            post(async |Api(api): Api, Input(request): Input<LoginRequest>| json(api.login(request).await)),
        )
        .takes("LoginRequest"),
        Route::new(
            "Sets a password through a sign-up link",
            wire::SIGN_UP,
            Method::POST,
            One("SignedUp"),
            post(async |Api(api): Api, Input(request): Input<SignUpRequest>| json(api.sign_up(request).await)),
        )
        .takes("SignUpRequest"),
        Route::new(
            "For whom a sign-up link is",
            wire::INVITED_USER,
            Method::POST,
            One("Invited"),
            post(async |Api(api): Api, Input(query): Input<InviteQuery>| json(api.invited_user(query.token).await)),
        )
        .takes("InviteQuery"),
        Route::new(
            "Lets a host in",
            wire::JOIN,
            Method::POST,
            One("HostCerts"),
            post(async |Api(api): Api, Input(request): Input<JoinRequest>| json(api.join(request).await)),
        )
        .takes("JoinRequest"),
        Route::new(
            "This document",
            wire::OPENAPI,
            Method::GET,
            Shape::Document,
            get(async || ([(CONTENT_TYPE, HeaderValue::from_static(wire::JSON))], openapi_document()).into_response()),
        ),
    ]
}

fn cluster() -> Vec<Route> {
    use Shape::{Many, Nothing, One};
    vec![
        Route::new(
            "All roles, for hosts and for users who may read roles",
            wire::ROLES,
            Method::GET,
            Many("Resource"),
            get(async |Api(api): Api| json(api.roles().await)),
        ),
        Route::new(
            "New certificates for the calling host",
            wire::RENEW_HOST,
            Method::POST,
            One("HostCerts"),
            post(async |Api(api): Api, Query(query): Query<RenewQuery>| json(api.renew_host(query.instance).await)),
        )
        .query("RenewQuery"),
        Route::new(
            "Which trust bundle the calling host acts by",
            wire::TRUST_ACK,
            Method::PUT,
            One("TrustAcked"),
            put(async |Api(api): Api, Input(ack): Input<TrustAck>| json(api.acknowledge_trust(ack).await)),
        )
        .takes("TrustAck"),
        Route::new(
            "Nodes the caller may see",
            wire::NODES,
            Method::GET,
            Many("NodeRecord"),
            get(async |Api(api): Api| match api.nodes().await {
                Ok(nodes) => json(Ok(nodes.iter().map(AsRef::as_ref).collect::<Vec<&NodeRecord>>())),
                Err(cause) => json::<()>(Err(cause)),
            }),
        ),
        Route::new(
            "A node's heartbeat",
            wire::NODE,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Path(id): Path<HostId>, Input(record): Input<NodeRecord>| {
                let same = same("host_id", id, record.host_id);
                done(match same {
                    Ok(()) => api.announce_node(record).await,
                    Err(cause) => Err(cause),
                })
            }),
        )
        .takes("NodeRecord"),
        Route::new(
            "Kubernetes clusters the caller may see",
            wire::KUBE_CLUSTERS,
            Method::GET,
            Many("KubeRecord"),
            get(async |Api(api): Api| json(api.kube_clusters().await)),
        ),
        Route::new(
            "A Kubernetes service's heartbeat",
            wire::KUBE_CLUSTER,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Path(name): Path<KubeClusterName>, Input(record): Input<KubeRecord>| {
                done(match same("name", &name, &record.name) {
                    Ok(()) => api.announce_kube(record).await,
                    Err(cause) => Err(cause),
                })
            }),
        )
        .takes("KubeRecord"),
        Route::new(
            "Web applications the caller may see",
            wire::APPS,
            Method::GET,
            Many("AppRecord"),
            get(async |Api(api): Api| json(api.apps().await)),
        ),
        Route::new(
            "A web application's heartbeat",
            wire::APP,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Path(name): Path<AppName>, Input(record): Input<AppRecord>| {
                done(match same("name", &name, &record.name) {
                    Ok(()) => api.announce_app(record).await,
                    Err(cause) => Err(cause),
                })
            }),
        )
        .takes("AppRecord"),
        Route::new(
            "Turn the one-time code of a launch into a session with a web application",
            wire::APP_SESSIONS,
            Method::POST,
            One("AppSessionOpened"),
            post(async |Api(api): Api, Input(request): Input<AppCodeRequest>| json(api.redeem_app_code(request).await)),
        )
        .takes("AppCodeRequest"),
        Route::new(
            "Whether a session with a web application goes on, and a certificate in it",
            wire::APP_CERTIFICATES,
            Method::POST,
            One("AppCertified"),
            post(async |Api(api): Api, Input(request): Input<AppCertificateRequest>| {
                json(api.app_certificate(request).await)
            }),
        )
        .takes("AppCertificateRequest"),
        Route::new(
            "Which sessions with a service's web applications have ended",
            wire::APP_SESSIONS_ENDED,
            Method::POST,
            One("AppSessionsEnded"),
            post(async |Api(api): Api, Input(request): Input<AppSessionsRequest>| {
                json(api.ended_app_sessions(request).await)
            }),
        )
        .takes("AppSessionsRequest"),
        Route::new(
            "An identity token for who showed a certificate at a web application",
            wire::APP_TOKENS,
            Method::POST,
            One("AppToken"),
            post(async |Api(api): Api, Input(request): Input<AppTokenRequest>| json(api.app_token(request).await)),
        )
        .takes("AppTokenRequest"),
        Route::new(
            "A proxy's public address",
            wire::PROXY,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Input(proxy): Input<ProxyAnnouncement>| {
                done(api.announce_proxy(proxy.public_addr).await)
            }),
        )
        .takes("ProxyAnnouncement"),
    ]
}

fn audit() -> Vec<Route> {
    use Shape::{Many, Nothing, One};
    let mut report = Route::new(
        "Stores events of a host; one whose uid is there already is passed over",
        wire::EVENTS,
        Method::POST,
        Nothing,
        post(async |Api(api): Api, Input(events): Input<Vec<AuditEvent>>| done(api.record_events(events).await)),
    );
    report.request = Many("AuditEvent");
    let mut append = Route::new(
        "Stores a part of a recording",
        wire::RECORDING,
        Method::PUT,
        Nothing,
        put(async |Api(api): Api, Path(id): Path<SessionId>, Query(at): Query<ChunkQuery>, Octets(body): Octets| {
            let chunk = RecordingChunk { session_id: id, offset: at.offset, octets: body.into(), last: at.last };
            done(api.append_recording(chunk).await)
        }),
    );
    append.request = Shape::Octets;
    vec![
        report.limit(wire::MAX_EVENTS_BODY),
        Route::new(
            "Events that fit all conditions, the newest ones, in order of time",
            wire::EVENTS,
            Method::GET,
            Many("AuditEvent"),
            get(async |Api(api): Api, Query(query): Query<EventQuery>| json(api.events(query).await)),
        )
        .query("EventQuery"),
        Route::new(
            "Recordings the caller may see",
            wire::RECORDINGS,
            Method::GET,
            Many("RecordingInfo"),
            get(async |Api(api): Api| json(api.recordings().await)),
        ),
        append.query("ChunkQuery").limit(wire::MAX_CHUNK),
        Route::new(
            "At most 1 MiB of a recording; empty at the end",
            wire::RECORDING,
            Method::GET,
            Shape::Octets,
            get(async |Api(api): Api, Path(id): Path<SessionId>, Query(at): Query<OffsetQuery>| {
                octets(api.read_recording(id, at.offset).await)
            }),
        )
        .query("OffsetQuery"),
        Route::new(
            "Octets of a recording stored so far",
            wire::RECORDING_SIZE,
            Method::GET,
            One("Size"),
            get(async |Api(api): Api, Path(id): Path<SessionId>| json(api.recording_size(id).await)),
        ),
    ]
}

fn revocation() -> Vec<Route> {
    use Shape::{Many, Nothing, One};
    vec![
        Route::new(
            "What is revoked, in the form that OpenSSH (krl) or TLS programs (crl) read",
            wire::REVOCATION_LIST,
            Method::GET,
            One("RevocationList"),
            get(async |Api(api): Api, Path(name): Path<RevocationListName>| json(api.revocation_list(name).await)),
        ),
        Route::new(
            "Certificates and keys that are revoked",
            wire::REVOCATIONS,
            Method::GET,
            Many("Revocation"),
            get(async |Api(api): Api| json(api.revocations().await)),
        ),
        Route::new(
            "Revokes a certificate or a key",
            wire::REVOCATIONS,
            Method::POST,
            One("Revocation"),
            post(async |Api(api): Api, Input(wanted): Input<NewRevocation>| json(api.revoke(wanted).await)),
        )
        .takes("NewRevocation"),
        Route::new(
            "Takes a revocation back",
            wire::REVOCATION,
            Method::DELETE,
            Nothing,
            delete(async |Api(api): Api, Path(target): Path<RevocationTarget>| done(api.unrevoke(target).await)),
        ),
    ]
}

fn administration() -> Vec<Route> {
    use Shape::{Many, Nothing, One};
    vec![
        Route::new(
            "Where the rotations of the authorities stand",
            wire::ROTATIONS,
            Method::GET,
            Many("RotationStatus"),
            get(async |Api(api): Api| json(api.rotations().await)),
        ),
        Route::new(
            "Takes a step in the rotation of an authority",
            wire::ROTATIONS,
            Method::POST,
            One("RotationStatus"),
            post(async |Api(api): Api, Input(request): Input<RotateRequest>| json(api.rotate(request).await)),
        )
        .takes("RotateRequest"),
        Route::new(
            "Issues what an administrator asks for",
            wire::CERTIFICATES,
            Method::POST,
            One("SignedCertificates"),
            post(async |Api(api): Api, Input(request): Input<SignRequest>| json(api.sign_certificates(request).await)),
        )
        .takes("SignRequest"),
        Route::new(
            "All users",
            wire::USERS,
            Method::GET,
            Many("UserSummary"),
            get(async |Api(api): Api| json(api.users().await)),
        ),
        Route::new(
            "Makes a user and a sign-up link",
            wire::USERS,
            Method::POST,
            One("Invite"),
            post(async |Api(api): Api, Input(user): Input<NewUser>| json(api.create_user(user).await)),
        )
        .takes("NewUser"),
        Route::new(
            "Changes roles and traits of a user",
            wire::USER,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Path(name): Path<UserName>, Input(user): Input<NewUser>| {
                done(match same("name", &name, &user.name) {
                    Ok(()) => api.update_user(user).await,
                    Err(cause) => Err(cause),
                })
            }),
        )
        .takes("NewUser"),
        Route::new(
            "Removes a user",
            wire::USER,
            Method::DELETE,
            Nothing,
            delete(async |Api(api): Api, Path(name): Path<UserName>| done(api.delete_user(name).await)),
        ),
        Route::new(
            "Takes a user's password away and makes a new sign-up link",
            wire::USER_RESET,
            Method::POST,
            One("Invite"),
            post(async |Api(api): Api, Path(name): Path<UserName>| json(api.reset_user(name).await)),
        ),
        Route::new(
            "Sets a user's password",
            wire::USER_PASSWORD,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Path(name): Path<UserName>, Input(change): Input<PasswordChange>| {
                done(api.set_password(name, change.password).await)
            }),
        )
        .takes("PasswordChange"),
        Route::new(
            "Join tokens that still work",
            wire::TOKENS,
            Method::GET,
            Many("TokenSummary"),
            get(async |Api(api): Api| json(api.tokens().await)),
        ),
        Route::new(
            "Makes a join token",
            wire::TOKENS,
            Method::POST,
            One("TokenCreated"),
            post(async |Api(api): Api, Input(token): Input<NewToken>| json(api.create_token(token).await)),
        )
        .takes("NewToken"),
        Route::new(
            "Removes a join token",
            wire::TOKEN_REVOKE,
            Method::POST,
            Nothing,
            post(async |Api(api): Api, Input(token): Input<TokenRevocation>| {
                done(api.delete_token(token.id_or_token).await)
            }),
        )
        .takes("TokenRevocation"),
        Route::new(
            "Makes a token with which one host joins again, once",
            wire::REJOIN_TOKENS,
            Method::POST,
            One("TokenCreated"),
            post(async |Api(api): Api, Input(wanted): Input<RejoinTokenRequest>| {
                json(api.create_rejoin_token(wanted.node).await)
            }),
        )
        .takes("RejoinTokenRequest"),
        Route::new(
            "Documents of a kind",
            wire::RESOURCES,
            Method::GET,
            Many("Resource"),
            get(async |Api(api): Api, Path(kind): Path<ResourceKind>| json(api.resources(kind, None).await)),
        ),
        Route::new(
            "The document of that kind and name",
            wire::RESOURCE,
            Method::GET,
            Many("Resource"),
            get(async |Api(api): Api, Path((kind, name)): Path<(ResourceKind, String)>| {
                json(api.resources(kind, Some(name)).await)
            }),
        ),
        Route::new(
            "Connectors with their secrets",
            wire::CONNECTOR_SECRETS,
            Method::POST,
            Many("Resource"),
            post(async |Api(api): Api, Input(wanted): Input<ConnectorSecretsRequest>| {
                json(api.connector_secrets(wanted.kind, wanted.name).await)
            }),
        )
        .takes("ConnectorSecretsRequest"),
        Route::new(
            "Writes a document of a role, a user, a policy test, or a token without a secret",
            wire::RESOURCE,
            Method::PUT,
            Nothing,
            put(
                async |Api(api): Api,
                       Path((kind, name)): Path<(ResourceKind, String)>,
                       Query(query): Query<ReplaceQuery>,
                       Input(document): Input<Resource>| {
                    let fits = same("metadata.name", &name, &document.metadata.name)
                        .and_then(|()| same("kind", kind.as_str(), document.kind.as_str()));
                    done(match fits {
                        Ok(()) => api.put_resource(document, query.replace).await,
                        Err(cause) => Err(cause),
                    })
                },
            ),
        )
        .takes("Resource")
        .query("ReplaceQuery"),
        Route {
            request: Many("Resource"),
            ..Route::new(
                "Writes documents of roles, users and policy tests as one change: all of them or none",
                wire::POLICY_DOCUMENTS,
                Method::PUT,
                Nothing,
                put(
                    async |Api(api): Api, Query(query): Query<ReplaceQuery>, Input(documents): Input<Vec<Resource>>| {
                        done(api.put_policy(documents, query.replace).await)
                    },
                ),
            )
            .query("ReplaceQuery")
        },
        Route::new(
            "Removes a document",
            wire::RESOURCE,
            Method::DELETE,
            Nothing,
            delete(async |Api(api): Api, Path((kind, name)): Path<(ResourceKind, String)>| {
                done(api.delete_resource(kind, name).await)
            }),
        ),
    ]
}

/// The path and the body must speak of the same thing.
fn same<T: PartialEq + Display>(field: &str, in_path: T, in_body: T) -> Result<(), ApiError> {
    if in_path == in_body {
        return Ok(());
    }
    Err(bad_request(format!("the path says {in_path}, {field} of the body says {in_body}")))
}
