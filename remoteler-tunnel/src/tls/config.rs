//! rustls configurations of every listener and every connection of the cluster. Owns the versions, the ALPN lists and the
//! absence of tickets: TLS 1.3 resumption skips the certificate verifiers, so nothing here is ever resumed (I14).

use std::sync::Arc;

use remoteler_core::{Clock, SystemRole};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::first_contact::{Anybody, FirstContact, Pinned};
use super::possession::AskOnly;
use super::verifier::{ClusterClients, ClusterServers, JudgesServers, ServerVerifier, TrustSource};
use super::{SharedTlsIdentity, provider};

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the TLS configuration is not possible")]
pub struct TlsConfigError(#[from] rustls::Error);

/// Whether a client must show a certificate. One that it shows must be good either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// Without one the client is anonymous.
    Optional,
}

/// How this process is a TLS server of the cluster.
#[derive(Clone)]
pub struct ServerTls {
    /// What is shown.
    pub identity: Arc<SharedTlsIdentity>,
    /// Whose clients are believed.
    pub trust: Arc<dyn TrustSource>,
    /// Decides about validity.
    pub clock: Arc<dyn Clock>,
}

impl ServerTls {
    /// For a protocol of our own: TLS 1.3 only, exactly the ALPN `protocol`.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses the combination.
    pub fn own_protocol(&self, protocol: &str, auth: ClientAuth) -> Result<Arc<ServerConfig>, TlsConfigError> {
        self.own_protocols(&[protocol], auth)
    }

    /// For protocols of our own on one port: TLS 1.3 only, one of `protocols` by ALPN.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses the combination.
    pub fn own_protocols(&self, protocols: &[&str], auth: ClientAuth) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let clients = ClusterClients {
            trust: self.trust.clone(),
            clock: self.clock.clone(),
            mandatory: auth == ClientAuth::Required,
            provider: provider(),
        };
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(clients))
            .with_cert_resolver(self.identity.clone());
        Ok(without_resumption(config, protocols))
    }
}

/// For browsers and other clients that show no certificate: TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`.
///
/// # Errors
/// [`TlsConfigError`] when rustls refuses the combination.
pub fn web_server_config(identity: &Arc<SharedTlsIdentity>) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(identity.clone());
    Ok(without_resumption(config, &["h2", "http/1.1"]))
}

/// For a service that judges the certificates of its HTTP clients after the handshake, so that it can record who was refused and tell
/// them why: TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`. Clients are asked for a certificate and prove that they hold its key; nothing else
/// of it is verified here. `certificate` gives the host certificate, with the host authority's behind it.
///
/// # Errors
/// [`TlsConfigError`] when rustls refuses the combination.
pub fn judged_later(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = provider();
    let asking = Arc::new(AskOnly(provider.signature_verification_algorithms));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(asking)
        .with_cert_resolver(certificate);
    Ok(without_resumption(config, &["h2", "http/1.1"]))
}

fn without_resumption(mut config: ServerConfig, protocols: &[&str]) -> Arc<ServerConfig> {
    config.alpn_protocols = alpn(protocols);
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// How this process is a TLS client of the cluster.
#[derive(Clone)]
pub struct ClientTls {
    /// What is shown when asked; `None` is anonymous.
    pub identity: Option<Arc<SharedTlsIdentity>>,
    /// Whose servers are believed.
    pub trust: Arc<dyn TrustSource>,
    /// Decides about validity.
    pub clock: Arc<dyn Clock>,
}

impl ClientTls {
    /// For a server of the cluster that may act as one of `roles`, with the ALPN `protocol`. TLS 1.3 only.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses the combination.
    pub fn to_cluster(&self, roles: &[SystemRole], protocol: &str) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let servers = ClusterServers { trust: self.trust.clone(), clock: self.clock.clone(), roles: roles.to_vec() };
        client_config(servers, self.identity.as_ref(), protocol)
    }
}

impl FirstContact {
    /// A client without identity that looks like a browser, TLS 1.2 or 1.3, and believes anybody: for what is only the wrapping of a
    /// session in which the peer proves itself.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses the combination.
    pub(crate) fn outer_config(protocol: &str) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
        let judge = ServerVerifier { judge: Anybody, provider: provider() };
        let verifier = builder.dangerous().with_custom_certificate_verifier(Arc::new(judge));
        let mut config = verifier.with_no_client_auth();
        config.alpn_protocols = alpn(&[protocol]);
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// A client without identity for the first contact, with the ALPN `protocol`. TLS 1.3 only.
    ///
    /// # Errors
    /// [`TlsConfigError`] when rustls refuses the combination.
    pub fn client_config(&self, clock: Arc<dyn Clock>, protocol: &str) -> Result<Arc<ClientConfig>, TlsConfigError> {
        match self {
            Self::Pinned(pins) => client_config(Pinned { pins: pins.clone(), clock }, None, protocol),
            Self::Insecure => client_config(Anybody, None, protocol),
        }
    }
}

fn client_config(
    judge: impl JudgesServers + 'static,
    identity: Option<&Arc<SharedTlsIdentity>>,
    protocol: &str,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { judge, provider: provider() }));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.clone()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(&[protocol]);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn alpn(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}
