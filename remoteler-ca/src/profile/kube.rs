//! A user for one Kubernetes cluster: an X.509 certificate whose identity names that cluster, so that a kubeconfig given away opens nothing else.

use remoteler_core::{
    Entropy, Identity, KubeClusterName, KubeUserIdentity, ProvenUserIdentity, SessionProof, SessionTarget, Timestamp,
    UserIdentity, x509_naming,
};

use super::{ProfileError, Window, check_readable, x509_serial};
use crate::{Authority, PreparedX509, Purpose, TlsPublicKey, x509_leaf::Leaf};

/// An X.509 certificate wanted for a user at one Kubernetes cluster. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct KubeProfile {
    /// Who; from the stored user and roles, never from the request (I9).
    pub identity: UserIdentity,
    /// The one place where it counts.
    pub kube_cluster: KubeClusterName,
    /// Key for TLS.
    pub tls_key: TlsPublicKey,
    /// When it ends; rounded down to seconds.
    pub not_after: Timestamp,
    /// A second factor that was shown for this cluster, and when the login ends with which it was.
    pub proven: Option<(SessionProof, Timestamp)>,
}

impl KubeProfile {
    /// Checks everything, draws the serial, builds and lints; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedX509, ProfileError> {
        let Self { identity: user, kube_cluster, tls_key, not_after, proven } = self;
        let (purpose, subject) = (Purpose::KubeClient, user.user.to_string());
        authority.check(purpose, Some(&user.cluster))?;
        let window = Window::new(&subject, purpose, now, not_after)?;
        let identity = match proven {
            None => Identity::KubeUser(KubeUserIdentity { user, kube_cluster }),
            Some((proof, login_expires)) => {
                // I49: where the proof counts, and no longer than it does.
                let there = SessionTarget::KubeCluster { name: kube_cluster };
                if *proof.target() != there || not_after > proof.expires() || not_after > login_expires {
                    return Err(ProfileError::OtherProof { subject });
                }
                Identity::ProvenUser(ProvenUserIdentity { user, proof, login_expires })
            }
        };
        check_readable(&subject, &identity)?;
        let naming = x509_naming(&identity);
        let leaf = Leaf {
            purpose,
            organizations: naming.organizations,
            common_name: naming.common_name,
            names: Vec::new(),
            key: &tls_key,
            serial: x509_serial(entropy),
            window,
            identity: Some(naming.extension),
            crl: None,
            sid: None,
        };
        PreparedX509::new(authority, &subject, &leaf)
    }
}
