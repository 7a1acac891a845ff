//! The app service: made from settings, served over streams, whether they come from the proxy in this process or through the reverse tunnel.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use remoteler_app::{AppConfig, AppService, AppServiceConfig, AppUri, Assertions, AuthQuestions, EndedSessions};
use remoteler_core::{AuditSink, Clock, HostApi, HostIdentity, LiveWork};
use remoteler_tunnel::{BoxedStream, DialHeader, ServerTls, StreamService, judged_later};

use crate::{VERSION, config::AppSettings};

/// Makes the service.
pub(crate) fn make(
    settings: &AppSettings,
    host: &HostIdentity,
    tls: &ServerTls,
    live: Arc<LiveWork>,
    (audit, clock): (Arc<dyn AuditSink>, Arc<dyn Clock>),
    api: Arc<dyn HostApi>,
) -> anyhow::Result<AppService> {
    let mut apps = Vec::new();
    for app in &settings.apps {
        apps.push(AppConfig {
            name: app.name.clone(),
            uri: AppUri::parse(&app.uri).with_context(|| format!("app {}", app.name))?,
            public_addr: app.public_addr.clone(),
            labels: host.labelled(app.labels.clone()),
        });
    }
    let (cluster, host_id) = (host.cluster.clone(), host.id);
    let config = AppServiceConfig { cluster, host_id, apps, version: VERSION.to_owned() };
    let asked = api.clone();
    let assertions: Assertions = Arc::new(move |request| {
        let api = asked.clone();
        Box::pin(async move { api.app_token(request).await })
    });
    let ended: EndedSessions = Arc::new(move |request| {
        let api = api.clone();
        Box::pin(async move { api.ended_app_sessions(request).await })
    });
    // The verdict on a certificate comes right after the handshake, so that the client reads why and the audit event says who.
    let tls = judged_later(tls.identity.clone())?;
    Ok(AppService::new(config, tls, live, audit, clock, AuthQuestions { assertions, ended })?)
}

/// The service as the router and the reverse tunnel see it.
pub(crate) struct AppStreams(pub(crate) AppService);

#[async_trait]
impl StreamService for AppStreams {
    async fn serve(&self, stream: BoxedStream, header: DialHeader) {
        if let Err(cause) = self.0.serve_stream(stream, header.client_addr).await {
            tracing::debug!(%cause, "a connection to an app ended");
        }
    }
}
