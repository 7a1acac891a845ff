//! `tsh signup`: at a terminal what the page behind a sign-up link does. Owns what is asked and shown, and in which order; passwords and codes are judged by
//! the auth service, and nothing is kept here.

use std::io::{self, BufRead as _, Read as _};

use anyhow::{Context as _, bail};
use remoteler_client::{ProxyAddr, WebClient, WebTrust};
use remoteler_core::{ApiErrorKind, FactorKind, Invited, OfferedTotp, Secret, SignUpRequest, SignedUp, wire};

use super::mfa;
use crate::{
    context::{Context, block_on},
    output::{ask, safe, say},
    password, terminal,
};

/// Passwords or codes that may be refused.
const TRIES: usize = 5;
/// Where a link without a port leads, as in a browser.
const HTTPS: u16 = 443;

pub(crate) fn run(context: &Context, link: Option<Secret>) -> anyhow::Result<()> {
    let link = link.map_or_else(password::read_link, Ok)?;
    let Link { proxy, token } = Link::parse(link.reveal().trim()).context(NO_LINK)?;
    if let Some(other) = context.common.proxy.as_ref().filter(|other| **other != proxy) {
        bail!("the link is of {proxy}, and --proxy or TSH_PROXY says {other}; leave that out");
    }
    let trust = if context.common.insecure {
        say(&format!(
            "tsh: --insecure: the certificate of {proxy} is not checked; who is in the path sees link, password and second factor, and can sign up in your place"
        ));
        WebTrust::Insecure
    } else {
        WebTrust::SystemRoots
    };
    block_on(async {
        let web = WebClient::new(&proxy, trust)?;
        let invited = web.invited_user(&token).await?;
        let user = invited.user.clone();
        if let Some(other) = context.common.user.as_ref().filter(|other| **other != user) {
            bail!("the link is for {user}, and --user or TSH_USER says {other}; leave that out");
        }
        let SignedUp { recovery_codes, .. } = sign_up(&web, &proxy, token, invited).await?;
        say(&format!("{user} has an account at {proxy} now."));
        mfa::show_recovery_codes(&recovery_codes);
        let insecure = if context.common.insecure { " --insecure" } else { "" };
        say(&format!("Log in with: tsh login --proxy {proxy} --user {user}{insecure}"));
        Ok(())
    })?
}

/// Asks for what is wanted, and again for what is refused.
async fn sign_up(web: &WebClient, proxy: &ProxyAddr, token: Secret, invited: Invited) -> anyhow::Result<SignedUp> {
    let Invited { user, second_factor, totp } = invited;
    if second_factor.is_required() && !second_factor.takes(FactorKind::Totp) {
        bail!("{proxy} wants a security key as the second factor, which is set up in a browser: open the link there");
    }
    say(&format!(
        "The account is {user} at {proxy}. A password has at least 8 characters; several words that do not belong together are good."
    ));
    let mut request = SignUpRequest { token, password: password::read_new(&user)?, code: None };
    if let Some(offered) = wished(totp, second_factor.is_required())? {
        if second_factor.takes(FactorKind::Webauthn) {
            say(
                "A security key instead of an app is set up in a browser: end this with Ctrl-C and open the link there.",
            );
        }
        mfa::show(&offered);
        request.code = Some(password::read_code()?);
    }
    for _ in 1..TRIES {
        let refusal = match web.sign_up(&request).await {
            Ok(done) => return Ok(done),
            Err(refusal) => refusal,
        };
        let about_code = refusal.kind == ApiErrorKind::SecondFactorNeeded;
        if !(terminal::can_ask() && (about_code || refusal.kind == ApiErrorKind::BadRequest)) {
            return Err(refusal.into());
        }
        say(&format!("tsh: {}", safe(&refusal.message)));
        if about_code {
            request.code = Some(password::read_code()?);
        } else {
            request.password = password::read_new(&user)?;
        }
    }
    Ok(web.sign_up(&request).await?)
}

/// The factor that is to be set up: because everybody needs one, or because it is wished for. Who cannot be asked wishes for none.
fn wished(offered: Option<OfferedTotp>, required: bool) -> anyhow::Result<Option<OfferedTotp>> {
    let Some(offered) = offered else { return Ok(None) };
    if required {
        return Ok(Some(offered));
    }
    if !terminal::can_ask() {
        return Ok(None);
    }
    ask("Set up an authenticator app as a second factor? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer).context("the answer cannot be read")?;
    let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    Ok(yes.then_some(offered))
}

const MAX_ANSWER: u64 = 64;
/// Never with what was typed: a link that is cut short is a secret still.
const NO_LINK: &str = "this is no sign-up link; one looks like https://PROXY:PORT/web/invite/ with letters and digits behind it, and is made by: tctl users add";

/// A sign-up link.
struct Link {
    proxy: ProxyAddr,
    token: Secret,
}

impl Link {
    fn parse(text: &str) -> Option<Self> {
        let (authority, path) = text.strip_prefix("https://")?.split_once('/')?;
        let (before, _) = wire::WEB_INVITE.strip_prefix('/')?.split_once('{')?;
        let token = path.strip_prefix(before)?;
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|c| c.is_ascii_alphanumeric()) {
            return None;
        }
        let with_port = authority.rsplit_once(':').is_some_and(|(host, _)| host.ends_with(']') || !host.contains(':'));
        let proxy =
            if with_port { authority.parse() } else { format!("{authority}:{HTTPS}").parse::<ProxyAddr>() }.ok()?;
        Some(Self { proxy, token: Secret::new(token) })
    }
}

const MAX_TOKEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_one_of_a_proxy_and_a_browsers_port_is_its_port() {
        for (text, proxy) in [
            ("https://proxy.example.com:3080/web/invite/f00d", "proxy.example.com:3080"),
            ("https://proxy.example.com/web/invite/f00d", "proxy.example.com:443"),
            ("https://[::1]:3080/web/invite/f00d", "[::1]:3080"),
            ("https://[::1]/web/invite/f00d", "[::1]:443"),
        ] {
            let link = Link::parse(text).unwrap();
            assert_eq!((link.proxy.to_string().as_str(), link.token.reveal()), (proxy, "f00d"), "{text}");
        }
        for wrong in [
            "",
            "f00d",
            "http://proxy.example.com/web/invite/f00d",
            "https://proxy.example.com/web/invite/",
            "https://proxy.example.com/web/invite/f00d/",
            "https://proxy.example.com/web/invite/f00d?x",
            "https://proxy.example.com/web/invite/../login",
            "https://proxy.example.com/web/login/f00d",
            "https://ann@proxy.example.com/web/invite/f00d",
            "https://-proxy/web/invite/f00d",
            "https:///web/invite/f00d",
        ] {
            assert!(Link::parse(wrong).is_none(), "{wrong}");
        }
    }
}
