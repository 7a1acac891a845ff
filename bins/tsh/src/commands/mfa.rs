//! `tsh mfa`: one's own second factors. Owns what is asked and shown on the terminal; codes and passwords are judged by the auth service.

use qrcode::{QrCode, render::unicode};
use remoteler_core::{ApiErrorKind, AuthApi, Factor, FactorRemoval, FreshProof, NewFactor, Secret, wire};
use remoteler_ssh::printable;

use super::browser_login;
use crate::{
    context::{Context, block_on, remote_auth},
    output::{self, Format, Table, say},
    password, terminal, trust,
};

pub(crate) fn list(context: &Context, format: Format) -> anyhow::Result<()> {
    let login = context.login()?;
    let factors = block_on(async {
        trust::refresh_when_old(context, &login).await;
        anyhow::Ok(remote_auth(&login)?.factors().await?)
    })??;
    output::print(format, &factors[..], table)
}

pub(crate) fn add(context: &Context, name: String) -> anyhow::Result<()> {
    let login = context.login()?;
    block_on(async {
        trust::refresh_when_old(context, &login).await;
        let auth = remote_auth(&login)?;
        let mut proof = FreshProof { password: own_password(&login)?, code: None };
        let mut offered = auth.offer_factor(proof.clone()).await;
        if needs_code(&offered) {
            proof.code = Some(password::read_code()?);
            offered = auth.offer_factor(proof).await;
        }
        let offered = offered?;
        if let Some(picture) = picture(&offered.uri) {
            say(&picture);
        }
        say(&manual(&offered.secret));
        say("Then type the six digits that it shows.");
        let added = auth.add_factor(NewFactor { name: name.clone(), code: password::read_code()? }).await?;
        say(&format!("{} is a second factor of yours now.", output::safe(&name)));
        if !added.recovery_codes.is_empty() {
            say("Recovery codes, each for one login when the device is lost; they are not shown again:");
            for code in &added.recovery_codes {
                say(&format!("  {}", output::safe(code.reveal())));
            }
        }
        Ok(())
    })?
}

/// Security keys are asked by browsers: the account page sets them up.
pub(crate) fn add_in_browser(context: &Context) -> anyhow::Result<()> {
    let url = account_page(&context.login()?);
    if browser_login::open(&url) {
        say(&format!("Set up the security key in the browser that opens; if none does, open: {}", printable(&url)));
    } else {
        say(&format!("Set up the security key in a browser; open: {}", printable(&url)));
    }
    Ok(())
}

fn account_page(login: &remoteler_client::StoredLogin) -> String {
    format!("https://{}{}", login.profile.proxy, wire::WEB_ACCOUNT)
}

pub(crate) fn remove(context: &Context, name: String) -> anyhow::Result<()> {
    let login = context.login()?;
    block_on(async {
        trust::refresh_when_old(context, &login).await;
        let auth = remote_auth(&login)?;
        let mut removal =
            FactorRemoval { name: name.clone(), proof: FreshProof { password: own_password(&login)?, code: None } };
        let mut answer = auth.remove_factor(removal.clone()).await;
        if needs_code(&answer) {
            removal.proof.code = Some(password::read_code()?);
            answer = auth.remove_factor(removal).await;
        }
        if answer.as_ref().is_err_and(|refusal| refusal.kind == ApiErrorKind::SecurityKeyNeeded) {
            let url = account_page(&login);
            say(&format!("tsh: a security key proves that it is you, in a browser: {}", printable(&url)));
        }
        answer?;
        say(&format!("{} is removed.", output::safe(&name)));
        Ok(())
    })?
}

fn own_password(login: &remoteler_client::StoredLogin) -> anyhow::Result<Secret> {
    password::read(&format!("Password of {}: ", login.profile.user))
}

fn needs_code<T>(answer: &Result<T, remoteler_core::ApiError>) -> bool {
    answer.as_ref().is_err_and(|refusal| refusal.kind == ApiErrorKind::SecondFactorNeeded)
}

/// For who cannot scan. The secret is the server's, and is made harmless for the terminal (I72).
fn manual(secret: &Secret) -> String {
    format!("Scan this with an authenticator app, or type this secret into it: {}", output::safe(secret.reveal()))
}

/// The QR code as text, where somebody can hold a telephone to it.
fn picture(uri: &Secret) -> Option<String> {
    if !terminal::stdin_is_terminal() {
        return None;
    }
    let code = QrCode::new(uri.reveal()).ok()?;
    Some(code.render::<unicode::Dense1x2>().quiet_zone(true).build())
}

fn table(factors: &[Factor]) -> String {
    if factors.is_empty() {
        return "You have no second factor; tsh mfa add sets one up.\n".into();
    }
    let mut table = Table::new(&["NAME", "KIND", "ADDED", "LAST USED"]);
    for Factor { name, kind, added, last_used } in factors {
        let used = last_used.map_or_else(|| "never".to_owned(), |used| used.to_string());
        table.row([name.clone(), kind.as_str().to_owned(), added.to_string(), used]);
    }
    table.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offered_secret_steers_no_terminal() {
        // I72
        let said = manual(&Secret::new("ABCD\u{1b}]0;x\u{7}\n\u{202e}"));
        assert!(said.contains("ABCD") && !said.chars().any(|c| c.is_control() || c == '\u{202e}'), "{said:?}");
    }
}
