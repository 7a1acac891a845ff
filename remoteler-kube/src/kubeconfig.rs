//! Where an API server is and what we show it: read from a kubeconfig file, or from what every pod is given. Things in a kubeconfig
//! that this service does not do are refused by name, never passed over.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use remoteler_core::Erased;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde::Deserialize;

use crate::{
    credential::{Credential, TokenFile, bearer},
    upstream::{Inner, Upstream},
};

/// Why an API server could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// A file named by the configuration.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a kubeconfig.
    #[error("{} is no kubeconfig: {reason}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A context, cluster or user that is named but not there.
    #[error("{} has no {kind} {name:?}", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// `context`, `cluster` or `user`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Neither a context was asked for nor is one current.
    #[error("{} has no current-context; name the context to be used", path.display())]
    NoContext {
        /// Which file.
        path: PathBuf,
    },
    /// A field that this service does not act upon.
    #[error("{field} in {} is not supported; use a token, a token file or a client certificate", path.display())]
    Unsupported {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: &'static str,
    },
    /// Nothing that would tell the API server who we are.
    #[error("user {user:?} of {} has neither a token nor a client certificate", path.display())]
    NoCredential {
        /// Which file.
        path: PathBuf,
        /// Which user.
        user: String,
    },
    /// Not an `https` URL with a host.
    #[error("server {server:?} in {} is no https URL", path.display())]
    Server {
        /// Which file.
        path: PathBuf,
        /// As written.
        server: String,
    },
    /// A certificate, key or token that does not parse.
    #[error("{what} of {} is malformed: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// Where pods find their service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the API server is called inside every cluster, by its DNS and by its certificate.
const IN_CLUSTER_HOST: &str = "kubernetes.default.svc";

impl Upstream {
    /// Reads the API server of `context`, or of the current context, from a kubeconfig file. Relative file names in it start at its own
    /// directory. A token file is read again while the service runs; everything else is read once.
    ///
    /// # Errors
    /// [`KubeconfigError`] names the file and the field. Exec plugins, auth providers, passwords, proxies and impersonation are refused.
    pub fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, KubeconfigError> {
        let text = read(path)?;
        let text = String::from_utf8_lossy(&text);
        let Erased(config): Erased<Kubeconfig> = serde_saphyr::from_str(&text).map_err(|cause| {
            // Without the lines around it: there may be keys and tokens in them.
            let reason = cause.without_snippet().to_string().lines().next().unwrap_or_default().to_owned();
            KubeconfigError::Parse { path: path.into(), reason }
        })?;
        config.upstream(path, context)
    }

    /// The API server of the cluster this process runs in as a pod, by its service account.
    ///
    /// # Errors
    /// [`KubeconfigError`] when the service account's files are not there.
    pub fn in_cluster() -> Result<Self, KubeconfigError> {
        Self::from_service_account(Path::new(SERVICE_ACCOUNT))
    }

