//! The OpenAPI 3.1 document, made from the table of routes and the schemas beside it. `openapi.json` in this crate's folder is
//! the same document for readers; a test compares them.

use serde_json::{Map, Value, json};

use super::{
    routes::{Route, Shape, table},
    schemas::schemas,
};

/// The document, as it is served.
#[must_use]
pub fn openapi_document() -> String {
    let mut text = serde_json::to_string_pretty(&document(&table())).unwrap_or_default(); // values of JSON always print
    text.push('\n');
    text
}

fn document(routes: &[Route]) -> Value {
    let schemas = schemas();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(operations) = path {
            operations.insert(route.method.as_str().to_lowercase(), operation(route, &schemas));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Remoteler auth service",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Callers are known by their TLS client certificate. Without one, only the calls under \
                /v1/ping, /v1/trust, /v1/revocation_lists, /v1/login, /v1/signup and /v1/join are answered.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" }
        },
        "paths": paths,
        "components": { "schemas": schemas }
    })
}

fn operation(route: &Route, schemas: &Map<String, Value>) -> Value {
    let mut operation = Map::new();
    operation.insert("summary".into(), route.summary.into());
    let mut parameters: Vec<Value> = path_parameters(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = route.query.and_then(|name| schemas.get(name)) {
        let required = query.get("required").and_then(Value::as_array);
        for (name, schema) in query.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let required = required.is_some_and(|list| list.iter().any(|item| item == name));
            parameters.push(json!({ "name": name, "in": "query", "required": required, "schema": schema }));
        }
    }
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some(content) = content(route.request) {
        operation.insert("requestBody".into(), json!({ "required": true, "content": content }));
    }
    let (status, answer) = match content(route.answer) {
        Some(content) => ("200", json!({ "description": "Done", "content": content })),
        None => ("204", json!({ "description": "Done" })),
    };
    let failure = json!({
        "description": "What failed and what to do: 400 wrong request, 401 caller unknown, 403 may not, 404 no such thing, \
            409 is there already or was changed, 429 too many attempts, 500 the service failed, 503 try again",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/ApiError" } } }
    });
    operation.insert("responses".into(), json!({ status: answer, "default": failure }));
    operation.into()
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn content(shape: Shape) -> Option<Value> {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    Some(match shape {
        Shape::Nothing => return None,
        Shape::One(name) => json!({ "application/json": { "schema": reference(name) } }),
        Shape::Many(name) => json!({ "application/json": { "schema": { "type": "array", "items": reference(name) } } }),
        Shape::Octets => json!({ "application/octet-stream": {} }),
        Shape::Document => json!({ "application/json": { "schema": { "type": "object" } } }),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn the_document_in_the_repository_is_the_one_that_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let served = openapi_document();
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&path, &served).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == served, "openapi.json is not what the routes say; run the test again with UPDATE_OPENAPI=1");
    }

    #[test]
    fn every_schema_that_is_named_exists_and_every_one_that_exists_is_used() {
        let routes = table();
        let mut named: BTreeSet<String> = routes.iter().filter_map(|route| route.query).map(str::to_owned).collect();
        collect_references(&document(&routes), &mut named);
        let existing: BTreeSet<String> = schemas().keys().cloned().collect();
        assert_eq!(named, existing);
    }

    #[test]
    fn no_operation_stands_in_the_table_twice() {
        let routes = table();
        let operations: BTreeSet<_> = routes.iter().map(|route| (route.path, route.method.to_string())).collect();
        assert_eq!(operations.len(), routes.len());
    }

    fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                    found.insert(name.rsplit('/').next().unwrap().to_owned());
                }
                fields.values().for_each(|field| collect_references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
