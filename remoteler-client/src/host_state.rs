//! What makes this machine a host of a cluster: its id, keys, certificates and the authorities it believed last. Owns the file
//! `host.json` in the data directory, which is replaced as a whole or not at all.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use remoteler_core::{
    AppName, ClusterName, HostCerts, HostId, HostIdentity, Identity, KubeClusterName, NodeName, Secret,
    SshCertificatePurpose, SystemRole, Timestamp, TrustBundle, VerifyError, X509Purpose, ssh_identity,
    verify_ssh_certificate, verify_x509_chain,
};
use remoteler_tunnel::{TlsIdentity, TlsIdentityError};
use serde::{Deserialize, Serialize};
use ssh_key::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use crate::{
    files::FileError,
    keys::{KeyError, KeyPairs, same_ssh_key},
    policy,
    state_store::{DirStore, StateStore},
};

/// Why a host's state was not read, written or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostStateError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not parse.
    #[error("{} does not parse ({reason}); restore it, or remove it and join again", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer program wrote it.
    #[error("{} has version {found}, this program reads up to {FORMAT}; update it", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A key in it cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The TLS certificate in it cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsIdentityError),
    /// A certificate that was issued is not believed.
    #[error("the {kind} certificate that was issued is refused: {source}")]
    Certificate {
        /// `SSH` or `TLS`.
        kind: &'static str,
        /// Why.
        source: VerifyError,
    },
    /// What was issued is not what was asked for.
    #[error("the certificates that were issued are not the ones asked for: {0}")]
    Mismatch(&'static str),
}

/// A host's identity on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostState {
    v: u32,
    host_id: HostId,
    cluster_name: ClusterName,
    node_name: NodeName,
    roles: BTreeSet<SystemRole>,
    #[serde(default)]
    kube_clusters: BTreeSet<KubeClusterName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    apps: BTreeSet<AppName>,
    ssh_private_key: Secret,
    ssh_certificate: String,
    tls_private_key: Secret,
    tls_certificate: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_client_certificate: Option<String>,
    trust: TrustBundle,
    /// When this was written, by the best clock there was: the host does not wake up before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Timestamp>,
}

impl HostState {
    /// Checks what was issued for `keys` at `now`, and keeps it: both certificates must be signed by the host authority in it, be for
    /// these keys, and name the same host.
    ///
    /// # Errors
    /// [`HostStateError`] says what is wrong; nothing may be used then.
    pub fn new(keys: KeyPairs, certs: HostCerts, now: Timestamp) -> Result<Self, HostStateError> {
        let certificate = Certificate::from_openssh(&certs.ssh_certificate).map_err(KeyError::from)?;
        if !same_ssh_key(keys.ssh_key()?.public_key(), certificate.public_key()) {
            return Err(HostStateError::Mismatch("the SSH certificate is for another key"));
        }
        let Ok(Identity::Host(host)) = ssh_identity(&certificate) else {
            return Err(HostStateError::Mismatch("the SSH certificate is not a host's"));
        };
        let purpose = SshCertificatePurpose::Host(host.name.as_str());
        verify_ssh_certificate(&certificate, &certs.trust, purpose, now)
            .map_err(|source| HostStateError::Certificate { kind: "SSH", source })?;
        let tls = TlsIdentity::from_pem(certs.tls_certificate.as_bytes(), keys.tls_private.reveal().as_bytes())?;
        let verified = verify_x509_chain(tls.chain(), &certs.trust, X509Purpose::Server, now)
            .map_err(|source| HostStateError::Certificate { kind: "TLS", source })?;
        if verified.host().is_none_or(|verified| *verified.identity() != host) {
            return Err(HostStateError::Mismatch("the two certificates name different hosts"));
        }
        if let Some(client) = &certs.tls_client_certificate {
            let tls = TlsIdentity::from_pem(client.as_bytes(), keys.tls_private.reveal().as_bytes())?;
            let verified = verify_x509_chain(tls.chain(), &certs.trust, X509Purpose::Client, now)
                .map_err(|source| HostStateError::Certificate { kind: "TLS client", source })?;
            if verified.host().is_none_or(|verified| *verified.identity() != host) {
                return Err(HostStateError::Mismatch("the certificate for TLS clients names another host"));
            }
        }
        if (host.id, &host.cluster) != (certs.host_id, &certs.cluster_name) {
            return Err(HostStateError::Mismatch("the certificates name another host or cluster than the answer"));
        }
        Ok(Self {
            v: FORMAT,
            host_id: host.id,
            cluster_name: host.cluster,
            node_name: host.name,
            roles: host.roles,
            kube_clusters: host.kube_clusters,
            apps: host.apps,
            ssh_private_key: keys.ssh_private,
            ssh_certificate: certs.ssh_certificate,
            tls_private_key: keys.tls_private,
            tls_certificate: certs.tls_certificate,
            tls_client_certificate: certs.tls_client_certificate,
            trust: certs.trust,
            written: Some(now),
        })
    }

