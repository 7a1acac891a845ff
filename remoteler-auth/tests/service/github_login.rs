//! Login by GitHub against a double of its API.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use remoteler_core::{ApiError, UserCerts};
use serde_json::{Value, json};

use crate::{
    identity_provider::{Attempt, GithubDouble, cluster_with},
    support::Cluster,
};

type Answers = BTreeMap<String, (Value, Option<String>)>;

fn answers() -> Answers {
    let acme = json!({ "id": 1, "login": "Acme" });
    let other = json!({ "id": 2, "login": "other" });
    let mut answers = Answers::new();
    let mut add = |path: &str, body: Value| answers.insert(path.to_owned(), (body, None));
    add("/user", json!({ "id": 77, "login": "Octo" }));
    add(
        "/user/memberships/orgs?state=active&per_page=100",
        json!([{ "state": "active", "organization": acme }, { "state": "pending", "organization": other }]),
    );
    add(
        "/user/teams?per_page=100",
        json!([{ "slug": "ops", "organization": acme }, { "slug": "ops", "organization": other }]),
    );
    add("/orgs/acme/teams/ops/memberships/Octo", json!({ "state": "active" }));
    add("/orgs/acme", json!({ "two_factor_requirement_enabled": true }));
    answers
}

async fn started(answers: Answers, spec: Value) -> Cluster {
    let cluster = cluster_with(Arc::new(GithubDouble(Mutex::new(answers)))).await;
    let mut fields = json!({
        "client_id": "remoteler",
        "client_secret": "canary-secret",
        "redirect_url": "https://proxy.example.com/web/callback/gh",
        "teams_to_roles": [
            { "organization": "acme", "team": "Ops", "roles": ["access"] },
            { "organization": "acme", "team": "admins", "roles": ["editor"] },
            { "organization": "other", "team": "ops", "roles": ["editor"] },
            { "organization": "other", "team": "*", "roles": ["auditor"] },
        ],
    });
    fields.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let document = json!({ "kind": "github", "version": "v3", "metadata": { "name": "gh" }, "spec": fields });
    cluster.admin().put_resource(serde_json::from_value(document).unwrap(), false).await.unwrap();
    cluster
}

async fn log_in(cluster: &Cluster) -> Result<UserCerts, ApiError> {
    let mut attempt = Attempt::begin(cluster.anonymous(), None, true).await?;
    let away = attempt.open().await?;
    assert!(away.starts_with("https://github.com/login/oauth/authorize?client_id=remoteler&"), "{away}");
    let state = away.rsplit_once("state=").unwrap().1;
    let params = [("state", state), ("code", "c")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    attempt.come_back("gh", params.into()).await?;
    attempt.finish().await
}

#[tokio::test]
async fn active_members_of_a_team_get_its_roles_and_nobody_else_does() {
    // I44
    let certs = log_in(&started(answers(), json!({})).await).await.unwrap();
    let roles: Vec<_> = certs.roles.iter().map(ToString::to_string).collect();
    assert_eq!(
        (roles.as_slice(), certs.logins.as_slice()),
        (["access".to_owned()].as_slice(), ["octo".to_owned()].as_slice())
    );

    let mut invited = answers();
    invited.insert("/orgs/acme/teams/ops/memberships/Octo".into(), (json!({ "state": "pending" }), None));
    assert!(log_in(&started(invited, json!({})).await).await.unwrap_err().message.contains("no role"));

    // The organisation of that name has another id than the one that the user is an active member of.
    let mut renamed = answers();
    let squatter = json!([{ "slug": "ops", "organization": { "id": 9, "login": "acme" } }]);
    renamed.insert("/user/teams?per_page=100".into(), (squatter, None));
    assert!(log_in(&started(renamed, json!({})).await).await.unwrap_err().message.contains("no role"));
}

#[tokio::test]
async fn all_pages_are_read_or_nobody_is_let_in() {
    // I44
    // What counts stands on the last page.
    for list in ["/user/teams?per_page=100", "/user/memberships/orgs?state=active&per_page=100"] {
        let path = |page: usize| if page == 1 { list.to_owned() } else { format!("{list}&page={page}") };
        let paged = |pages: usize| {
            let mut answers = answers();
            let (last, _) = answers.remove(list).unwrap();
            for page in 1..pages {
                answers.insert(path(page), (json!([]), Some(path(page + 1))));
            }
            answers.insert(path(pages), (last, None));
            answers
        };
        assert!(log_in(&started(paged(20), json!({})).await).await.is_ok(), "{list}");
        let refused = log_in(&started(paged(21), json!({})).await).await.unwrap_err();
        assert!(refused.message.contains("more organizations or teams"), "{refused}");
        let mut broken = paged(3);
        broken.remove(&path(2));
        assert!(log_in(&started(broken, json!({})).await).await.is_err(), "{list}");
    }
}

#[tokio::test]
async fn an_organization_that_demands_no_second_factor_lets_nobody_in_where_that_is_wanted() {
    let wanted = json!({ "require_org_2fa": ["acme"] });
    assert!(log_in(&started(answers(), wanted.clone()).await).await.is_ok());
    // Of one that the user is no member of nothing is told, and no role comes from there.
    let several = json!({ "require_org_2fa": ["acme", "elsewhere", "other"] });
    assert!(log_in(&started(answers(), several).await).await.is_ok());
    for said in [
        json!({ "two_factor_requirement_enabled": false }),
        json!({}),
        json!({ "two_factor_requirement_enabled": null }),
    ] {
        let mut lax = answers();
        lax.insert("/orgs/acme".into(), (said, None));
        let refused = log_in(&started(lax, wanted.clone()).await).await.unwrap_err();
        assert!(refused.message.contains("second factor"), "{refused}");
    }
}
