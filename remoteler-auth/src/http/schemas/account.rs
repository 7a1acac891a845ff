//! Schemas of one's own account and of security keys.

use serde_json::{Map, Value};

use super::{
    boolean, list,
    logins::{Fields, Variant},
    object, secret, text, time, to,
};

/// Variants of `AccountWish`.
pub(super) fn wishes() -> Vec<Variant> {
    vec![
        ("WishShow", "show", vec![], vec![]),
        ("WishLogIn", "log_in", vec![], vec![]),
        ("WishLogOut", "log_out", vec![], vec![]),
        ("WishOfferTotp", "offer_totp", vec![], vec![]),
        ("WishAddTotp", "add_totp", vec![("name", text()), ("code", secret())], vec![]),
        ("WishOfferKey", "offer_key", vec![], vec![]),
        ("WishAddKey", "add_key", vec![("name", text()), ("token", secret()), ("answer", secret())], vec![]),
        ("WishRemoveFactor", "remove_factor", vec![("name", text())], vec![]),
        ("WishEndSession", "end_session", vec![("id", text())], vec![]),
        ("WishRevokeCertificates", "revoke_certificates", vec![], vec![]),
        ("WishChangePassword", "change_password", vec![("password", secret()), ("new_password", secret())], vec![]),
        ("WishProveByCode", "prove_by_code", vec![("code", secret())], vec![]),
        ("WishAskKey", "ask_key", vec![], vec![]),
        ("WishProveByKey", "prove_by_key", vec![("token", secret()), ("answer", secret())], vec![]),
    ]
}

/// Fields of an account that are always there.
pub(super) fn required() -> Fields {
    vec![
        ("user", text()),
        ("has_password", boolean()),
        ("fresh", boolean()),
        ("proof_needed", boolean()),
        ("second_factor", text()),
        ("keys_possible", boolean()),
        ("factors", list(to("Factor"))),
        ("sessions", list(to("WebSession"))),
        ("certificates", list(to("OwnCertificate"))),
    ]
}

/// Those that may be.
pub(super) fn optional() -> Fields {
    vec![("connector", text())]
}

pub(super) fn add(all: &mut Map<String, Value>) {
    let session = [
        ("id", text()),
        ("current", boolean()),
        ("agent", text()),
        ("begun", time()),
        ("seen", time()),
        ("expires", time()),
    ];
    all.insert("WebSession".to_owned(), object(&session, &[("remote", text())]));
    all.insert("OwnCertificate".to_owned(), object(&[("name", text()), ("expires", time())], &[]));
}

#[cfg(test)]
pub(super) mod tests {
    use remoteler_core::{
        Account, AccountWish, BrowserAction, BrowserView, Factor, FactorAdded, FactorKind, OfferedTotp, OwnCertificate,
        SecondFactor, Secret, SignedUp, Timestamp, UserName, WebSession,
    };
    use serde::Serialize;
    use serde_json::Value;

    fn value<T: Serialize>(value: T) -> Value {
        serde_json::to_value(value).unwrap()
    }

    /// Values with every optional field set, by schema.
    pub(in crate::http::schemas) fn samples() -> Vec<(&'static str, Value)> {
        let (text, secret) = (|| "x".to_owned(), || Secret::new("s"));
        let (user, now) = (UserName::new("ann").unwrap(), Timestamp::default());
        let session = WebSession {
            id: text(),
            current: true,
            agent: text(),
            remote: Some(text()),
            begun: now,
            seen: now,
            expires: now,
        };
        let certificate = OwnCertificate { name: text(), expires: now };
        let factor = Factor { name: text(), kind: FactorKind::Webauthn, added: now, last_used: Some(now) };
        let account = Account {
            user: user.clone(),
            has_password: true,
            connector: Some(text()),
            fresh: true,
            proof_needed: true,
            second_factor: SecondFactor::On,
            keys_possible: true,
            factors: vec![factor],
            sessions: vec![session.clone()],
            certificates: vec![certificate.clone()],
        };
        let codes = vec![secret()];
        let wish = |wish: AccountWish| value(wish);
        vec![
            ("WebSession", value(session)),
            ("OwnCertificate", value(certificate)),
            ("ViewAccount", value(BrowserView::Account(Box::new(account)))),
            ("ViewSignedUp", value(BrowserView::SignedUp(SignedUp { user, recovery_codes: codes.clone() }))),
            ("ViewSessionBegun", value(BrowserView::SessionBegun { session: secret() })),
            ("ViewNoSession", value(BrowserView::NoSession)),
            ("ViewNothing", value(BrowserView::Nothing)),
            ("ViewTotpOffer", value(BrowserView::TotpOffer(OfferedTotp { secret: secret(), uri: secret() }))),
            ("ViewCodes", value(BrowserView::Codes(FactorAdded { recovery_codes: codes }))),
            ("ViewKeyOffer", value(BrowserView::KeyOffer { token: secret(), options: text() })),
            (
                "ViewTouch",
                value(BrowserView::Touch {
                    id: text(),
                    token: secret(),
                    options: text(),
                    code: true,
                    error: Some(text()),
                }),
            ),
            (
                "BrowserKey",
                value(BrowserAction::Key { id: text(), token: secret(), answer: Some(secret()), code: Some(secret()) }),
            ),
            ("BrowserOfferKey", value(BrowserAction::OfferKey { invite: secret() })),
            (
                "BrowserSignUpByKey",
                value(BrowserAction::SignUpByKey {
                    invite: secret(),
                    password: secret(),
                    token: secret(),
                    answer: secret(),
                }),
            ),
            (
                "BrowserAccount",
                value(BrowserAction::Account { session: Some(secret()), agent: text(), wish: AccountWish::Show }),
            ),
            ("WishShow", wish(AccountWish::Show)),
            ("WishLogIn", wish(AccountWish::LogIn)),
            ("WishLogOut", wish(AccountWish::LogOut)),
            ("WishOfferTotp", wish(AccountWish::OfferTotp)),
            ("WishAddTotp", wish(AccountWish::AddTotp { name: text(), code: secret() })),
            ("WishOfferKey", wish(AccountWish::OfferKey)),
            ("WishAddKey", wish(AccountWish::AddKey { name: text(), token: secret(), answer: secret() })),
            ("WishRemoveFactor", wish(AccountWish::RemoveFactor { name: text() })),
            ("WishEndSession", wish(AccountWish::EndSession { id: text() })),
            ("WishRevokeCertificates", wish(AccountWish::RevokeCertificates)),
            ("WishChangePassword", wish(AccountWish::ChangePassword { password: secret(), new_password: secret() })),
            ("WishProveByCode", wish(AccountWish::ProveByCode { code: secret() })),
            ("WishAskKey", wish(AccountWish::AskKey)),
            ("WishProveByKey", wish(AccountWish::ProveByKey { token: secret(), answer: secret() })),
        ]
    }
}
