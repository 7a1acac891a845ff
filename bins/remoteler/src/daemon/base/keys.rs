//! From the settings about the authorities' keys to the auth service's own. Owns the opening of the token, on a thread that may wait for it.

#[cfg(feature = "pkcs11")]
use anyhow::Context;
use remoteler_auth::AuthConfig;
use remoteler_ca::Suite;

use crate::config::{KeySettings, SuiteName, TokenSettings};

/// `config` with what is said about keys.
pub(super) async fn apply(mut config: AuthConfig, keys: &KeySettings) -> anyhow::Result<AuthConfig> {
    config.keys.suite = keys.suite.map(|suite| match suite {
        SuiteName::Balanced => Suite::Balanced,
        SuiteName::Legacy => Suite::Legacy,
        SuiteName::Token => Suite::Token,
    });
    match &keys.token {
        Some(token) => with_token(config, token.clone()).await,
        None => Ok(config),
    }
}

#[cfg(feature = "pkcs11")]
async fn with_token(config: AuthConfig, token: TokenSettings) -> anyhow::Result<AuthConfig> {
    use remoteler_auth::{NewKeys, TokenConfig};
    use remoteler_ca::TokenChoice;

    use crate::config::TokenName;

    let token = TokenConfig {
        module: token.module,
        token: match token.token {
            TokenName::Label(label) => TokenChoice::Label(label),
            TokenName::Slot(number) => TokenChoice::Slot(number),
        },
        pin_file: token.pin_file,
        new_keys: if token.for_new_keys { NewKeys::InToken } else { NewKeys::InDatabase },
    };
    let opened = tokio::task::spawn_blocking(move || config.with_token(token)).await;
    Ok(opened.context("the token was not opened")??)
}

#[cfg(not(feature = "pkcs11"))]
#[expect(clippy::unused_async, reason = "the other one waits for a token")]
async fn with_token(_: AuthConfig, _: TokenSettings) -> anyhow::Result<AuthConfig> {
    anyhow::bail!(
        "this program was built without PKCS#11: ca_key_params cannot be used; build it with the feature pkcs11"
    )
}
