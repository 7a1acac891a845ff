//! The files that pages name: kept by browsers, and asked for anew by their hash. Nothing secret.

use axum::response::{IntoResponse, Response};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS},
};
use ring::digest::{SHA256, digest};

/// Where the style sheet is.
pub(crate) const STYLE_PATH: &str = "/web/style.css";
/// Where the icon is.
pub(crate) const ICON_PATH: &str = "/web/icon.svg";

/// Where the script is that asks security keys; on the pages that need it alone.
pub(crate) const SCRIPT_PATH: &str = "/web/webauthn.js";

/// The script.
pub(crate) async fn script(headers: HeaderMap) -> Response {
    file(&headers, "text/javascript; charset=utf-8", include_str!("../../../assets/webauthn.js"))
}

/// Where the script is that sends the form of a page.
pub(crate) const SUBMIT_PATH: &str = "/web/submit.js";

/// The script that sends the form of a page.
pub(crate) async fn submit(headers: HeaderMap) -> Response {
    file(&headers, "text/javascript; charset=utf-8", include_str!("../../../assets/submit.js"))
}

/// The style sheet.
pub(crate) async fn style(headers: HeaderMap) -> Response {
    file(&headers, "text/css; charset=utf-8", include_str!("../../../assets/style.css"))
}

/// The icon.
pub(crate) async fn icon(headers: HeaderMap) -> Response {
    file(&headers, "image/svg+xml", include_str!("../../../assets/icon.svg"))
}

/// A file, or that the browser has it (RFC 9110 section 13.1.2).
pub(super) fn file(asked: &HeaderMap, content_type: &'static str, content: &'static str) -> Response {
    let hash = digest(&SHA256, content.as_bytes());
    let tag: String = hash.as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|list| list.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag);
    let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
    let headers = [
        (ETAG, tag),
        (CACHE_CONTROL, HeaderValue::from_static("public, no-cache")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(CONTENT_TYPE, HeaderValue::from_static(content_type))], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_browser_that_has_the_file_is_not_sent_it_again() {
        let first = style(HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].clone();
        let asked = HeaderMap::from_iter([(IF_NONE_MATCH, tag)]);
        assert_eq!(style(asked.clone()).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(icon(asked).await.status(), StatusCode::OK);
    }
}
