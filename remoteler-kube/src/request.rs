//! What a request asks of the API server, read off its method and path the way the API server reads them. Owns no decision. What it does not
//! understand it calls [`KubeVerb::Other`] or a path of its own, which only a rule for everything covers (I59, I80).

use http::Method;
use percent_encoding::percent_decode_str;
use remoteler_core::{KubeRequest, KubeTarget, KubeVerb};

use crate::path::ApiPath;

/// Reads a request.
pub(crate) fn kube_request(method: &Method, path: &ApiPath) -> KubeRequest {
    // The path has one spelling: decoded once when it was read, so each segment is encoded once here.
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    let segments: Vec<String> = path.path().split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
    let query = Query::read(path.query().unwrap_or_default());
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _version, rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _version, rest @ ..] if !rest.is_empty() => (*group, rest),
        other => return outside(method, other),
    };
    // Before there was a query for it, this is how watching was asked for; proxies were reached alike.
    let (old_watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        ["proxy", ..] => return outside(method, &parts),
        rest => (false, rest),
    };
    let (namespace, resource, name, below) = match rest {
        // A namespace itself, and its own two subresources.
        ["namespaces"] => (None, "namespaces", None, &[][..]),
        ["namespaces", name] => (None, "namespaces", Some(*name), &[][..]),
        ["namespaces", name, "status" | "finalize"] => (None, "namespaces", Some(*name), rest.get(2..).unwrap_or(&[])),
        ["namespaces", namespace, resource] => (Some(*namespace), *resource, None, &[][..]),
        ["namespaces", namespace, resource, name, below @ ..] => (Some(*namespace), *resource, Some(*name), below),
        [resource] => (None, *resource, None, &[][..]),
        [resource, name, below @ ..] => (None, *resource, Some(*name), below),
        [] => return outside(method, &parts),
    };
    let subresource = below.first().copied();
    let verb = verb(method, name.is_some(), subresource, old_watch, &query);
    // Lists and watches of one object by name are as narrow as the object, if the query says it in one way only.
    let name = name.map(str::to_owned).or_else(|| match verb {
        KubeVerb::List | KubeVerb::Watch => query.name.clone(),
        KubeVerb::Get
        | KubeVerb::Create
        | KubeVerb::Update
        | KubeVerb::Patch
        | KubeVerb::Delete
        | KubeVerb::DeleteCollection
        | KubeVerb::Exec
        | KubeVerb::PortForward
        | KubeVerb::Other => None,
    });
    let target = KubeTarget::Resource {
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        name,
    };
    KubeRequest { verb, target }
}

fn verb(method: &Method, named: bool, subresource: Option<&str>, old_watch: bool, query: &Query) -> KubeVerb {
    // Privileged whatever the method: they run something, reach something behind, or make a credential.
    match subresource {
        Some("exec" | "attach" | "ephemeralcontainers") => return KubeVerb::Exec,
        Some("portforward") => return KubeVerb::PortForward,
        Some("eviction") => return KubeVerb::Delete,
        Some("proxy" | "token" | "approval" | "finalize") => return KubeVerb::Other,
        Some(_) | None => {}
    }
    match (method.as_str(), named, query.watch) {
        ("GET" | "HEAD", ..) if old_watch => KubeVerb::Watch,
        ("GET" | "HEAD", true, _) => KubeVerb::Get,
        ("GET" | "HEAD", false, None) => KubeVerb::Other,
        ("GET" | "HEAD", false, Some(false)) => KubeVerb::List,
        ("GET" | "HEAD", false, Some(true)) => KubeVerb::Watch,
        ("POST", ..) => KubeVerb::Create,
        ("PUT", ..) => KubeVerb::Update,
        ("PATCH", ..) => KubeVerb::Patch,
        ("DELETE", true, _) => KubeVerb::Delete,
        ("DELETE", false, _) => KubeVerb::DeleteCollection,
        _ => KubeVerb::Other,
    }
}

/// What is no object: the API's description of itself, which every client reads first, and all else.
fn outside(method: &Method, parts: &[&str]) -> KubeRequest {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let described = matches!(
        parts,
        [] | ["api"]
            | ["api", _]
            | ["apis"]
            | ["apis", _]
            | ["apis", _, _]
            | ["version"]
            | ["openapi", ..]
            | ["healthz"]
            | ["livez"]
            | ["readyz"]
    );
    let target =
        if reads && described { KubeTarget::Discovery } else { KubeTarget::Path(format!("/{}", parts.join("/"))) };
    KubeRequest { verb: if reads { KubeVerb::Get } else { KubeVerb::Other }, target }
}

/// The two parameters that change what a request reaches.
struct Query {
    /// `None` when it is said twice.
    watch: Option<bool>,
    name: Option<String>,
}

