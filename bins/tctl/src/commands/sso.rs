//! `tctl sso test`: a login by a connector that need not be stored; shows what it would give and why, and issues nothing.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use remoteler_core::{
    ApiErrorKind, AuthApi, ConnectorReport, LoginPoll, LoginProgress, Resource, ResourceKind, printable,
};

use crate::output::Report;

/// Runs the test of the one document.
pub(super) async fn test(api: &dyn AuthApi, mut documents: Vec<Resource>) -> anyhow::Result<Report> {
    let document = documents.pop().context("the file has no document")?;
    ensure!(documents.is_empty(), "one connector is tested at a time; the file has several documents");
    let kind = ResourceKind::parse(&document.kind)?;
    ensure!(
        matches!(kind, ResourceKind::Oidc | ResourceKind::Github | ResourceKind::Saml),
        "{} is no kind of connector; oidc, github and saml are",
        kind.as_str()
    );
    let proxy = proxy_of(kind, &document.spec)?;
    let begun = api.test_connector(document).await?;
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "Open in a browser: https://{}/web/login/{}", printable(&proxy), printable(&begun.id))?;
    drop(stderr);
    let poll = LoginPoll { id: begun.id, secret: begun.secret };
    let pause = Duration::from_secs(begun.interval_seconds.clamp(1, 60));
    // By a clock that nobody sets: this machine's own time may be another one than the auth service's, which ends the login itself.
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        tokio::time::sleep(pause).await;
        match api.poll_login(poll.clone()).await {
            Ok(LoginProgress::Tested { report }) => return show(&report),
            Ok(LoginProgress::Refused { reason }) => bail!("the login was refused: {}", printable(&reason)),
            Ok(LoginProgress::Pending | LoginProgress::SlowDown | LoginProgress::Ready { .. }) => {}
            Err(cause) if cause.kind == ApiErrorKind::Unavailable => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    bail!("nobody finished the login in the browser in time; run the test again")
}

/// How long somebody has for the login in the browser.
const PATIENCE: Duration = Duration::from_secs(600);

/// The proxy that the connector's callback is at.
fn proxy_of(kind: ResourceKind, spec: &serde_json::Value) -> anyhow::Result<String> {
    let field = if kind == ResourceKind::Saml { "acs" } else { "redirect_url" };
    let urls = &spec[field];
    let url = urls.as_array().and_then(|urls| urls.first()).unwrap_or(urls).as_str();
    let rest = url.and_then(|url| url.strip_prefix("https://"));
    let rest = rest.with_context(|| format!("{field} names no proxy"))?;
    Ok(rest.split('/').next().unwrap_or_default().to_owned())
}

fn show(report: &ConnectorReport) -> anyhow::Result<Report> {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&printable(&line));
        text.push('\n');
    };
    line(format!("user     {}", report.user.as_deref().unwrap_or("none")));
    line(format!("subject  {}", report.subject.as_deref().unwrap_or("unknown")));
    line("claims".into());
    for (name, values) in &report.claims {
        line(format!("  {name} = {}", values.join(", ")));
    }
    line("mappings".into());
    for mapping in &report.mappings {
        let why = match &mapping.matched {
            Some(value) => format!("matches {value}, gives {}", mapping.roles.join(", ")),
            None => "matches nothing".into(),
        };
        line(format!("  {}: {why}", mapping.mapping));
    }
    line(format!("roles    {}", if report.roles.is_empty() { "none".into() } else { report.roles.join(", ") }));
    let refused = report.refused.clone();
    let report = Report::new(text, report)?;
    Ok(match refused {
        Some(reason) => report.failed(format!("the login would be refused: {}", printable(&reason))),
        None => report,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_proxy_is_found_where_each_kind_of_connector_names_it() {
        let url = "https://proxy.example.com:3080/web/callback/idp";
        for (kind, field) in
            [(ResourceKind::Oidc, "redirect_url"), (ResourceKind::Github, "redirect_url"), (ResourceKind::Saml, "acs")]
        {
            for urls in [json!(url), json!([url, "https://other.example.com/web/callback/idp"])] {
                assert_eq!(proxy_of(kind, &json!({ field: urls })).unwrap(), "proxy.example.com:3080");
            }
            let refused = proxy_of(kind, &json!({ field: "http://proxy.example.com/" })).unwrap_err();
            assert_eq!(refused.to_string(), format!("{field} names no proxy"));
        }
    }
}
