//! The one place where a request's path is read: `/v1/kube/<cluster>/<kube cluster>/<path at the API server>`. What is forwarded
//! is written anew from what was read, so that nobody behind us sees other segments than we did (I59).

use std::fmt;

use http::{Uri, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Why a path is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// HTTP/1.1 with a whole URL in the request line (RFC 9112 section 3.2.2), which only forward proxies are sent.
    #[error("the request line holds a whole URL; only a path is taken")]
    AbsoluteForm,
    /// Not below `/v1/kube/<cluster>/<kube cluster>`.
    #[error("the path is not below /v1/kube/<cluster>/<kube cluster>")]
    NotOurs,
    /// `//` in the middle.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.`, `..` or a name ending in a dot, plain or encoded.
    #[error("the path has a segment that ends in a dot")]
    Dot,
    /// A `%` that two hexadecimal digits do not follow, or octets that are not UTF-8.
    #[error("the path is not percent-encoded UTF-8")]
    Encoding,
    /// An encoded or plain character that has a meaning of its own somewhere: `/`, `\`, `%`, `;` or a control character.
    #[error("the path has {0:?} inside a segment")]
    Character(char),
    /// A query with something else than visible ASCII in it.
    #[error("the query is not percent-encoded")]
    Query,
}

/// A path at the API server, in its one spelling: starts with `/`, segments separated by one `/`, percent-encoded where needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPath {
    path: String,
    query: Option<String>,
}

impl ApiPath {
    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, without `?`, as the client sent it.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

impl fmt::Display for ApiPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// What a request's target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubePath {
    /// First segment: the cluster of the auth service.
    pub cluster: String,
    /// Second segment: the Kubernetes cluster.
    pub kube_cluster: String,
    /// The rest.
    pub api: ApiPath,
}

impl KubePath {
    /// Reads `uri`, the target of a request of `version`.
    ///
    /// # Errors
    /// [`PathError`] for everything that has more than one reading.
    pub fn parse(uri: &Uri, version: Version) -> Result<Self, PathError> {
        // HTTP/2 always carries scheme and authority, in pseudo-headers of their own.
        if version != Version::HTTP_2 && uri.authority().is_some() {
            return Err(PathError::AbsoluteForm);
        }
        let rest = uri.path().strip_prefix("/v1/kube/").ok_or(PathError::NotOurs)?;
        let mut parts = rest.splitn(3, '/');
        let (cluster, kube_cluster) = match (parts.next(), parts.next()) {
            (Some(cluster), Some(kube)) if !cluster.is_empty() && !kube.is_empty() => {
                (segment(cluster)?, segment(kube)?)
            }
            _ => return Err(PathError::NotOurs),
        };
        let mut path = String::with_capacity(rest.len() + 1);
        let segments: Vec<&str> = parts.next().unwrap_or_default().split('/').collect();
        for (index, raw) in segments.iter().enumerate() {
            path.push('/');
            if raw.is_empty() && index + 1 < segments.len() {
                return Err(PathError::EmptySegment);
            }
            if !raw.is_empty() {
                path.extend(utf8_percent_encode(&segment(raw)?, ESCAPED));
            }
        }
        let query = uri.query().map(str::to_owned);
        if query.as_ref().is_some_and(|query| !query.bytes().all(|octet| octet.is_ascii_graphic())) {
            return Err(PathError::Query);
        }
        Ok(Self { cluster, kube_cluster, api: ApiPath { path, query } })
    }
}

/// Decodes one segment, once.
fn segment(raw: &str) -> Result<String, PathError> {
    let mut after = raw.split('%');
    after.next();
    let encoded = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|octet| octet.is_ascii_hexdigit());
    if !after.all(encoded) {
        return Err(PathError::Encoding);
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| PathError::Encoding)?;
    if let Some(found) = decoded.chars().find(|c| c.is_control() || matches!(c, '/' | '\\' | '%' | ';')) {
        return Err(PathError::Character(found));
    }
    if decoded.ends_with('.') {
        return Err(PathError::Dot);
    }
    Ok(decoded.into_owned())
}

