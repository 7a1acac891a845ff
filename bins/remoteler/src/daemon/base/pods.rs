//! Who vouches for pods that join: the API server that the settings name, asked by the client of the Kubernetes service. Owns the seam
//! between the two, which know nothing of each other.

use std::{path::PathBuf, sync::Arc};

use remoteler_auth::TokenReviewer;

#[cfg(feature = "kube")]
mod asked {
    use async_trait::async_trait;
    use remoteler_auth::{TokenReviewError, TokenReviewer};
    use remoteler_core::{Secret, with_causes};
    use remoteler_kube::{TokenReviewError as KubeError, Upstream};

    /// An API server that is asked for each join.
    pub(super) struct ApiServer(pub(super) Upstream);

    #[async_trait]
    impl TokenReviewer for ApiServer {
        async fn review(&self, token: &Secret, audience: &str) -> Result<String, TokenReviewError> {
            self.0.review_token(token, audience).await.map_err(|cause| {
                if let KubeError::Refused(reason) = cause {
                    return TokenReviewError::Refused(reason);
                }
                // Also for a reason of a later version nobody is vouched for.
                TokenReviewError::Unavailable(with_causes(&cause))
            })
        }
    }
}

/// The reviewer of these settings: the API server of a kubeconfig, or of the pod that this process runs in.
///
/// # Errors
/// The kubeconfig cannot be used, or this is no pod.
#[cfg(feature = "kube")]
pub(super) fn reviewer(settings: Option<&Option<PathBuf>>) -> anyhow::Result<Option<Arc<dyn TokenReviewer>>> {
    use anyhow::Context;
    use remoteler_kube::Upstream;

    let Some(kubeconfig) = settings else { return Ok(None) };
    let upstream = match kubeconfig {
        Some(path) => Upstream::from_kubeconfig(path, None)?,
        None => Upstream::in_cluster()
            .context("auth_service.kubernetes_join names no kubeconfig_file and this is no pod")?,
    };
    Ok(Some(Arc::new(asked::ApiServer(upstream))))
}

/// Without the Kubernetes client no pod joins.
#[cfg(not(feature = "kube"))]
pub(super) fn reviewer(settings: Option<&Option<PathBuf>>) -> anyhow::Result<Option<Arc<dyn TokenReviewer>>> {
    anyhow::ensure!(
        settings.is_none(),
        "this program was built without the Kubernetes service: auth_service.kubernetes_join cannot be used"
    );
    Ok(None)
}
