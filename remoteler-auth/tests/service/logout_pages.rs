//! The way to the logout at an identity provider and back, over the proxy's pages.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use remoteler_auth::{Caller, RemoteAddr, WebNames, web_router};
use remoteler_core::Resource;
use serde_json::json;
use tower::ServiceExt;

use crate::{
    identity_provider::{ISSUER, Idp, cluster_with},
    support::Cluster,
};

const DONE: &str = "https://proxy.example.com/web/logout/idp/done";

struct Page {
    status: StatusCode,
    location: Option<String>,
    cookie: Option<String>,
    text: String,
}

async fn get(router: &Router, host: &str, path: &str, cookie: Option<&str>) -> Page {
    let mut request = Request::get(path).header("host", host);
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(RemoteAddr(SocketAddr::from(([192, 0, 2, 9], 1234))));
    let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (location, cookie) = (text("location"), text("set-cookie").map(|set| set.split(';').next().unwrap().into()));
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Page { status: head.status, location, cookie, text }
}

async fn with_connector(back: serde_json::Value) -> (Cluster, Router) {
    let idp = Idp::new();
    idp.change(|provider| {
        provider.metadata.insert("end_session_endpoint".into(), json!("https://idp.example.com/end"));
    });
    let cluster = cluster_with(Arc::new(idp)).await;
    let document = json!({
        "kind": "oidc", "version": "v3", "metadata": { "name": "idp" },
        "spec": {
            "issuer_url": ISSUER, "client_id": "remoteler", "client_secret": "canary-secret",
            "redirect_url": "https://proxy.example.com/web/callback/idp", "post_logout_redirect_url": back,
            "claims_to_roles": [{ "claim": "groups", "value": "staff", "roles": ["access"] }],
        },
    });
    let document: Resource = serde_json::from_value(document).unwrap();
    cluster.admin().put_resource(document, false).await.unwrap();
    let service = cluster.service.clone();
    let names = WebNames::new(Some("proxy.example.com:443"), []);
    let router = web_router(Arc::new(move |addr| service.as_caller(Caller::Anonymous { addr })), names);
    (cluster, router)
}

/// Where the provider is asked to end the login, and with what.
fn asked(page: &Page) -> BTreeMap<String, String> {
    let to = page.location.as_deref().unwrap_or_else(|| panic!("{}", page.text));
    let query = to.strip_prefix("https://idp.example.com/end?").unwrap_or_else(|| panic!("{to}"));
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[tokio::test]
async fn the_browser_that_went_to_the_provider_to_log_out_is_told_at_the_end_and_no_other() {
    // I36, I40
    let (_cluster, router) = with_connector(json!(DONE)).await;
    let host = "proxy.example.com";
    let away = get(&router, host, "/web/logout/idp", None).await;
    assert_eq!(away.status, StatusCode::SEE_OTHER);
    let query = asked(&away);
    assert_eq!(query.keys().collect::<Vec<_>>(), ["client_id", "post_logout_redirect_uri", "state"]);
    assert_eq!((query["client_id"].as_str(), query["post_logout_redirect_uri"].as_str()), ("remoteler", DONE));
    let (cookie, state) = (away.cookie.unwrap(), &query["state"]);
    assert!(!cookie.contains(state.as_str()), "the state does not tell the cookie");

    let back = format!("/web/logout/idp/done?state={state}");
    let end = get(&router, host, &back, Some(&cookie)).await;
    assert_eq!(end.status, StatusCode::OK);
    // Whether the login there is over the provider does not tell, and the session here goes on.
    for said in ["Back from the identity provider", "If you chose to stay signed in there", "/web/account"] {
        assert!(end.text.contains(said), "{}", end.text);
    }
    assert!(!end.text.contains("logged out") && !end.text.contains("is over"), "{}", end.text);

    let other = get(&router, host, "/web/logout/idp", None).await;
    let of_other = asked(&other)["state"].clone();
    assert_ne!(of_other, *state);
    for (path, cookie) in [
        (back.clone(), None),
        (back.clone(), other.cookie.as_deref()),
        (format!("/web/logout/idp/done?state={of_other}"), Some(cookie.as_str())),
        (format!("/web/logout/other/done?state={state}"), Some(cookie.as_str())),
        (format!("{back}&state={state}"), Some(cookie.as_str())),
        ("/web/logout/idp/done?state=".to_owned(), Some(cookie.as_str())),
        ("/web/logout/idp/done".to_owned(), Some(cookie.as_str())),
    ] {
        let page = get(&router, host, &path, cookie).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(!page.text.contains("Back from") && !page.text.contains(state.as_str()), "{}", page.text);
    }
    assert_eq!(get(&router, "evil.example", &back, Some(&cookie)).await.status, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn the_way_back_is_one_that_the_connector_names_and_none_where_it_names_none() {
    // I40
    let (_cluster, router) = with_connector(json!(null)).await;
    let query = asked(&get(&router, "proxy.example.com", "/web/logout/idp", None).await);
    assert_eq!(query.keys().collect::<Vec<_>>(), ["client_id"]);

    let (_cluster, router) = with_connector(json!(["https://other.example.com/web/logout/idp/done", DONE])).await;
    let query = asked(&get(&router, "proxy.example.com", "/web/logout/idp", None).await);
    assert_eq!(query["post_logout_redirect_uri"], DONE);
    // Under an address that the connector does not name there is none: at another one the browser would not have its cookie, and be told that it began nothing.
    let query = asked(&get(&router, "localhost", "/web/logout/idp", None).await);
    assert_eq!(query.keys().collect::<Vec<_>>(), ["client_id"]);
}
