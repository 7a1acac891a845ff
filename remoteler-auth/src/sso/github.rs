//! Login by GitHub and GitHub Enterprise: the code's exchange, and then who it is and of which teams they are an active member, by its REST API. Every page
//! is read or nobody is let in (I44).

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, Request, header};
use remoteler_core::{ConnectorReport, GithubSpec, MappingOutcome, RoleName, Secret, Traits};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    conclude::{Authenticated, LoginFault, Proven, ProviderIdentity},
    mapping::{self, Claims},
    oidc::{Away, body, challenge, post, with_query},
    records::{PendingState, ProviderSecrets},
};
use crate::{secret_hash, service::Inner};

const ENDPOINT: &str = "https://github.com";
const API: &str = "https://api.github.com";
/// Most pages of a list: a hundred entries each.
const MAX_PAGES: usize = 20;
const AWAY: &str = "GitHub did not answer as it should; try again, or tell an administrator";

#[derive(Deserialize)]
struct Token {
    access_token: Secret,
    token_type: String,
}

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
}

#[derive(Deserialize)]
struct Organisation {
    id: u64,
    login: String,
}

#[derive(Deserialize)]
struct Membership {
    state: String,
    organization: Organisation,
}

#[derive(Deserialize)]
struct Team {
    slug: String,
    organization: Organisation,
}

#[derive(Deserialize)]
struct TeamMembership {
    state: String,
}

/// Of an organisation, as its members see it.
#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    two_factor_requirement_enabled: Option<bool>,
}

/// Asks the API with one user's token.
struct Api<'a> {
    inner: &'a Inner,
    base: String,
    token: Secret,
}

impl Inner {
    /// The request that a browser takes to GitHub.
    pub(super) fn send_to_github(&self, spec: &GithubSpec, redirect_url: &str) -> Away {
        let verifier = secret_hash::draw(self.entropy.as_ref());
        let url = format!("{}/login/oauth/authorize", base(spec.endpoint_url.as_deref(), ENDPOINT));
        let query = [
            ("client_id", spec.client_id.as_str()),
            ("redirect_uri", redirect_url),
            ("scope", "read:org user:email"),
            ("code_challenge", &challenge(&verifier)),
            ("code_challenge_method", "S256"),
        ];
        Away { url: with_query(&url, &query), secrets: ProviderSecrets::Github { verifier } }
    }

    /// Whom GitHub's answer proves.
    pub(super) async fn github_answer(
        &self,
        name: &str,
        spec: &GithubSpec,
        pending: &PendingState,
        params: &BTreeMap<String, String>,
    ) -> Result<Proven, LoginFault> {
        let ProviderSecrets::Github { verifier } = &pending.secrets else {
            return Err(LoginFault::said("the connector was changed meanwhile; start again with tsh login"));
        };
        let endpoint = base(spec.endpoint_url.as_deref(), ENDPOINT);
        if let Some(issuer) = params.get("iss")
            && issuer != &format!("{endpoint}/login/oauth")
        {
            return Err(LoginFault::said("the answer is of another identity provider than the one that was asked"));
        }
        let code = params.get("code").filter(|code| !code.is_empty() && code.len() <= 256);
        let code = code.ok_or_else(|| LoginFault::said("GitHub's answer has no code"))?;
        let form = [
            ("client_id", spec.client_id.as_str()),
            ("client_secret", spec.client_secret.as_ref().map(Secret::reveal).unwrap_or_default()),
            ("code", code),
            ("redirect_uri", &pending.redirect_url),
            ("code_verifier", verifier.reveal()),
        ];
        let exchange = body(post(&format!("{endpoint}/login/oauth/access_token"))?, &form)?;
        let answer = self.ask_provider(exchange).await?;
        // GitHub says what was wrong with status 200, and in a body that has no token.
        let token: Token = parse("the code's exchange", answer.status(), answer.body())?;
        if !token.token_type.eq_ignore_ascii_case("bearer") {
            return Err(LoginFault::with(AWAY, "the code's exchange: an unknown type of token"));
        }
        let api = Api { inner: self, base: base(spec.api_endpoint_url.as_deref(), API), token: token.access_token };
        api.prove(name, spec, endpoint).await
    }
}

