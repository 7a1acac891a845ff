//! The end of a login: who began it shows the grant that only they could open, and gets the certificates, once.

use std::time::Duration;

use remoteler_core::{FollowKey, RedeemLogin, SealedCerts};

use super::{
    conclude::Authenticated,
    records::{Asked, GONE, Stage},
};
use crate::{
    Caller,
    failure::{ApiResult, bad_request, denied, not_found},
    issue::SubjectKeys,
    login::remote,
    secret_hash,
    service::Inner,
    users::UserRecord,
};

const REDEEMED: &str = "certificates were asked for by a login that is unknown, was redeemed already or has expired";

impl Inner {
    pub(crate) async fn redeem_login(&self, caller: &Caller, request: RedeemLogin) -> ApiResult<SealedCerts> {
        let from = remote(caller, request.client_addr.as_deref());
        match self.redeem_once(caller, request).await {
            // A grant that is shown twice was seen by two.
            Err(cause) if cause.message == GONE => {
                self.record_attempt(String::new(), REDEEMED.into(), from).await?;
                Err(cause)
            }
            redeemed => redeemed,
        }
    }

    async fn redeem_once(&self, caller: &Caller, request: RedeemLogin) -> ApiResult<SealedCerts> {
        let (record, _) = self.login_of_client(&request.id, &request.secret).await?;
        let gone = || not_found(GONE);
        let Stage::Approved { who, grant, follow, .. } = record.stage.clone() else { return Err(gone()) };
        let Asked::Certificates { ssh, tls, ttl, .. } = record.asked.clone() else { return Err(gone()) };
        if secret_hash::hash(&request.grant) != grant {
            return Err(gone());
        }
        // From here on nobody else gets anything for this login, also when this fails.
        if !self.end_login(&record).await? {
            return Err(gone());
        }
        let follow = FollowKey::from_text(&follow).ok_or_else(gone)?;
        let remote = remote(caller, request.client_addr.as_deref()).or(record.remote.clone());
        let keys = SubjectKeys::parse(&ssh, &tls)?;
        let user = match self.still_proven(who.username(), record.proven.as_ref()).await {
            Ok(()) => self.user_of_login(&who).await,
            Err(cause) => Err(cause),
        };
        // Who is removed at this moment is let in before that, and what they got is revoked, or not at all.
        let _turn = self.changes.read().await;
        let issue = match user {
            Ok(user) => {
                let there = self.still_there(&user).await;
                there.and_then(|()| self.prepare_login(&user, keys, ttl.map(Duration::from_secs)))
            }
            Err(cause) => Err(cause),
        };
        let issue = match issue {
            Ok(issue) => issue,
            Err(cause) => {
                self.record(who.login_event(Some(cause.message.clone()), remote)).await?;
                return Err(cause);
            }
        };
        self.record(who.login_event(None, remote)).await?;
        if let Authenticated::Provider(_) = &who {
            self.remember_login(&issue).await?;
        }
        let logout_connector = who.connector().filter(|_| who.method() == "oidc").map(str::to_owned);
        let certs = self.finish_login(issue, logout_connector).await?;
        let text = serde_json::to_vec(&certs).map_err(|cause| bad_request(cause.to_string()))?;
        let sealed = follow.seal(&text).map_err(|cause| bad_request(cause.to_string()))?;
        Ok(SealedCerts { sealed })
    }

    /// The user, as the login made it. Asked once more: minutes may have passed since the provider's answer.
    pub(super) async fn user_of_login(&self, who: &Authenticated) -> ApiResult<UserRecord> {
        match who {
            Authenticated::Local(name) => self.local_user(name).await,
            Authenticated::Provider(identity) => {
                // What the provider said was judged by the connector as it was then.
                if self.usable_connector(&identity.connector).await?.digest() != identity.terms {
                    let connector = &identity.connector;
                    return Err(denied(format!("connector {connector} was changed meanwhile; log in again")));
                }
                self.keep_account(identity).await
            }
        }
    }
}
