//! Why a request got no answer from the API server, and the one place where that becomes an HTTP status. What the user may see is
//! decided here; the full reason goes to the audit log and to our own log.

use http::{Response, StatusCode};
use remoteler_core::{AccessDenied, AuditError, EndReason, KubeClusterName, VerifyError};

use crate::{
    body::Body,
    headers::HeaderError,
    impersonate::ImpersonateError,
    limit::LimitError,
    path::PathError,
    status::{AnswerForm, status_response},
    upstream::UpstreamError,
};

/// Why a request was not forwarded, or not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No certificate, or not one of a user.
    #[error(transparent)]
    Unauthenticated(#[from] VerifyError),
    /// Larger than anything a client of an API server sends.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A path that could be read in two ways, or that is not ours.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A header that contradicts another.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The TLS server name stands for another Kubernetes cluster than the path.
    #[error("this connection is for another Kubernetes cluster than {asked:?}; run 'tsh kube login' again")]
    Misdirected {
        /// From the path.
        asked: String,
    },
    /// Not a Kubernetes cluster of this service.
    #[error("Kubernetes cluster {asked:?} is not served here; 'tsh kube ls' shows those that exist")]
    UnknownCluster {
        /// From the path.
        asked: String,
    },
    /// The roles say no.
    #[error(transparent)]
    Denied(#[from] AccessDenied),
    /// The rules have changed since it was allowed.
    #[error("access denied: {0}")]
    Ended(#[from] EndReason),
    /// The user has as many connections as their roles allow, or nobody can say that they have not.
    #[error("access denied: {reason}")]
    NoRoom {
        /// Where.
        kube_cluster: KubeClusterName,
        /// Which of the two.
        reason: EndReason,
        /// How many there may be, and are.
        limit: Option<u32>,
    },
    /// The event could not be kept, so the request must not happen.
    #[error("the request could not be written to the audit log and was not sent; try again")]
    Audit(#[from] AuditError),
    /// The proof holds a name that cannot be sent.
    #[error(transparent)]
    Impersonate(#[from] ImpersonateError),
    /// The API server did not answer.
    #[error("the API server of Kubernetes cluster {kube_cluster} did not answer")]
    Upstream {
        /// Whose.
        kube_cluster: KubeClusterName,
        /// Why.
        source: UpstreamError,
    },
}

impl Refusal {
    /// Why a connection did not begin.
    pub(crate) fn no_room(kube_cluster: KubeClusterName, reason: EndReason) -> Self {
        if let EndReason::TooMany(limit) = reason {
            Self::NoRoom { kube_cluster, reason, limit: Some(limit) }
        } else if let EndReason::Uncounted = reason {
            Self::NoRoom { kube_cluster, reason, limit: None }
        } else {
            Self::Ended(reason)
        }
    }

    /// Whether we refused, as against having tried and failed.
    pub(crate) const fn is_decision(&self) -> bool {
        match self {
            Self::Unauthenticated(_)
            | Self::Limit(_)
            | Self::Path(_)
            | Self::Header(_)
            | Self::Misdirected { .. }
            | Self::UnknownCluster { .. }
            | Self::Denied(_)
            | Self::Ended(_)
            | Self::NoRoom { .. }
            | Self::Impersonate(_) => true,
            Self::Audit(_) | Self::Upstream { .. } => false,
        }
    }

    /// The answer to the client.
    pub(crate) fn into_response(self, form: AnswerForm) -> Response<Body> {
        let (code, reason) = match &self {
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Limit(LimitError::Url(_)) => (StatusCode::URI_TOO_LONG, "BadRequest"),
            Self::Limit(LimitError::Headers { .. } | LimitError::Cookies(_)) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "BadRequest")
            }
            Self::Limit(LimitError::Method(_)) => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::Path(PathError::NotOurs) | Self::UnknownCluster { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Path(_) | Self::Header(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Misdirected { .. } => (StatusCode::MISDIRECTED_REQUEST, "BadRequest"),
            Self::Denied(_) | Self::Ended(_) | Self::NoRoom { .. } | Self::Impersonate(_) => {
                (StatusCode::FORBIDDEN, "Forbidden")
            }
            Self::Audit(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Self::Upstream { source: UpstreamError::Timeout { .. }, .. } => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
            Self::Upstream { source: UpstreamError::RequestBody(_), .. } => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Upstream { .. } => (StatusCode::BAD_GATEWAY, "ServiceUnavailable"),
        };
        let message = match &self {
            Self::Denied(denied) => denied.public(),
            Self::Upstream { source, .. } => format!("{self}: {}", source.public()),
            Self::Unauthenticated(_)
            | Self::Limit(_)
            | Self::Path(_)
            | Self::Header(_)
            | Self::Misdirected { .. }
            | Self::UnknownCluster { .. }
            | Self::Ended(_)
            | Self::NoRoom { .. }
            | Self::Audit(_)
            | Self::Impersonate(_) => self.to_string(),
        };
        status_response(code, reason, &message, form)
    }
}