impl Api<'_> {
    async fn prove(&self, name: &str, spec: &GithubSpec, endpoint: String) -> Result<Proven, LoginFault> {
        let (user, _): (User, _) = self.ask("/user").await?;
        let username = mapping::username("login", &user.login)?;
        let memberships: Vec<Membership> = self.all("/user/memberships/orgs?state=active&per_page=100").await?;
        let active: BTreeMap<String, u64> = memberships
            .into_iter()
            .filter(|membership| membership.state == "active")
            .map(|membership| (membership.organization.login.to_ascii_lowercase(), membership.organization.id))
            .collect();
        let teams: Vec<Team> = self.all("/user/teams?per_page=100").await?;
        let mut found: BTreeSet<(String, String)> = BTreeSet::new();
        for team in teams {
            let organisation = team.organization.login.to_ascii_lowercase();
            // By its id: an organisation of that name of today is not that of yesterday.
            if active.get(&organisation) == Some(&team.organization.id) {
                found.insert((organisation, team.slug.to_ascii_lowercase()));
            }
        }
        let (mut roles, mut mappings, mut giving) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        for mapping in &spec.teams_to_roles {
            let organisation = mapping.organization.to_ascii_lowercase();
            let team = mapping.team.to_ascii_lowercase();
            let member = if team == "*" {
                active.contains_key(&organisation)
            } else {
                found.contains(&(organisation.clone(), team.clone()))
                    && self.is_active_in_team(&organisation, &team, &user.login).await?
            };
            let given = if member { mapping.roles.clone() } else { Vec::new() };
            if !given.is_empty() {
                giving.insert(organisation.clone());
            }
            for role in &given {
                let role = RoleName::new(role)
                    .map_err(|cause| LoginFault::with("the connector's mappings cannot be used", cause))?;
                roles.insert(role);
            }
            mappings.push(MappingOutcome {
                mapping: format!("{}/{} -> {}", mapping.organization, mapping.team, mapping.roles.join(", ")),
                matched: member.then(|| format!("{organisation}/{team}")),
                roles: given,
            });
        }
        // Of those that give something: another one tells nothing to who is no member, and takes nothing away from who is.
        let demanded = |wanted: &&String| giving.contains(&wanted.to_ascii_lowercase());
        for organisation in spec.require_org_2fa.iter().filter(demanded) {
            self.demand_2fa(organisation).await?;
        }
        let named: BTreeSet<String> =
            spec.teams_to_roles.iter().map(|each| each.organization.to_ascii_lowercase()).collect();
        let mut claims = Claims::from([("login".to_owned(), vec![user.login.clone()])]);
        // Only of organisations that the connector names: the others are none of the cluster's business.
        claims.insert("organizations".into(), active.keys().filter(|name| named.contains(*name)).cloned().collect());
        let teams = found.iter().filter(|(organisation, _)| named.contains(organisation));
        claims.insert("teams".into(), teams.map(|(organisation, team)| format!("{organisation}/{team}")).collect());
        claims.retain(|_, values| !values.is_empty());
        let mut traits: Traits = claims.clone().into_iter().collect();
        // As with Teleport: the account of the same name.
        traits.insert("logins".into(), vec![username.to_string()]);
        let subject = user.id.to_string();
        let report = ConnectorReport {
            user: None,
            subject: Some(subject.clone()),
            claims,
            mappings,
            roles: roles.iter().map(ToString::to_string).collect(),
            refused: None,
        };
        let who = ProviderIdentity {
            method: "github".into(),
            connector: name.to_owned(),
            issuer: endpoint,
            subject,
            username,
            roles,
            traits,
            terms: String::new(),
        };
        Ok((Authenticated::Provider(Box::new(who)), report))
    }

    /// The list of teams does not tell who was only invited.
    async fn is_active_in_team(&self, organisation: &str, team: &str, login: &str) -> Result<bool, LoginFault> {
        let slug = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
        if ![organisation, team, login].into_iter().all(slug) {
            return Ok(false);
        }
        let path = format!("/orgs/{organisation}/teams/{team}/memberships/{login}");
        let (membership, _): (TeamMembership, _) = self.ask(&path).await?;
        Ok(membership.state == "active")
    }

    async fn demand_2fa(&self, organisation: &str) -> Result<(), LoginFault> {
        let (policy, _): (Policy, _) = self.ask(&format!("/orgs/{organisation}")).await?;
        if policy.two_factor_requirement_enabled == Some(true) {
            return Ok(());
        }
        // Also when it is not told, for who is no member is told nothing.
        Err(LoginFault::said(format!(
            "organization {organisation} does not demand a second factor of its members, or does not tell"
        )))
    }

    /// All pages of a list, or none.
    async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, LoginFault> {
        let (mut entries, mut next) = (Vec::new(), Some(path.to_owned()));
        for _ in 0..MAX_PAGES {
            let Some(path) = next.take() else { return Ok(entries) };
            let (page, headers): (Vec<T>, _) = self.ask(&path).await?;
            entries.extend(page);
            next = next_page(&headers, &self.base)?;
        }
        if next.is_none() {
            return Ok(entries);
        }
        Err(LoginFault::said("the user is in more organizations or teams on GitHub than are read"))
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<(T, HeaderMap), LoginFault> {
        let request = Request::get(format!("{}{path}", self.base))
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.reveal()))
            .header("x-github-api-version", "2022-11-28")
            .body(Vec::new())
            .map_err(|_| LoginFault::with(AWAY, "its access token cannot be sent"))?;
        let answer = self.inner.ask_provider(request).await?;
        let what = path.split('?').next().unwrap_or_default();
        Ok((parse(what, answer.status(), answer.body())?, answer.headers().clone()))
    }
}