    fn from_service_account(dir: &Path) -> Result<Self, KubeconfigError> {
        let authority = dir.join("ca.crt");
        let token = dir.join("token");
        read(&token)?;
        let roots = roots(&authority, "the certificate authority", &read(&authority)?)?;
        let tls = tls_builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self::new(Inner {
            host: IN_CLUSTER_HOST.into(),
            port: 443,
            base_path: String::new(),
            authority: HeaderValue::from_static(IN_CLUSTER_HOST),
            server_name: ServerName::try_from(IN_CLUSTER_HOST).expect("the constant is a DNS name"),
            tls: Arc::new(tls),
            credential: Arc::new(Credential::TokenFile(TokenFile::new(token))),
        }))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct ClusterEntry {
    server: String,
    tls_server_name: String,
    insecure_skip_tls_verify: bool,
    certificate_authority: String,
    certificate_authority_data: String,
    proxy_url: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: UserEntry,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct UserEntry {
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    username: Option<serde_json::Value>,
    password: Option<serde_json::Value>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
    #[serde(rename = "as")]
    impersonate: Option<serde_json::Value>,
    as_uid: Option<serde_json::Value>,
    as_groups: Option<serde_json::Value>,
    as_user_extra: Option<serde_json::Value>,
}

impl Kubeconfig {
    fn upstream(&self, path: &Path, context: Option<&str>) -> Result<Upstream, KubeconfigError> {
        let missing = |kind, name: &str| KubeconfigError::Missing { path: path.into(), kind, name: name.into() };
        let context = match context {
            Some(name) => name,
            None if self.current_context.is_empty() => return Err(KubeconfigError::NoContext { path: path.into() }),
            None => &self.current_context,
        };
        let context =
            self.contexts.iter().find(|entry| entry.name == context).ok_or_else(|| missing("context", context))?;
        let ContextEntry { cluster, user } = &context.context;
        let cluster =
            self.clusters.iter().find(|entry| entry.name == *cluster).ok_or_else(|| missing("cluster", cluster))?;
        let user = self.users.iter().find(|entry| entry.name == *user).ok_or_else(|| missing("user", user))?;
        user.user.refuse_unsupported(path)?;
        cluster.cluster.upstream(path, user)
    }
}

impl UserEntry {
    fn refuse_unsupported(&self, path: &Path) -> Result<(), KubeconfigError> {
        let fields = [
            ("exec", &self.exec),
            ("auth-provider", &self.auth_provider),
            ("username", &self.username),
            ("password", &self.password),
            ("as", &self.impersonate),
            ("as-uid", &self.as_uid),
            ("as-groups", &self.as_groups),
            ("as-user-extra", &self.as_user_extra),
        ];
        match fields.iter().find(|(_, value)| value.is_some()) {
            Some((field, _)) => Err(KubeconfigError::Unsupported { path: path.into(), field }),
            None => Ok(()),
        }
    }
}

impl ClusterEntry {
    fn upstream(&self, path: &Path, user: &NamedUser) -> Result<Upstream, KubeconfigError> {
        if !self.proxy_url.is_empty() {
            return Err(KubeconfigError::Unsupported { path: path.into(), field: "proxy-url" });
        }
        let bad_server = || KubeconfigError::Server { path: path.into(), server: self.server.clone() };
        let server: Uri = self.server.parse().map_err(|_| bad_server())?;
        let (Some("https"), Some(authority), None) = (server.scheme_str(), server.authority(), server.query()) else {
            return Err(bad_server());
        };
        if authority.as_str().contains('@') {
            return Err(bad_server());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let certificate_name =
            if self.tls_server_name.is_empty() { host.clone() } else { self.tls_server_name.clone() };
        let (credential, client_auth) = user.user.credential(path, &user.name)?;
        let verified = if self.insecure_skip_tls_verify {
            tracing::warn!(
                server = self.server,
                "insecure-skip-tls-verify: anybody in between can pose as this API server"
            );
            let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
            tls_builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
        } else {
            tls_builder().with_root_certificates(self.roots(path)?)
        };
        let tls = match client_auth {
            None => verified.with_no_client_auth(),
            Some((chain, key)) => verified.with_client_auth_cert(chain, key).map_err(|cause| {
                KubeconfigError::Malformed { path: path.into(), what: "client-certificate", reason: cause.to_string() }
            })?,
        };
        Ok(Upstream::new(Inner {
            port: authority.port_u16().unwrap_or(443),
            base_path: server.path().trim_end_matches('/').to_owned(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| bad_server())?,
            server_name: ServerName::try_from(certificate_name).map_err(|_| bad_server())?,
            tls: Arc::new(tls),
            credential: Arc::new(credential),
            host,
        }))
    }

    fn roots(&self, path: &Path) -> Result<RootCertStore, KubeconfigError> {
        let what = "certificate-authority";
        match inline_or_file(path, what, &self.certificate_authority_data, &self.certificate_authority)? {
            Some(pem) => roots(path, what, &pem),
            None => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Ok(store)
            }
        }
    }
}

type ClientAuth = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl UserEntry {
    /// The token wins over the certificate, the file over the token, as in kubectl; both may be shown at once.
    fn credential(&self, path: &Path, user: &str) -> Result<(Credential, Option<ClientAuth>), KubeconfigError> {
        let malformed = |what, reason: String| KubeconfigError::Malformed { path: path.into(), what, reason };
        let certificate =
            inline_or_file(path, "client-certificate", &self.client_certificate_data, &self.client_certificate)?;
        let key = inline_or_file(path, "client-key", &self.client_key_data, &self.client_key)?;
        let client_auth = match (certificate, key) {
            (None, None) => None,
            (Some(_), None) => return Err(malformed("client-key", "it is not there, a client certificate is".into())),
            (None, Some(_)) => return Err(malformed("client-certificate", "it is not there, a client key is".into())),
            (Some(certificate), Some(key)) => {
                let chain = certificates(path, "client-certificate", &certificate)?;
                let key =
                    PrivateKeyDer::from_pem_slice(&key).map_err(|cause| malformed("client-key", cause.to_string()))?;
                Some((chain, key))
            }
        };
        let credential = if !self.token_file.is_empty() {
            let file = beside(path, &self.token_file);
            read(&file)?;
            Credential::TokenFile(TokenFile::new(file))
        } else if !self.token.is_empty() {
            let unusable = || malformed("token", "it has characters that no token has".into());
            Credential::Token(bearer(self.token.trim()).ok_or_else(unusable)?)
        } else if client_auth.is_some() {
            Credential::ClientCertificate
        } else {
            return Err(KubeconfigError::NoCredential { path: path.into(), user: user.into() });
        };
        Ok((credential, client_auth))
    }
}

fn tls_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the ring provider has cipher suites for TLS 1.2 and 1.3")
}

fn inline_or_file(
    path: &Path,
    what: &'static str,
    inline: &str,
    file: &str,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    if !inline.is_empty() {
        let compact: String = inline.split_whitespace().collect();
        return STANDARD.decode(compact).map(Some).map_err(|cause| KubeconfigError::Malformed {
            path: path.into(),
            what,
            reason: cause.to_string(),
        });
    }
    if file.is_empty() { Ok(None) } else { read(&beside(path, file)).map(Some) }
}

fn beside(path: &Path, file: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(file)
}

fn read(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
    fs::read(path).map_err(|source| KubeconfigError::Read { path: path.into(), source })
}

fn certificates(path: &Path, what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let malformed = |reason: String| KubeconfigError::Malformed { path: path.into(), what, reason };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|cause| malformed(cause.to_string()))?;
    if found.is_empty() { Err(malformed("there is no certificate in it".into())) } else { Ok(found) }
}

