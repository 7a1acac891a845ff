//! Security keys and what devices hold instead of them, as WebAuthn Level 2 asks and judges them. Owns under which names they are asked and what of an answer
//! is believed (I48); a function of question, answer and site: what is kept between the two, and that it is taken once, its caller sees to.

use remoteler_core::Secret;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;
use webauthn_rs::prelude::{
    AuthenticationResult, Credential, PublicKeyCredential, RegisterPublicKeyCredential, SecurityKey,
    SecurityKeyAuthentication, SecurityKeyRegistration, Url, Webauthn, WebauthnBuilder, WebauthnError,
};

/// The site that keys are registered with: the host under which a browser reached the proxy, and the one origin that answers may come from.
pub(crate) struct Site {
    host: String,
    webauthn: Webauthn,
}

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    /// Not JSON of an answer.
    #[error("the security key's answer cannot be read; try again")]
    Unreadable,
    /// For another question, site or user, or with a wrong signature.
    #[error("the security key's answer is not the right one; try again")]
    Wrong,
    /// The person was not verified by a key that can.
    #[error("the security key did not check that it is you; unlock it with its PIN or your finger and try again")]
    NotVerified,
    /// Its counter went back.
    #[error(
        "the security key's counter went back, as that of a copy does; remove the key from your account and ask an administrator"
    )]
    Cloned,
    /// The question could not be put.
    #[error("security keys cannot be asked here")]
    Impossible,
}

/// Longest answer that is read.
const MAX_ANSWER: usize = 16 * 1024;

impl Site {
    /// The site of `origin`, `https://HOST[:PORT]`. There is none for an IP address: keys are for names.
    pub(crate) fn of_origin(cluster: &str, origin: &str) -> Option<Self> {
        let url = Url::parse(origin).ok().filter(|url| url.scheme() == "https")?;
        let host = url.domain()?.to_owned();
        let webauthn = WebauthnBuilder::new(&host, &url).ok()?.rp_name(&format!("Remoteler {cluster}")).build().ok()?;
        Some(Self { host, webauthn })
    }

    /// Under which name keys are kept (`rpId`).
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Asks for a new key of a user; `known` are those there are. Gives the options for the browser, and what their answer is judged by.
    pub(crate) fn offer(
        &self,
        cluster: &str,
        user: &str,
        known: &[SecurityKey],
    ) -> Result<(String, SecurityKeyRegistration), KeyFault> {
        let known = known.iter().map(|key| key.cred_id().clone()).collect();
        let (mut options, state) = self
            .webauthn
            .start_securitykey_registration(handle(cluster, user), user, user, Some(known), None, None)
            .map_err(|_| KeyFault::Impossible)?;
        // What the browser proposes first is its own matter: what is built into a device counts as much.
        options.public_key.hints = None;
        // Of these the library asks for a protection that browsers refuse where the verification of the person is preferred and not required.
        options.public_key.extensions = None;
        Ok((json(&options)?, state))
    }

    /// The key that answered an offer.
    pub(crate) fn register(&self, answer: &Secret, state: &SecurityKeyRegistration) -> Result<SecurityKey, KeyFault> {
        let answer: RegisterPublicKeyCredential = read(answer)?;
        self.webauthn.finish_securitykey_registration(&answer, state).map_err(|cause| fault_of(&cause))
    }

    /// Asks for one of these keys.
    pub(crate) fn ask(&self, keys: &[SecurityKey]) -> Result<(String, SecurityKeyAuthentication), KeyFault> {
        let asked = self.webauthn.start_securitykey_authentication(keys).map_err(|_| KeyFault::Impossible)?;
        let (mut options, state) = asked;
        options.public_key.hints = None;
        Ok((json(&options)?, state))
    }

    /// What the answer to a question proves; counters are compared once more with those that are stored ([`counted`]).
    pub(crate) fn judge(
        &self,
        answer: &Secret,
        state: &SecurityKeyAuthentication,
    ) -> Result<AuthenticationResult, KeyFault> {
        let answer: PublicKeyCredential = read(answer)?;
        self.webauthn.finish_securitykey_authentication(&answer, state).map_err(|cause| fault_of(&cause))
    }
}

/// Counts the use of a key (WebAuthn Level 2 section 7.2, step 21).
///
/// # Errors
/// [`KeyFault::Cloned`]; the key stays as it was.
pub(crate) fn counted(key: &mut SecurityKey, used: &AuthenticationResult) -> Result<(), KeyFault> {
    let known = Credential::from(key.clone()).counter;
    if (known > 0 || used.counter() > 0) && used.counter() <= known {
        return Err(KeyFault::Cloned);
    }
    key.update_credential(used).map(drop).ok_or(KeyFault::Wrong)
}

/// What authenticators know a user by: the same each time, and without meaning to others.
fn handle(cluster: &str, user: &str) -> Uuid {
    let hash = digest(&SHA256, format!("remoteler webauthn user\0{cluster}\0{user}").as_bytes());
    let octets = hash.as_ref().get(..16).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
    Uuid::from_bytes(octets.unwrap_or_default())
}

fn json(options: &impl Serialize) -> Result<String, KeyFault> {
    serde_json::to_string(options).map_err(|_| KeyFault::Impossible)
}

fn read<T: serde::de::DeserializeOwned>(answer: &Secret) -> Result<T, KeyFault> {
    let text = answer.reveal();
    if text.len() > MAX_ANSWER {
        return Err(KeyFault::Unreadable);
    }
    serde_json::from_str(text).map_err(|_| KeyFault::Unreadable)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's other reasons are one to who asks")]
fn fault_of(cause: &WebauthnError) -> KeyFault {
    match cause {
        WebauthnError::CredentialPossibleCompromise => KeyFault::Cloned,
        WebauthnError::UserNotVerified => KeyFault::NotVerified,
        _ => KeyFault::Wrong,
    }
}

#[cfg(test)]
mod made_answers;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_names_over_tls_alone() {
        for (origin, host) in [
            ("https://proxy.example.com", Some("proxy.example.com")),
            ("https://proxy.example.com:3080", Some("proxy.example.com")),
            ("https://localhost:3080", Some("localhost")),
            ("https://192.0.2.1:3080", None),
            ("https://[::1]:3080", None),
            ("http://proxy.example.com", None),
            ("proxy.example.com", None),
        ] {
            assert_eq!(Site::of_origin("root", origin).map(|site| site.host().to_owned()).as_deref(), host, "{origin}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none_however_it_looks() {
        let site = Site::of_origin("root", "https://proxy.example.com").unwrap();
        let (options, state) = site.offer("root", "ann", &[]).unwrap();
        assert!(options.contains("\"publicKey\"") && options.contains("\"proxy.example.com\""), "{options}");
        for wrong in ["", "{}", "null", "[]", &"[".repeat(1000), &" ".repeat(MAX_ANSWER + 1)] {
            assert_eq!(site.register(&Secret::new(wrong), &state).unwrap_err(), KeyFault::Unreadable, "{wrong:.20}");
        }
        let empty =
            r#"{"id":"","rawId":"","type":"public-key","response":{"attestationObject":"","clientDataJSON":""}}"#;
        assert_eq!(site.register(&Secret::new(empty), &state).unwrap_err(), KeyFault::Wrong);
    }

    #[test]
    fn each_question_is_another_one() {
        let site = Site::of_origin("root", "https://proxy.example.com").unwrap();
        let offers = [(); 2].map(|()| site.offer("root", "ann", &[]).unwrap().0);
        assert_ne!(offers[0], offers[1]);
        assert_ne!(handle("root", "ann"), handle("root", "bob"));
    }
}
