//! The objects: get, list, watch, create, update, patch, delete. Owns the resource versions and tells watchers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Body, asks, failure, json_answer, lock, values};

/// Resource, namespace, name.
type Key = (String, String, String);

/// Everything there is.
pub(super) struct Store {
    content: Arc<Mutex<Content>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Content {
    objects: BTreeMap<Key, Value>,
    /// Every change since the start: its version is its place, counted from 1.
    history: Vec<(Key, &'static str, Value)>,
}

impl Store {
    /// Namespace `dev` and pod `web`.
    pub(super) fn new() -> Self {
        let store = Self { content: Arc::default(), changed: Arc::default() };
        store.put(
            "namespaces",
            "",
            "dev",
            json!({"kind": "Namespace", "apiVersion": "v1", "status": {"phase": "Active"}}),
        );
        store.put("pods", "dev", "web", pod());
        store
    }

    pub(super) fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        lock(&self.content).objects.get(&key(resource, namespace, name)).cloned()
    }

    /// Creates or replaces.
    pub(super) fn put(&self, resource: &str, namespace: &str, name: &str, mut object: Value) -> Value {
        let key = key(resource, namespace, name);
        let mut content = lock(&self.content);
        let what = if content.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let version = (content.history.len() + 1).to_string();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        object["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        object["metadata"]["uid"] = format!("00000000-0000-4000-8000-{:012}", content.history.len()).into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        object["metadata"]["resourceVersion"] = version.into();
        content.objects.insert(key.clone(), object.clone());
        content.history.push((key, what, object.clone()));
        self.changed.notify_waiters();
        object
    }

    fn remove(&self, key: &Key) -> Option<Value> {
        let mut content = lock(&self.content);
        let object = content.objects.remove(key)?;
        content.history.push((key.clone(), "DELETED", object.clone()));
        self.changed.notify_waiters();
        Some(object)
    }
}

/// Serves a request for a resource: all of it, or the object `name`.
pub(super) async fn serve(
    store: &Store,
    resource: &str,
    namespace: &str,
    name: Option<&str>,
    request: Request<Incoming>,
) -> Response<Body> {
    let method = request.method().clone();
    match (name, method) {
        (None, Method::GET) if asks(&request, "watch") => watch(store, resource, namespace, &request),
        (None, Method::GET) => json_answer(StatusCode::OK, &list(store, resource, namespace, &request)),
        (None, Method::POST) => {
            let Some(object) = json_body(request).await else { return failure(StatusCode::BAD_REQUEST, "no JSON") };
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            json_answer(StatusCode::CREATED, &store.put(resource, namespace, &name, object))
        }
        (Some(name), method) => {
            let Some(present) = store.object(resource, namespace, name) else {
                return failure(StatusCode::NOT_FOUND, &format!("{resource} {name:?} not found"));
            };
            match method {
                Method::GET => json_answer(StatusCode::OK, &present),
                Method::PUT | Method::PATCH => {
                    let Some(change) = json_body(request).await else {
                        return failure(StatusCode::BAD_REQUEST, "no JSON");
                    };
                    let object = if method == Method::PUT { change } else { merged(present, &change) };
                    json_answer(StatusCode::OK, &store.put(resource, namespace, name, object))
                }
                Method::DELETE => {
                    store.remove(&key(resource, namespace, name));
                    json_answer(
                        StatusCode::OK,
                        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
                    )
                }
                _ => failure(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            }
        }
        _ => failure(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
    }
}

/// Whether an object is asked for: by resource, by namespace (none: all), and by a field selector for its name.
fn fits(key: &Key, resource: &str, namespace: &str, name: Option<&str>) -> bool {
    key.0 == resource && (namespace.is_empty() || key.1 == namespace) && name.is_none_or(|name| key.2 == name)
}

fn selected_name(request: &Request<Incoming>) -> Option<String> {
    values(request, "fieldSelector")
        .iter()
        .find_map(|selector| selector.strip_prefix("metadata.name=").map(str::to_owned))
}

fn list(store: &Store, resource: &str, namespace: &str, request: &Request<Incoming>) -> Value {
    let content = lock(&store.content);
    let name = selected_name(request);
    let fitting = content.objects.iter().filter(|(key, _)| fits(key, resource, namespace, name.as_deref()));
    let items: Vec<&Value> = fitting.map(|(_, object)| object).collect();
    let kind = match resource {
        "pods" => "PodList",
        "namespaces" => "NamespaceList",
        _ => "ConfigMapList",
    };
    json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": content.history.len().to_string()}, "items": items})
}

fn watch(store: &Store, resource: &str, namespace: &str, request: &Request<Incoming>) -> Response<Body> {
    let since = values(request, "resourceVersion").first().and_then(|version| version.parse::<usize>().ok());
    let name = selected_name(request);
    let (content, changed) = (store.content.clone(), store.changed.clone());
    let (resource, namespace) = (resource.to_owned(), namespace.to_owned());
    let frames = stream::unfold((content, since.unwrap_or(0)), move |(content, mut at)| {
        let (changed, resource, namespace, name) = (changed.clone(), resource.clone(), namespace.clone(), name.clone());
        async move {
            loop {
                let notified = changed.notified();
                let mut lines = String::new();
                let news: Vec<_> = lock(&content).history.iter().skip(at).cloned().collect();
                for (key, what, object) in news {
                    at += 1;
                    if fits(&key, &resource, &namespace, name.as_deref()) {
                        lines += &format!("{}\n", json!({"type": what, "object": object}));
                    }
                }
                if !lines.is_empty() {
                    return Some((Ok::<_, Infallible>(Frame::data(Bytes::from(lines))), (content, at)));
                }
                notified.await;
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

async fn json_body(request: Request<Incoming>) -> Option<Value> {
    let body = request.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

/// A JSON merge patch (RFC 7396): enough for what `kubectl apply` changes here.
fn merged(mut target: Value, patch: &Value) -> Value {
    let Some(changes) = patch.as_object() else { return patch.clone() };
    if !target.is_object() {
        target = json!({});
    }
    for (name, change) in changes {
        if change.is_null() {
            target.as_object_mut().map(|fields| fields.remove(name));
        } else {
            target[name] = merged(target[name].take(), change);
        }
    }
    target
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.into(), namespace.into(), name.into())
}

fn pod() -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "spec": {"nodeName": "node", "containers": [{"name": "main", "image": "double", "stdin": true,
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "image": "double", "imageID": "double",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}})
}