impl Query {
    fn read(query: &str) -> Self {
        // Some readers take `;` for `&`; this one does not guess.
        if query.contains(';') {
            return Self { watch: None, name: None };
        }
        let pairs = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let all = |wanted: &str| -> Vec<String> {
            pairs().filter(|(name, _)| decode(name) == wanted).map(|(_, value)| decode(value)).collect()
        };
        // As API servers read a flag: present is true, but for these.
        let watch = match all("watch").as_slice() {
            [] => Some(false),
            [one] => Some(!(one == "0" || one.eq_ignore_ascii_case("false"))),
            _ => None,
        };
        let name = match all("fieldSelector").as_slice() {
            [one] => one.split(',').find_map(|term| {
                let name = term.strip_prefix("metadata.name==").or_else(|| term.strip_prefix("metadata.name="))?;
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
                (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())
            }),
            _ => None,
        };
        Self { watch, name }
    }
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::path::KubePath;

    fn read(method: &str, path: &str) -> KubeRequest {
        let target = format!("/v1/kube/root/staging{path}").parse().unwrap();
        let path = KubePath::parse(&target, Version::HTTP_11).unwrap();
        kube_request(&Method::from_bytes(method.as_bytes()).unwrap(), &path.api)
    }

    // I59
    #[test]
    fn each_request_is_read_as_the_api_server_reads_it() {
        for (method, path, said) in [
            ("GET", "/api/v1/namespaces/dev/pods", "list pods in namespace \"dev\""),
            ("GET", "/api/v1/namespaces/dev/pods/", "list pods in namespace \"dev\""),
            ("GET", "/api/v1/namespaces/d%65v/pods/a", "get pods \"a\" in namespace \"dev\""),
            ("HEAD", "/api/v1/namespaces/dev/pods/a/log", "get pods/log \"a\" in namespace \"dev\""),
            ("GET", "/api/v1/pods", "list pods"),
            ("GET", "/api/v1/pods?watch=true", "watch pods"),
            ("GET", "/api/v1/pods?watch", "watch pods"),
            ("GET", "/api/v1/pods?w%61tch=1", "watch pods"),
            ("GET", "/api/v1/pods?watch=0", "list pods"),
            ("GET", "/api/v1/pods?watch=0&watch=1", "use pods"),
            ("GET", "/api/v1/pods?watch=0;a=1", "use pods"),
            ("GET", "/api/v1/nodes/n?watch=1", "get nodes \"n\""),
            ("GET", "/api/v1/watch/namespaces/dev/pods/a", "watch pods \"a\" in namespace \"dev\""),
            ("GET", "/api/v1/watch/namespaces/dev/pods", "watch pods in namespace \"dev\""),
            (
                "GET",
                "/api/v1/namespaces/dev/pods?fieldSelector=metadata.name%3Da&watch=1",
                "watch pods \"a\" in namespace \"dev\"",
            ),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name=a&fieldSelector=x", "list pods"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name!=a", "list pods"),
            ("DELETE", "/api/v1/pods?fieldSelector=metadata.name=a", "deletecollection pods"),
            ("POST", "/apis/apps/v1/namespaces/dev/deployments", "create deployments.apps in namespace \"dev\""),
            (
                "PUT",
                "/apis/apps/v1/namespaces/dev/deployments/a/scale",
                "update deployments/scale.apps \"a\" in namespace \"dev\"",
            ),
            ("PATCH", "/api/v1/nodes/n", "patch nodes \"n\""),
            ("DELETE", "/api/v1/namespaces/dev/pods/a", "delete pods \"a\" in namespace \"dev\""),
            ("DELETE", "/api/v1/namespaces/dev/pods", "deletecollection pods in namespace \"dev\""),
            ("GET", "/api/v1/namespaces", "list namespaces"),
            ("GET", "/api/v1/namespaces/dev", "get namespaces \"dev\""),
            ("PUT", "/api/v1/namespaces/dev/finalize", "use namespaces/finalize \"dev\""),
            ("GET", "/version", "get the API's own description"),
            ("GET", "/", "get the API's own description"),
            ("GET", "/apis/apps/v1", "get the API's own description"),
            ("GET", "/openapi/v3/apis/apps/v1", "get the API's own description"),
            ("POST", "/api/v1", "use \"/api/v1\""),
            ("GET", "/metrics", "get \"/metrics\""),
            ("GET", "/api/v1/proxy/namespaces/dev/pods/a", "get \"/api/v1/proxy/namespaces/dev/pods/a\""),
            ("OPTIONS", "/api/v1/pods", "use pods"),
        ] {
            assert_eq!(read(method, path).to_string(), said, "{method} {path}");
        }
    }

    // I59
    #[test]
    fn what_runs_or_reaches_something_is_privileged_whatever_the_method() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
            for (below, verb) in [
                ("pods/a/exec", KubeVerb::Exec),
                ("pods/a/attach", KubeVerb::Exec),
                ("pods/a/ephemeralcontainers", KubeVerb::Exec),
                ("pods/a/portforward", KubeVerb::PortForward),
                ("pods/a/proxy/x/y", KubeVerb::Other),
                ("services/a/proxy", KubeVerb::Other),
                ("serviceaccounts/a/token", KubeVerb::Other),
                ("pods/a/eviction", KubeVerb::Delete),
            ] {
                assert_eq!(read(method, &format!("/api/v1/namespaces/dev/{below}")).verb, verb, "{method} {below}");
            }
            assert_eq!(read(method, "/api/v1/nodes/n/proxy/run").verb, KubeVerb::Other);
        }
    }
}