    /// The same host with new certificates for its keys, checked at `now` as in [`HostState::new`].
    ///
    /// # Errors
    /// [`HostStateError`] also when they are another host's, or say anything else of it than before.
    pub fn renewed(&self, certs: HostCerts, now: Timestamp) -> Result<Self, HostStateError> {
        self.certified(self.keys()?, certs, now)
    }

    /// The same host with certificates for these keys.
    pub(crate) fn certified(&self, keys: KeyPairs, certs: HostCerts, now: Timestamp) -> Result<Self, HostStateError> {
        let renewed = Self::new(keys, certs, now)?;
        let says = |state: &Self| {
            (
                state.host_id,
                state.node_name.clone(),
                state.cluster_name.clone(),
                state.roles.clone(),
                state.kube_clusters.clone(),
                state.apps.clone(),
                state.identity().map(|identity| identity.labels).ok(),
            )
        };
        if says(&renewed) != says(self) {
            return Err(HostStateError::Mismatch("they do not say of this host what the ones before said"));
        }
        Ok(renewed)
    }

    /// The same host, believing `trust`.
    #[must_use]
    pub fn believing(&self, trust: TrustBundle) -> Self {
        Self { trust, ..self.clone() }
    }

    /// Whether this is the same host as `before`, with other certificates or authorities: what a rejoin leaves.
    pub(crate) fn succeeds(&self, before: &Self) -> bool {
        let is = |state: &Self| (state.host_id, state.node_name.clone(), state.cluster_name.clone());
        let shows = |state: &Self| (state.ssh_certificate.clone(), state.tls_certificate.clone(), state.trust.clone());
        is(self) == is(before) && shows(self) != shows(before)
    }

    /// Whether the certificates are those that a host is to show by `trust` at `now`: servers', and clients', each of the authority
    /// that the phase of a rotation asks for.
    #[must_use]
    pub fn fits(&self, trust: &TrustBundle, now: Timestamp) -> bool {
        let (serving, active) = (trust.serving_only(), trust.active_only());
        let chain = |identity: Result<TlsIdentity, HostStateError>, trust: &TrustBundle, purpose| {
            identity.is_ok_and(|identity| verify_x509_chain(identity.chain(), trust, purpose, now).is_ok())
        };
        let ssh = self.ssh_certificate().is_ok_and(|certificate| {
            let purpose = SshCertificatePurpose::Host(self.node_name.as_str());
            verify_ssh_certificate(&certificate, &serving, purpose, now).is_ok()
        });
        ssh && chain(self.tls_identity(), &serving, X509Purpose::Server)
            && chain(self.tls_client_identity(), &active, X509Purpose::Client)
    }

