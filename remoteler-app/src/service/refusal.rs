//! Why a request got no answer from its app, and the one place where that becomes an HTTP status. What the user may see is decided here; the full reason goes to
//! the audit log and to our own log.

use http::{HeaderValue, Response, StatusCode, header};
use remoteler_core::{AccessDenied, AuditError, EndReason, VerifyError};

use super::{
    assertion::AssertionError,
    body::{Body, full},
    limit::LimitError,
    upstream::UpstreamError,
};
use crate::origin::OriginError;

/// Why a request was not forwarded, or not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No certificate, or not one of a user.
    #[error(transparent)]
    Unauthenticated(#[from] VerifyError),
    /// Larger than anything honest, or ambiguous.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Not an app of this service.
    #[error("no app is served here under the name of this connection; 'tsh apps ls' shows those that exist")]
    Unknown,
    /// Addressed to a name that is not the app's: a page whose own name was made to lead here.
    #[error("the request is for another host than this app's")]
    Misdirected,
    /// Of somebody else's page.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The roles say no.
    #[error(transparent)]
    Denied(#[from] AccessDenied),
    /// The rules have changed since it was allowed.
    #[error("access denied: {0}")]
    Ended(EndReason),
    /// Nobody says whether the session goes on.
    #[error("{0}; try again later")]
    SessionUnknown(EndReason),
    /// Nobody says who asks, so that the app cannot be told.
    #[error("the app cannot be told who asks; try again later")]
    Assertion(#[from] AssertionError),
    /// The event could not be kept, so the request must not happen.
    #[error("the request could not be written to the audit log and was not sent; try again")]
    Audit(#[from] AuditError),
    /// A wish to leave HTTP that carries content: where that ends and the new protocol begins would be guesswork.
    #[error("a request to upgrade the connection must not have a body")]
    UpgradeWithBody,
    /// The app did not answer.
    #[error("the app did not answer")]
    Upstream(#[from] UpstreamError),
    /// It has not answered at the certificate's end.
    #[error("the certificate expired before the app answered; log in again")]
    TooLate,
}

impl From<EndReason> for Refusal {
    fn from(reason: EndReason) -> Self {
        if reason == EndReason::SessionUnknown { Self::SessionUnknown(reason) } else { Self::Ended(reason) }
    }
}

impl Refusal {
    /// Whether we refused, as against having tried and failed.
    pub(super) const fn is_decision(&self) -> bool {
        match self {
            Self::Unauthenticated(_)
            | Self::Limit(_)
            | Self::Unknown
            | Self::Misdirected
            | Self::Origin(_)
            | Self::Denied(_)
            | Self::Ended(_)
            | Self::UpgradeWithBody => true,
            Self::SessionUnknown(_) | Self::Assertion(_) | Self::Audit(_) | Self::Upstream(_) | Self::TooLate => false,
        }
    }

    /// The answer to the client.
    pub(super) fn into_response(self) -> Response<Body> {
        let code = match &self {
            // As the front door says it, whichever of the two hears of it first.
            Self::Unauthenticated(_) | Self::Ended(EndReason::SessionEnded) => StatusCode::UNAUTHORIZED,
            Self::Limit(LimitError::Url(_)) => StatusCode::URI_TOO_LONG,
            Self::Limit(LimitError::Headers { .. } | LimitError::Cookies(_)) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Limit(LimitError::NoPath | LimitError::Host(_))
            | Self::UpgradeWithBody
            | Self::Upstream(UpstreamError::RequestBody(_)) => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin(_) | Self::Denied(_) | Self::Ended(_) => StatusCode::FORBIDDEN,
            Self::SessionUnknown(_) | Self::Assertion(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Audit(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Upstream(UpstreamError::Timeout { .. }) | Self::TooLate => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream(UpstreamError::Connect { .. } | UpstreamError::Http { .. } | UpstreamError::Switched(_)) => {
                StatusCode::BAD_GATEWAY
            }
        };
        let message = if let Self::Denied(denied) = &self { denied.public() } else { self.to_string() };
        let mut response = Response::new(full(format!("{message}\n")));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
