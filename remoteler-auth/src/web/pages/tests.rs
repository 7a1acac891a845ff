//! What every page must hold.

use axum::body::Body;
use http_body_util::BodyExt;

use remoteler_core::{Account, Factor, FactorKind, OwnCertificate, SecondFactor, Timestamp, UserName, WebSession};

use super::*;

async fn text(answer: Response<Body>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn login<'a>(error: Option<&'a str>, connectors: &'a [ConnectorLink]) -> LoginPage<'a> {
    LoginPage { t: &ENGLISH, purpose: "", error, connectors, local: None }
}

#[tokio::test]
async fn text_cannot_become_markup() {
    let evil = "<a href='x' b=\"y\">&\u{0}\u{202e}\n";
    let page = text(message(StatusCode::OK, evil, evil)).await;
    assert!(page.contains("<p>&#60;a href=&#39;x&#39; b=&#34;y&#34;&#62;&#38;</p>"), "{page}"); // I54
    let connectors = [ConnectorLink { display: "<b>\u{202e}x".into(), href: "/web/a\"b".into() }];
    let page = login(Some(evil), &connectors).render().unwrap();
    assert!(page.contains("href=\"/web/a&#34;b\"") && page.contains("Continue with &#60;b&#62;x<"), "{page}");
    assert!(!page.contains("<a href='x'"), "{page}");
}

#[tokio::test]
async fn a_page_allows_no_foreign_script_frame_or_form() {
    let answer = page(StatusCode::OK, &login(None, &[]), &Allowed::default());
    let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
    for part in ["default-src 'none'", "form-action 'self';", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}"); // I54
    }
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(answer.headers()[name], value);
    }
}

#[test]
fn only_an_origin_widens_where_forms_may_lead() {
    let forms_to =
        ["https://idp.example", "http://127.0.0.1:*", "https://x; script-src *", "javascript:", "*", "https://"];
    let allowed = Allowed { forms_to: forms_to.map(String::from).to_vec(), script: true };
    let policy = allowed.policy();
    let policy = policy.to_str().unwrap();
    assert!(policy.contains("form-action 'self' https://idp.example http://127.0.0.1:*; frame"), "{policy}");
    assert!(policy.contains("script-src 'self'; connect-src 'self';"), "{policy}");
}

#[test]
fn no_template_has_words_of_its_own() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut rest = std::fs::read_to_string(&path).unwrap();
        // First what the renderer takes away, then the elements, whose attributes may be read to somebody.
        let body = ("{% block body %}", "{% endblock %}");
        for (begin, end) in [body, ("{#", "#}"), ("{%", "%}"), ("{{", "}}"), ("<!", ">"), ("<", ">")] {
            while let Some((before, tail)) = rest.split_once(begin) {
                let (within, after) = tail.split_once(end).unwrap_or_else(|| panic!("{}: {begin}", path.display()));
                for read in ["aria-label", "title", "alt", "placeholder"].map(|name| format!(" {name}=\"")) {
                    let value = within.split_once(&read).filter(|_| begin == "<");
                    let value = value.and_then(|(_, value)| value.split('"').next()).unwrap_or_default();
                    assert!(!value.contains(char::is_alphabetic), "{}: {within}", path.display());
                }
                rest = format!("{before} {after}");
            }
        }
        assert!(!rest.contains(char::is_alphabetic), "{}: {:?}", path.display(), rest.trim());
        seen += 1;
    }
    assert!(seen >= 8);
}

#[test]
fn no_template_holds_a_script_or_a_style_of_its_own() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        for line in source.lines() {
            let script = line.contains("<script") && !(line.contains("src=\"/web/") && line.ends_with("</script>"));
            let handler = line.contains(" on") && line.contains("=\"") && line.contains("(");
            let wrong =
                script || handler || line.contains("style=") || line.contains("<style") || line.contains("|safe");
            assert!(!wrong, "{}: {line}", path.display()); // I54
        }
        seen += 1;
    }
    assert!(seen >= 8);
}

fn account() -> Account {
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let (begun, seen, expires) = (at("2026-03-01T08:00:00Z"), at("2026-03-01T09:30:00Z"), at("2026-03-01T16:00:00Z"));
    let factor = |name: &str, kind, last_used| Factor { name: name.into(), kind, added: begun, last_used };
    let session = |id: &str, current, agent: &str| WebSession {
        id: id.into(),
        current,
        agent: agent.into(),
        remote: Some("192.0.2.7:41000".into()),
        begun,
        seen,
        expires,
    };
    Account {
        user: UserName::new("ann").unwrap(),
        has_password: true,
        connector: None,
        fresh: true,
        proof_needed: false,
        second_factor: SecondFactor::Optional,
        keys_possible: true,
        factors: vec![
            factor("phone", FactorKind::Totp, Some(seen)),
            factor("a key with quite a long name that has to be broken somewhere <b>", FactorKind::Webauthn, None),
        ],
        sessions: vec![
            session("1", true, "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"),
            session("2", false, "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 {ends}"),
        ],
        certificates: vec![OwnCertificate { name: "user:tls:4f1c09aa52b1e07d9c3381f0aa12bd77".into(), expires }],
    }
}