    /// Reads `host.json` in `data_dir`; `None` when this machine has not joined.
    ///
    /// # Errors
    /// [`HostStateError`] when it is there and cannot be used: joining again would throw the host's identity away.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, HostStateError> {
        Self::parse(DirStore::new(data_dir).read(FILE, MAX_LEN)?, data_dir.join(FILE))
    }

    /// The same from another store.
    ///
    /// # Errors
    /// As [`HostState::load`].
    pub fn load_from(store: &dyn StateStore) -> Result<Option<Self>, HostStateError> {
        Self::parse(store.read(FILE, MAX_LEN)?, FILE.into())
    }

    fn parse(content: Option<Zeroizing<Vec<u8>>>, path: PathBuf) -> Result<Option<Self>, HostStateError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let Some(content) = content else { return Ok(None) };
        let malformed =
            |cause: serde_json::Error| HostStateError::Malformed { path: path.clone(), reason: cause.to_string() };
        let Version { v } = serde_json::from_slice(&content).map_err(malformed)?;
        if v > FORMAT {
            return Err(HostStateError::Newer { path, found: v });
        }
        let state: Self = serde_json::from_slice(&content).map_err(malformed)?;
        state.tls_identity()?;
        state.tls_client_identity()?;
        state.ssh_private_key()?;
        state.ssh_certificate()?;
        Ok(Some(state))
    }

    /// Writes `host.json` in `data_dir`. When this returns, the new state survives a crash.
    ///
    /// # Errors
    /// [`HostStateError::File`]; the old state is still there then.
    pub fn save(&self, data_dir: &Path) -> Result<(), HostStateError> {
        self.save_to(&DirStore::new(data_dir))
    }

    /// The same into another store.
    ///
    /// # Errors
    /// As [`HostState::save`].
    pub fn save_to(&self, store: &dyn StateStore) -> Result<(), HostStateError> {
        let content = serde_json::to_vec_pretty(self).expect("strings, lists and maps with string keys always encode");
        Ok(store.write(FILE, &content)?)
    }

    /// Writes the state of a host that joined again, in place of everything that `data_dir` holds of the authorities before. A daemon that
    /// runs there takes it over.
    ///
    /// # Errors
    /// [`HostStateError::File`]; the rejoin can be done again then.
    pub fn save_rejoined(&self, data_dir: &Path) -> Result<(), HostStateError> {
        policy::forget(data_dir)?;
        self.save(data_dir)
    }

    /// The host's id.
    #[must_use]
    pub const fn host_id(&self) -> HostId {
        self.host_id
    }

    /// Its cluster.
    #[must_use]
    pub const fn cluster_name(&self) -> &ClusterName {
        &self.cluster_name
    }

    /// The name it is reached by as a node.
    #[must_use]
    pub const fn node_name(&self) -> &NodeName {
        &self.node_name
    }

    /// What it may act as.
    #[must_use]
    pub const fn roles(&self) -> &BTreeSet<SystemRole> {
        &self.roles
    }

    /// The Kubernetes clusters it may announce.
    #[must_use]
    pub const fn kube_clusters(&self) -> &BTreeSet<KubeClusterName> {
        &self.kube_clusters
    }

    /// The web applications it may announce.
    #[must_use]
    pub const fn apps(&self) -> &BTreeSet<AppName> {
        &self.apps
    }

    /// When this was written: no earlier than that is it now.
    #[must_use]
    pub const fn written(&self) -> Option<Timestamp> {
        self.written
    }

    /// Everything that its certificates say of it.
    ///
    /// # Errors
    /// [`HostStateError::Key`] and [`HostStateError::Mismatch`] when they cannot be read.
    pub fn identity(&self) -> Result<HostIdentity, HostStateError> {
        match ssh_identity(&self.ssh_certificate()?) {
            Ok(Identity::Host(host)) => Ok(host),
            Ok(Identity::User(_) | Identity::KubeUser(_) | Identity::ProvenUser(_) | Identity::AppUser(_)) | Err(_) => {
                Err(HostStateError::Mismatch("the SSH certificate is not a host's"))
            }
        }
    }

    /// The authorities as they were when it joined or was last renewed.
    #[must_use]
    pub const fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    /// The key pairs, to have them certified again.
    ///
    /// # Errors
    /// [`HostStateError::Key`]
    pub fn keys(&self) -> Result<KeyPairs, HostStateError> {
        Ok(KeyPairs::from_private(self.ssh_private_key.clone(), self.tls_private_key.clone())?)
    }

    /// What it shows in TLS where it is the server: its certificate, then the host authority's, so that a pin can be checked.
    ///
    /// # Errors
    /// [`HostStateError::Tls`]
    pub fn tls_identity(&self) -> Result<TlsIdentity, HostStateError> {
        self.with_authorities(&self.tls_certificate)
    }

    /// What it shows in TLS where it is the client: the certificate alone. Who serves the cluster knows its authorities, and would keep what else is
    /// shown for as long as the connection lasts.
    ///
    /// # Errors
    /// [`HostStateError::Tls`]
    pub fn tls_client_identity(&self) -> Result<TlsIdentity, HostStateError> {
        let certificate = self.tls_client_certificate.as_ref().unwrap_or(&self.tls_certificate);
        Ok(TlsIdentity::from_pem(certificate.as_bytes(), self.tls_private_key.reveal().as_bytes())?)
    }

    fn with_authorities(&self, certificate: &str) -> Result<TlsIdentity, HostStateError> {
        let mut chain = certificate.to_owned();
        for authority in &self.trust.host.x509 {
            chain.push('\n');
            chain.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", authority.clone())));
        }
        Ok(TlsIdentity::from_pem(chain.as_bytes(), self.tls_private_key.reveal().as_bytes())?)
    }

    /// SSH host key.
    ///
    /// # Errors
    /// [`HostStateError::Key`]
    pub fn ssh_private_key(&self) -> Result<PrivateKey, HostStateError> {
        Ok(PrivateKey::from_openssh(self.ssh_private_key.reveal()).map_err(KeyError::from)?)
    }

    /// SSH host certificate.
    ///
    /// # Errors
    /// [`HostStateError::Key`]
    pub fn ssh_certificate(&self) -> Result<Certificate, HostStateError> {
        Ok(Certificate::from_openssh(&self.ssh_certificate).map_err(KeyError::from)?)
    }
}

const FORMAT: u32 = 1;
pub(crate) const FILE: &str = "host.json";
const MAX_LEN: u64 = 1024 * 1024;
