//! Our own answers, in the form that Kubernetes clients print: a `Status` object (meta/v1).

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::body::{Body, full};

/// In which form a client prints what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerForm {
    /// A `Status` object.
    Status,
    /// The bare sentence. client-go's aggregated discovery shows the text of a failure only when its type is `text/*`, and prints
    /// `unknown` for a `Status`.
    Text,
}

impl AnswerForm {
    /// Reads it from a request's headers.
    pub(crate) fn wanted_by(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if accepted.any(|value| value.contains("apidiscovery.k8s.io")) { Self::Text } else { Self::Status }
    }
}

/// A failure as an object.
pub(crate) fn status_object(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    })
}

/// Makes a failure. `reason` is one of the API's StatusReasons, `message` a sentence for the user.
pub(crate) fn status_response(code: StatusCode, reason: &str, message: &str, form: AnswerForm) -> Response<Body> {
    let (content_type, body) = match form {
        AnswerForm::Text => ("text/plain; charset=utf-8", message.to_owned()),
        AnswerForm::Status => ("application/json", status_object(code, reason, message).to_string()),
    };
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}