fn roots(path: &Path, what: &'static str, pem: &[u8]) -> Result<RootCertStore, KubeconfigError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path, what, pem)? {
        store.add(certificate).map_err(|cause| KubeconfigError::Malformed {
            path: path.into(),
            what,
            reason: cause.to_string(),
        })?;
    }
    Ok(store)
}

/// Takes any certificate of the API server, because the administrator's kubeconfig says `insecure-skip-tls-verify`. The signature of the
/// handshake is still checked.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &str, cluster: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\npreferences: {{}}\ncurrent-context: here\n\
             contexts: [{{name: here, context: {{cluster: c, user: u, namespace: dev}}}}]\n\
             clusters: [{{name: c, cluster: {cluster}}}]\nusers: [{{name: u, user: {user}}}]\n"
        )
    }

    fn load(user: &str, cluster: &str) -> Result<Upstream, KubeconfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, config(user, cluster)).unwrap();
        fs::write(dir.path().join("token"), "from-file").unwrap();
        Upstream::from_kubeconfig(&path, None)
    }

    const INSECURE: &str = "{server: 'https://[::1]:6443/base/', insecure-skip-tls-verify: true}";

    #[test]
    fn server_port_path_and_token_are_taken_as_written() {
        let upstream = load("{token: abc}", INSECURE).unwrap();
        assert_eq!(upstream.address(), "[::1]:6443");
        let path = crate::KubePath::parse(&"/v1/kube/c/k/api/v1?x=1".parse().unwrap(), http::Version::HTTP_11).unwrap();
        assert_eq!(upstream.target(&path.api).unwrap(), "/base/api/v1?x=1");
        assert!(matches!(upstream.credential().as_ref(), Credential::Token(value) if value == "Bearer abc"));
    }

    #[test]
    fn a_token_file_lies_beside_the_kubeconfig() {
        let upstream = load("{tokenFile: token}", INSECURE).unwrap();
        assert!(
            matches!(upstream.credential().as_ref(), Credential::TokenFile(file) if file.path().ends_with("token"))
        );
        assert!(matches!(load("{tokenFile: nowhere}", INSECURE), Err(KubeconfigError::Read { .. })));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (user, field) in [
            ("{exec: {command: aws}}", "exec"),
            ("{auth-provider: {name: gcp}}", "auth-provider"),
            ("{username: admin, password: x}", "username"),
            ("{token: abc, as: root}", "as"),
        ] {
            let cause = load(user, INSECURE).unwrap_err();
            assert!(matches!(&cause, KubeconfigError::Unsupported { field: named, .. } if *named == field), "{cause}");
        }
        let proxied = "{server: 'https://a', proxy-url: 'http://b'}";
        assert!(matches!(load("{token: a}", proxied), Err(KubeconfigError::Unsupported { field: "proxy-url", .. })));
        assert!(matches!(load("{}", INSECURE), Err(KubeconfigError::NoCredential { .. })));
    }

    #[test]
    fn a_server_without_tls_is_refused() {
        for server in ["http://localhost:8080", "localhost:8080", "https://", "https://user@host", "ftp://x"] {
            let cluster = format!("{{server: '{server}'}}");
            assert!(matches!(load("{token: a}", &cluster), Err(KubeconfigError::Server { .. })), "{server}");
        }
    }

    #[test]
    fn a_pod_shows_its_service_account() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Upstream::from_service_account(dir.path()), Err(KubeconfigError::Read { .. })));
        let authority = rcgen::generate_simple_self_signed(vec!["kubernetes".into()]).unwrap();
        fs::write(dir.path().join("ca.crt"), authority.cert.pem()).unwrap();
        fs::write(dir.path().join("token"), "abc").unwrap();
        let upstream = Upstream::from_service_account(dir.path()).unwrap();
        assert_eq!(upstream.address(), "kubernetes.default.svc:443");
        assert!(matches!(upstream.credential().as_ref(), Credential::TokenFile(_)));
    }
}
