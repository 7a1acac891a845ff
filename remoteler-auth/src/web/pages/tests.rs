//! What every page must hold.

use axum::body::Body;
use http_body_util::BodyExt;

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