/// Every page as it is rendered, in a file that tests in a browser show (`tests/service/pages.rs`) and that reviewers read.
/// `REMOTELER_UPDATE_DOCS=1` writes them.
#[test]
fn the_gallery_shows_each_page_as_it_is_rendered() {
    let connectors = [("Acme Identity", "/web/login/1/acme"), ("GitHub", "/web/login/1/github")]
        .map(|(display, href)| ConnectorLink { display: display.into(), href: href.into() });
    let form = |user, code| Some(LocalForm { action: "/web/login/1/local", token: "t", user, code });
    let purpose = "for tsh on laptop.example";
    let factor = || {
        OfferedFactor {
        image: "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHZpZXdCb3g9IjAgMCA0IDQiPjxwYXRoIGQ9Ik0wIDBoMnYyaDJ2MkgyVjJIMHoiLz48L3N2Zz4=".into(),
        secret: "ABCD EFGH IJKL MNOP QRST UVWX YZ23 4567".into(),
    }
    };
    let invite =
        |error, factor| InvitePage { t: &ENGLISH, user: "ann", error, token: "t", factor, key: None, required: true };
    let key = || Some(OfferedKey { token: "t".into(), options: "{\"publicKey\":{}}".into() });
    let codes = ["abcd-efgh-ijkl-mnop"; 8];
    let (action, token) = ("/web/login/1/confirm", "t");
    let (host, address, code) = ("laptop.example", "192.0.2.7", "K7QM-3XPD");
    let account = account();
    let stale = Account {
        fresh: false,
        factors: Vec::new(),
        certificates: Vec::new(),
        connector: Some("okta".into()),
        ..account.clone()
    };
    let gallery = [
        (
            "login",
            LoginPage { t: &ENGLISH, purpose, error: None, connectors: &connectors, local: form("", false) }.render(),
        ),
        (
            "login-local",
            LoginPage {
                t: &ENGLISH,
                purpose,
                error: Some(&sentence("wrong user name or password")),
                connectors: &[],
                local: form("ann", true),
            }
            .render(),
        ),
        ("login-none", login(None, &[]).render()),
        ("confirm", ConfirmPage { t: &ENGLISH, user: "ann@example.com", host, address, code, action, token }.render()),
        (
            "device",
            DevicePage { t: &ENGLISH, error: Some("No login waits for this code."), code: "K7QM", action, token }
                .render(),
        ),
        ("deliver", DeliverPage { t: &ENGLISH, url: "http://127.0.0.1:9/x?answer=abc", approved: true }.render()),
        ("close", Close { t: &ENGLISH }.render()),
        ("error", Message { t: &ENGLISH, title: ENGLISH.wrong_host_title, text: ENGLISH.wrong_host_text }.render()),
        ("invite", InvitePage { required: false, ..invite(None, None) }.render()),
        (
            "account",
            AccountPage::new(&ENGLISH, &account, token, token, None, Some(ENGLISH.account_done_password)).render(),
        ),
        (
            "account-stale",
            AccountPage::new(&ENGLISH, &stale, token, token, Some("The current password is wrong."), None).render(),
        ),
        (
            "account-prove",
            AccountPage::new(
                &ENGLISH,
                &Account { proof_needed: true, has_password: false, connector: Some("okta".into()), ..account.clone() },
                token,
                token,
                None,
                None,
            )
            .render(),
        ),
        (
            "launch-gate",
            LaunchGatePage { t: &ENGLISH, title: &ENGLISH.launch_gate_title.replace("{app}", "grafana"), token }
                .render(),
        ),
        (
            "launch-factor",
            AppFactorPage {
                t: &ENGLISH,
                title: &ENGLISH.launch_title.replace("{app}", "grafana"),
                error: Some("The code is wrong, or was used already."),
                user: "ann@example.com",
                action: "/web/launch/grafana?state=5a",
                csrf: token,
                codes: true,
                key: Some((token, "{\"publicKey\":{}}")),
            }
            .render(),
        ),
        ("account-gate", AccountGatePage { t: &ENGLISH, token }.render()),
        ("account-onward", OnwardPage { t: &ENGLISH, url: "/web/login/1" }.render()),
        ("account-app", AddAppPage { t: &ENGLISH, token, factor: factor() }.render()),
        (
            "account-key",
            AddKeyPage { t: &ENGLISH, token, key: OfferedKey { token: "t".into(), options: "{}".into() } }.render(),
        ),
        ("account-codes", CodesPage { t: &ENGLISH, codes: &codes }.render()),
        ("invite-choice", InvitePage { key: key(), ..invite(None, Some(factor())) }.render()),
        ("invite-key", InvitePage { key: key(), ..invite(None, None) }.render()),
        (
            "touch",
            TouchPage {
                t: &ENGLISH,
                text: ENGLISH.touch_text,
                csrf: None,
                error: Some("The security key's answer is not the right one; try again."),
                action: "/web/login/1/key",
                token,
                options: "{\"publicKey\":{}}",
                code: true,
            }
            .render(),
        ),
        (
            "session",
            SessionPage {
                t: &ENGLISH,
                error: None,
                user: "ann@example.com",
                place: "db-1",
                login: Some("root"),
                address: Some(address),
                code,
                action: "/web/session/1",
                csrf: token,
                token,
                options: "{\"publicKey\":{}}",
            }
            .render(),
        ),
        ("invite-factor", invite(Some(ENGLISH.passwords_differ), Some(factor())).render()),
        (
            "signed-up",
            SignedUpPage { t: &ENGLISH, codes: &codes, command: "tsh login --proxy=p.example:443 --user=ann" }.render(),
        ),
        (
            "submit",
            SubmitPage {
                t: &ENGLISH,
                action: "https://idp.example/sso",
                provider: "idp.example",
                fields: &[("RelayState", "s"), ("SAMLRequest", "eA==")],
            }
            .render(),
        ),
    ];
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pages");
    for (name, page) in gallery {
        let (path, page) = (dir.join(format!("{name}.html")), page.unwrap());
        if std::env::var_os("REMOTELER_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap_or_default(),
            page,
            "{name}: run with REMOTELER_UPDATE_DOCS=1"
        );
    }
}
