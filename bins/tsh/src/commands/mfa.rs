//! `tsh mfa`: one's own second factors. Owns what is asked and shown on the terminal; codes and passwords are judged by the auth service.

use qrcode::{QrCode, render::unicode::Dense1x2};
use remoteler_client::{RemoteAuth, StoredLogin};
use remoteler_core::{
    ApiError, ApiErrorKind, AuthApi, Factor, FactorRemoval, FreshProof, NewFactor, OfferedTotp, Secret, wire,
};
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
    let mut login = context.login()?;
    block_on(async {
        trust::refresh_when_old(context, &login).await;
        let offered = proven(context, &mut login, async |auth, proof| auth.offer_factor(proof).await).await?;
        let auth = remote_auth(&login)?;
        show(&offered);
        let added = auth.add_factor(NewFactor { name: name.clone(), code: password::read_code()? }).await?;
        say(&format!("{} is a second factor of yours now.", output::safe(&name)));
        show_recovery_codes(&added.recovery_codes);
        Ok(())
    })?
}

/// What an authenticator app is to be set up with.
pub(super) fn show(offered: &OfferedTotp) {
    if let Some(picture) = picture(&offered.uri) {
        say(&picture);
    }
    say(&manual(&offered.secret));
    say("Then type the six digits that it shows.");
}

pub(super) fn show_recovery_codes(codes: &[Secret]) {
    if codes.is_empty() {
        return;
    }
    say("Recovery codes, each for one login when the device is lost; they are not shown again:");
    for code in codes {
        say(&format!("  {}", output::safe(code.reveal())));
    }
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

fn account_page(login: &StoredLogin) -> String {
    format!("https://{}{}", login.profile.proxy, wire::WEB_ACCOUNT)
}

pub(crate) fn remove(context: &Context, name: String) -> anyhow::Result<()> {
    let mut login = context.login()?;
    block_on(async {
        trust::refresh_when_old(context, &login).await;
        let removal = |proof| FactorRemoval { name: name.clone(), proof };
        proven(context, &mut login, async |auth, proof| auth.remove_factor(removal(proof)).await).await?;
        say(&format!("{} is removed.", output::safe(&name)));
        Ok(())
    })?
}

fn own_password(login: &StoredLogin) -> anyhow::Result<Secret> {
    password::read(&format!("Password of {}: ", login.profile.user))
}

/// Does what needs a proof that the owner is there, and asks for as much of it as the auth service wants: each thing once.
async fn proven<T>(
    context: &Context,
    login: &mut StoredLogin,
    call: impl AsyncFn(RemoteAuth, FreshProof) -> Result<T, ApiError>,
) -> anyhow::Result<T> {
    let mut proof = FreshProof { password: None, code: None };
    let mut logged_in = false;
    loop {
        let refusal = match call(remote_auth(login)?, proof.clone()).await {
            Ok(done) => return Ok(done),
            Err(refusal) => refusal,
        };
        match refusal.kind {
            // An older service cannot read a proof without one.
            ApiErrorKind::PasswordNeeded | ApiErrorKind::BadRequest if proof.password.is_none() => {
                proof.password = Some(own_password(login)?);
            }
            ApiErrorKind::SecondFactorNeeded if proof.code.is_none() => proof.code = Some(password::read_code()?),
            // An identity file is for programs, which log in nowhere.
            ApiErrorKind::FreshLoginNeeded if !logged_in && context.identity.is_none() => {
                say(&format!("tsh: {}", output::safe(&refusal.message)));
                *login = super::login::anew(context, login).await?;
                logged_in = true;
            }
            ApiErrorKind::SecurityKeyNeeded => {
                let url = account_page(login);
                say(&format!("tsh: a security key proves that it is you, in a browser: {}", printable(&url)));
                return Err(refusal.into());
            }
            ApiErrorKind::Unauthenticated
            | ApiErrorKind::Denied
            | ApiErrorKind::NotFound
            | ApiErrorKind::Conflict
            | ApiErrorKind::RateLimited
            | ApiErrorKind::Internal
            | ApiErrorKind::Unavailable
            | _ => return Err(refusal.into()),
        }
    }
}

/// For who cannot scan. The secret is the server's, and is made harmless for the terminal (I72).
fn manual(secret: &Secret) -> String {
    format!("Scan this with an authenticator app, or type this secret into it: {}", output::safe(secret.reveal()))
}

/// The QR code as text, where somebody can hold a telephone to it. Many read dark on light alone, so that both colours are said; where none may be, what is
/// light is drawn, for most terminals write light on dark.
fn picture(uri: &Secret) -> Option<String> {
    if !terminal::stdin_is_terminal() {
        return None;
    }
    let code = QrCode::new(uri.reveal()).ok()?;
    let mut drawn = code.render::<Dense1x2>();
    if !terminal::may_colour() {
        return Some(drawn.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build());
    }
    let rows: Vec<_> = drawn.build().lines().map(|row| format!("\x1b[30;47m{row}\x1b[0m")).collect();
    Some(rows.join("\n"))
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