/// What is written with `%`: all but RFC 3986's unreserved characters and those sub-delimiters that Kubernetes uses in names.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(target: &str) -> Result<KubePath, PathError> {
        KubePath::parse(&target.parse().unwrap(), Version::HTTP_11)
    }

    #[test]
    fn a_target_is_cluster_kube_cluster_and_the_path_at_the_api_server() {
        let parsed = parse("/v1/kube/root.example.com/staging/api/v1/pods?watch=1&a=%20").unwrap();
        assert_eq!(parsed.cluster, "root.example.com");
        assert_eq!(parsed.kube_cluster, "staging");
        assert_eq!(parsed.api.to_string(), "/api/v1/pods?watch=1&a=%20");
        assert_eq!(parse("/v1/kube/root/staging").unwrap().api.path(), "/");
        assert_eq!(parse("/v1/kube/root/staging/").unwrap().api.path(), "/");
        assert_eq!(parse("/v1/kube/root/a:b/x/").unwrap().api.path(), "/x/");
    }

    // I59
    #[test]
    fn a_path_with_two_readings_is_refused() {
        let refused: &[(&str, PathError)] = &[
            ("/api//v1/pods", PathError::EmptySegment),
            ("//api", PathError::EmptySegment),
            ("/api/../version", PathError::Dot),
            ("/api/./version", PathError::Dot),
            ("/api/%2e%2e/version", PathError::Dot),
            ("/api/%2E./version", PathError::Dot),
            ("/api/v1./pods", PathError::Dot),
            ("/api/v1%2fpods", PathError::Character('/')),
            ("/api/v1%2Fpods", PathError::Character('/')),
            ("/api/v1%5cpods", PathError::Character('\\')),
            ("/api/v1;x=1/pods", PathError::Character(';')),
            ("/api/v1%3Bx/pods", PathError::Character(';')),
            ("/api/v1%252fpods", PathError::Character('%')),
            ("/api/v1%00/pods", PathError::Character('\0')),
            ("/api/v1%0a/pods", PathError::Character('\n')),
            ("/api/%zz", PathError::Encoding),
            ("/api/%2", PathError::Encoding),
            ("/api/%ff", PathError::Encoding),
        ];
        for (path, why) in refused {
            assert_eq!(parse(&format!("/v1/kube/root/staging{path}")).unwrap_err(), *why, "{path}");
        }
        for target in ["/", "/api/v1/pods", "/v1/kube", "/v1/kube/root", "/v1/kube//staging/api", "/V1/kube/root/s"] {
            assert_eq!(parse(target).unwrap_err(), PathError::NotOurs, "{target}");
        }
        assert_eq!(parse("https://elsewhere/v1/kube/root/staging/api").unwrap_err(), PathError::AbsoluteForm);
    }

    #[test]
    fn every_path_has_one_spelling() {
        let spelled = |path: &str| parse(&format!("/v1/kube/root/staging{path}")).unwrap().api.path().to_owned();
        assert_eq!(spelled("/api/v1/%6eamespaces/d%65v"), "/api/v1/namespaces/dev");
        assert_eq!(spelled("/clusterroles/system:node"), spelled("/clusterroles/system%3Anode"));
        assert_eq!(spelled("/x/a%20b"), "/x/a%20b");
        assert_eq!(spelled("/x/%c3%a4"), "/x/%C3%A4");
    }

    proptest! {
        // I59: what was written by us reads back to itself, so policy and API server cannot see different segments.
        #[test]
        fn the_spelling_is_a_fixed_point(path in "[/a-zA-Z0-9%.;:~ü\\\\-]{0,40}") {
            let Ok(uri) = format!("/v1/kube/root/staging/{path}").parse::<Uri>() else { return Ok(()) };
            if let Ok(first) = KubePath::parse(&uri, Version::HTTP_11) {
                let again: Uri = format!("/v1/kube/root/staging{}", first.api).parse().unwrap();
                prop_assert_eq!(KubePath::parse(&again, Version::HTTP_11).unwrap(), first);
            }
        }
    }
}