fn parse<T: DeserializeOwned>(what: &str, status: http::StatusCode, body: &[u8]) -> Result<T, LoginFault> {
    if !status.is_success() {
        return Err(LoginFault::with(AWAY, format!("{what}: status {status}")));
    }
    // What does not parse is not repeated: tokens may be in it.
    serde_json::from_slice(body).map_err(|_| LoginFault::with(AWAY, format!("{what}: not the JSON it should be")))
}

fn base(configured: Option<&str>, default: &str) -> String {
    configured.unwrap_or(default).trim_end_matches('/').to_owned()
}

/// The path of the next page (RFC 8288); a page on another host, or a link that is not understood, is a fault: nothing may be left out.
fn next_page(headers: &HeaderMap, base: &str) -> Result<Option<String>, LoginFault> {
    let fault = || LoginFault::with(AWAY, "its list goes on at an address that is not understood");
    for value in headers.get_all(header::LINK) {
        let value = value.to_str().map_err(|_| fault())?;
        for link in value.split(',') {
            let mut parts = link.split(';').map(str::trim);
            let target = parts.next().unwrap_or_default();
            if !parts.any(|parameter| matches!(parameter, "rel=\"next\"" | "rel=next")) {
                continue;
            }
            let url = target.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).ok_or_else(fault)?;
            let path = url.strip_prefix(base).filter(|path| path.starts_with('/')).ok_or_else(fault)?;
            return Ok(Some(path.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_on_the_same_host_or_nobody_is_let_in() {
        // I43, I44
        let next = |link: &str| {
            let headers = HeaderMap::from_iter([(header::LINK, link.parse().unwrap())]);
            next_page(&headers, "https://api.github.com")
        };
        let both = "<https://api.github.com/user/teams?page=1>; rel=\"prev\", <https://api.github.com/user/teams?page=3>; rel=\"next\"";
        assert_eq!(next(both), Ok(Some("/user/teams?page=3".into())));
        assert_eq!(next("<https://api.github.com/x>; rel=\"last\""), Ok(None));
        assert_eq!(next_page(&HeaderMap::new(), "https://api.github.com"), Ok(None));
        for wrong in [
            "<https://evil.example/x>; rel=\"next\"",
            "<https://api.github.com.evil.example/x>; rel=\"next\"",
            "<https://api.github.com@evil.example/x>; rel=\"next\"",
            "<//evil.example>; rel=next",
            "/user/teams; rel=\"next\"",
        ] {
            assert!(next(wrong).is_err(), "{wrong}");
        }
    }
}
