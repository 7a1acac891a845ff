//! `tsh apps` and `tsh proxy app`: lists web apps, says how one is reached, and makes one reachable on this machine for programs that hold no certificate.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use remoteler_client::StoredLogin;
use remoteler_core::{AppName, AppRecord, AuthApi as _, ClusterName, SystemRole, Verified, X509Purpose};
use remoteler_tunnel::{
    ClientTls, SharedTlsIdentity, TlsIdentity, connect_tcp, handshake_failure, relay, verified_peer,
};
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{login, ls::labels_text};
use crate::{
    context::{Context, block_on, clock, remote_auth},
    output::{self, Format, Table, one_line, say},
    session_mfa, trust,
};

/// From the connection to the proxy to the end of the handshake with the app's service.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Shown {
    app_name: String,
    url: Option<String>,
    labels: remoteler_core::Labels,
}

pub(crate) fn list(context: &Context, format: Format) -> anyhow::Result<()> {
    let login = context.login()?;
    let mut apps = block_on(async {
        trust::refresh_when_old(context, &login).await;
        anyhow::Ok(remote_auth(&login)?.apps().await?)
    })??;
    apps.sort_by(|first, second| first.name.cmp(&second.name));
    let shown: Vec<Shown> = apps
        .into_iter()
        .map(|record| Shown { app_name: record.name.to_string(), url: url(&record, &login), labels: record.labels })
        .collect();
    output::print(format, &shown[..], |shown| {
        let mut table = Table::new(&["APP", "URL", "LABELS"]);
        for app in shown {
            table.row([app.app_name.clone(), app.url.clone().unwrap_or_default(), labels_text(&app.labels)]);
        }
        table.into_text()
    })
}

/// Where a browser reaches an app; `None` when the proxy is known by a number only.
fn url(record: &AppRecord, login: &StoredLogin) -> Option<String> {
    record.address(&login.profile.proxy.to_string()).map(|address| address.origin())
}

pub(crate) fn login(context: &Context, name: &AppName) -> anyhow::Result<()> {
    block_on(async {
        let login = login::ensure(context, false).await?;
        let record = find(&login, name).await?;
        if let Some(url) = url(&record, &login) {
            say(&format!("In a browser: {url}"));
        }
        say(&format!("For programs, in a terminal of its own: tsh proxy app {name} --port 8080"));
        say("Then: curl http://127.0.0.1:8080/");
        anyhow::Ok(())
    })?
}

async fn find(login: &StoredLogin, name: &AppName) -> anyhow::Result<AppRecord> {
    let found = remote_auth(login)?.apps().await?.into_iter().find(|record| record.name == *name);
    found.with_context(|| format!("there is no app {name} that you may use; `tsh apps ls` shows those you may"))
}

/// Listens on loopback until it is stopped; each connection goes to the app as the user.
pub(crate) fn proxy(context: &Context, name: &AppName, port: u16) -> anyhow::Result<()> {
    block_on(async {
        let login = context.login()?;
        trust::refresh_when_old(context, &login).await;
        find(&login, name).await?;
        let identity = match session_mfa::app(context, &login, name).await? {
            Some(proven) => {
                TlsIdentity::from_pem(proven.certificate.as_bytes(), proven.private_key.reveal().as_bytes())?
            }
            None => login.tls.clone(),
        };
        let way = Arc::new(Way {
            proxy: login.profile.proxy.to_string(),
            cluster: context.cluster(&login)?,
            app: name.clone(),
            tls: ClientTls {
                identity: Some(SharedTlsIdentity::new(identity)),
                trust: Arc::new(login.trust.clone()),
                clock: clock(),
            },
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener
            .with_context(|| format!("port {port} of this machine cannot be listened on; give another --port"))?;
        println!("App {name} is at http://{} until this command ends.", listener.local_addr()?);
        loop {
            let local = match listener.accept().await {
                Ok((local, _)) => local,
                // A program that gave up before it was taken, or no room for more at this moment.
                Err(cause) => {
                    say(&format!("tsh: a connection was not taken: {cause}"));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let way = way.clone();
            tokio::spawn(async move { way.serve(local).await });
        }
    })?
}

/// How one app is reached.
struct Way {
    proxy: String,
    cluster: ClusterName,
    app: AppName,
    tls: ClientTls,
}

impl Way {
    async fn serve(&self, mut local: TcpStream) {
        let connected = match timeout(PATIENCE, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(anyhow::anyhow!("app {} did not answer within {} s", self.app, PATIENCE.as_secs())),
        };
        match connected {
            Ok(mut stream) => {
                let relayed = relay(&mut local, &mut stream).await;
                tracing::debug!(up = relayed.up, down = relayed.down, error = ?relayed.error, "a connection ended");
            }
            Err(cause) => {
                let cause = one_line(&cause);
                say(&format!("tsh: {cause}"));
                let answer = format!(
                    "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{cause}\n",
                    cause.len() + 1
                );
                // The program may be gone already.
                let _ = local.write_all(answer.as_bytes()).await;
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let tcp = connect_tcp(&self.proxy, PATIENCE).await?;
        let name =
            ServerName::try_from(self.app.server_name(&self.cluster)).context("the app's name cannot be sent")?;
        let config = self.tls.to_cluster(&[SystemRole::App], "http/1.1")?;
        let stream = match TlsConnector::from(config).connect(name, tcp).await {
            Ok(stream) => stream,
            Err(cause) => {
                bail!("app {} is not reached through {}: {}", self.app, self.proxy, handshake_failure(&cause))
            }
        };
        // The proxy only copies; that it has led us to the right service is found out here.
        let shown = stream.get_ref().1.peer_certificates();
        let service = verified_peer(shown, &*self.tls.trust, X509Purpose::Server, &*self.tls.clock)?;
        let covered = matches!(&service, Verified::Host(host) if host.identity().apps.contains(&self.app));
        ensure!(covered, "who answers for app {} is not certified for it", self.app);
        Ok(stream)
    }
}
