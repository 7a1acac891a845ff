//! How this host joins: where, by what token or service account, and whom it believes. Owns the checks of these values, and reads a token's file
//! when the token is needed.

use std::path::PathBuf;

use remoteler_core::Secret;

use super::{
    ConfigError, Flags,
    file::{Common, OneOrMany},
    settings::{value, with_port},
};

/// A join token as it was given: itself, or the path of a file that holds it, because an argument list can be read by other users of
/// the machine. Text that begins with `/` or `./`, or names a file that is there, is a path.
#[derive(Clone, Debug)]
pub enum JoinToken {
    /// The token.
    Value(Secret),
    /// Its file.
    File(PathBuf),
}

/// What to do without a token.
const MAKE_TOKEN: &str =
    "make a token with `tctl tokens add --type node` where the auth service runs, and put it there";

impl JoinToken {
    pub(super) fn new(text: &str) -> Self {
        if text.starts_with('/') || text.starts_with("./") || std::path::Path::new(text).is_file() {
            Self::File(text.into())
        } else {
            Self::Value(Secret::new(text))
        }
    }

    /// The token itself.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when the file cannot be read or holds nothing.
    pub fn read(&self) -> Result<Secret, ConfigError> {
        match self {
            Self::Value(token) if token.reveal().trim().is_empty() => {
                Err(value("token", format!("it is empty; {MAKE_TOKEN}")))
            }
            Self::Value(token) => Ok(token.clone()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) if text.trim().is_empty() => {
                    Err(value("token", format!("file {} is empty; {MAKE_TOKEN}", path.display())))
                }
                Ok(text) => Ok(Secret::new(text.trim())),
                Err(cause) => Err(value("token", format!("file {} cannot be read: {cause}", path.display()))),
            },
        }
    }
}

/// Where and how to join.
#[derive(Clone, Debug)]
pub struct JoinSettings {
    /// `host:port` of an auth service or a proxy.
    pub addr: String,
    /// The token; needed at the first start only, and read only then.
    pub token: Option<JoinToken>,
    /// Pins of the host authority, any of which is accepted.
    pub ca_pins: Vec<String>,
    /// Believe whoever answers.
    pub insecure: bool,
    /// File with the token of the pod's service account, when that is what lets this host in.
    pub service_account: Option<PathBuf>,
}

/// Reads what file and flags say; `None` where the auth service is this process's own.
pub(super) fn settings(common: &Common, flags: &Flags) -> Result<Option<JoinSettings>, ConfigError> {
    let Some(addr) = flags.auth_server.clone().or_else(|| common.auth_server.clone()) else {
        return Ok(None);
    };
    let addr = with_port("auth_server", &addr, 3080)?;
    let params = common.join_params.as_ref();
    let token_file = params.and_then(|params| params.token_file.clone());
    let service_account = match params.and_then(|params| params.method.as_deref()) {
        None | Some("token") if token_file.is_some() => {
            return Err(value(
                "join_params.token_file",
                "it goes with method: kubernetes; name the file of a token in token_name",
            ));
        }
        None | Some("token") => None,
        Some("kubernetes") => Some(token_file.unwrap_or_else(|| PathBuf::from(POD_TOKEN))),
        Some(method) => {
            return Err(value("join_params.method", format!("{method:?} is not available; token and kubernetes are")));
        }
    };
    let token = flags.token.clone().or_else(|| params.map(|params| params.token_name.clone()));
    // A pod's token_name is the name of a resource, and no secret.
    let token = token.map(|token| match service_account {
        Some(_) => JoinToken::Value(Secret::new(token)),
        None => JoinToken::new(&token),
    });
    let mut ca_pins = flags.ca_pins.clone();
    if ca_pins.is_empty() {
        ca_pins = common.ca_pin.clone().map(OneOrMany::into_vec).unwrap_or_default();
    }
    for pin in &ca_pins {
        let hex = pin.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(value(
                "ca_pin",
                format!("{pin:?} is no pin; sha256: and 64 hex digits are expected, see `tctl auth status`"),
            ));
        }
    }
    Ok(Some(JoinSettings { addr, token, ca_pins, insecure: flags.insecure, service_account }))
}

/// Where a pod's token for its cluster is projected when nothing else is said.
const POD_TOKEN: &str = "/var/run/secrets/remoteler/token";
