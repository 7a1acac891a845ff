//! What the double says of itself: version, groups, resources; and the reviews by which a client learns who it is.

use serde_json::{Value, json};

use super::Expected;

/// The document at `path` (without its first `/`).
pub(super) fn document(path: &str) -> Option<Value> {
    Some(match path {
        "version" => json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0-double", "platform": "linux/amd64"}),
        "api" => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "localhost:443"}]}),
        "apis" => json!({"kind": "APIGroupList", "apiVersion": "v1",
            "groups": [group("apps"), group("authentication.k8s.io"), group("authorization.k8s.io")]}),
        "api/v1" => resources(
            "v1",
            &json!([
                resource("namespaces", "namespace", "Namespace", false, &["ns"]),
                resource("pods", "pod", "Pod", true, &["po"]),
                {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
                {"name": "pods/exec", "singularName": "", "namespaced": true, "kind": "PodExecOptions", "verbs": ["create", "get"]},
                {"name": "pods/attach", "singularName": "", "namespaced": true, "kind": "PodAttachOptions", "verbs": ["create", "get"]},
                {"name": "pods/portforward", "singularName": "", "namespaced": true, "kind": "PodPortForwardOptions", "verbs": ["create", "get"]},
                resource("configmaps", "configmap", "ConfigMap", true, &["cm"]),
            ]),
        ),
        "apis/apps/v1" => resources("apps/v1", &json!([])),
        "apis/authentication.k8s.io/v1" => resources(
            "authentication.k8s.io/v1",
            &json!([{"name": "selfsubjectreviews", "singularName": "selfsubjectreview", "namespaced": false,
                "kind": "SelfSubjectReview", "verbs": ["create"]}]),
        ),
        "apis/authorization.k8s.io/v1" => resources(
            "authorization.k8s.io/v1",
            &json!([{"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
                "kind": "SelfSubjectAccessReview", "verbs": ["create"]}]),
        ),
        _ => return None,
    })
}

/// The answer to a review that asks about oneself.
pub(super) fn review(group: &str, version: &str, kind: &str, user: &Expected) -> Value {
    let api_version = format!("{group}/{version}");
    let mut groups = user.groups.clone();
    groups.push("system:authenticated".into());
    match kind {
        "selfsubjectreviews" => json!({"kind": "SelfSubjectReview", "apiVersion": api_version,
            "metadata": {"creationTimestamp": null}, "status": {"userInfo": {"username": user.user, "groups": groups}}}),
        _ => json!({"kind": "SelfSubjectAccessReview", "apiVersion": api_version,
            "metadata": {"creationTimestamp": null}, "spec": {}, "status": {"allowed": true}}),
    }
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group_version: &str, list: &Value) -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn resource(name: &str, singular: &str, kind: &str, namespaced: bool, short: &[&str]) -> Value {
    json!({"name": name, "singularName": singular, "namespaced": namespaced, "kind": kind, "shortNames": short,
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
}
