//! Where every way to log in through a browser comes together: who was proven is looked at once, by the same rules, and the login goes on to be confirmed.
//! Owns what was proven and the reasons of a refusal; issues nothing.

use std::collections::BTreeSet;

use remoteler_core::{ApiError, ApiErrorKind, AuditKind, BrowserView, ConnectorReport, RoleName, Traits, UserName};
use serde::{Deserialize, Serialize};

use super::{
    connectors::Connector,
    records::{Asked, GONE, LoginRecord, Stage},
    steps::{confirm_path, finished},
};
use crate::{
    failure::{ApiResult, denied, not_found},
    service::Inner,
    users::{UserRecord, check_traits},
};

/// Who somebody was proven to be, by any way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Authenticated {
    /// A user of ours, by password and second factor; roles and traits are those on record.
    Local(UserName),
    /// Somebody whom an identity provider vouches for.
    Provider(Box<ProviderIdentity>),
}

/// Whom a provider vouches for: account (connector, issuer, subject), and what is made of the claims at this login (I39, I42).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProviderIdentity {
    /// `oidc`, `github` or `saml`.
    pub(crate) method: String,
    pub(crate) connector: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// The name the account gets at its first login.
    pub(crate) username: UserName,
    pub(crate) roles: BTreeSet<RoleName>,
    pub(crate) traits: Traits,
    /// Digest of the connector under which this holds.
    #[serde(default)]
    pub(crate) terms: String,
}

/// Who it is, and how that came about, for a test of the connector.
pub(crate) type Proven = (Authenticated, ConnectorReport);

/// Why nobody was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginFault {
    /// For the page and for `tsh`; nothing that a provider or the network said (I43).
    pub(crate) said: String,
    /// For the audit log.
    pub(crate) detail: String,
}

impl LoginFault {
    /// With the same words for everybody.
    pub(crate) fn said(said: impl Into<String>) -> Self {
        let said = said.into();
        Self { detail: said.clone(), said }
    }

    /// With words for the audit log.
    pub(crate) fn with(said: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        let said = said.into();
        Self { detail: format!("{said}: {detail}"), said }
    }
}

impl Authenticated {
    /// As the connector judged it that is read now.
    pub(super) fn under(self, connector: &Connector) -> Self {
        match self {
            Self::Local(name) => Self::Local(name),
            Self::Provider(identity) => {
                Self::Provider(Box::new(ProviderIdentity { terms: connector.digest(), ..*identity }))
            }
        }
    }

    /// That this one logged in, or was not let in and why.
    pub(super) fn login_event(&self, refused: Option<String>, remote: Option<String>) -> AuditKind {
        AuditKind::UserLogin {
            user: self.username().to_string(),
            method: self.method().to_owned(),
            success: refused.is_none(),
            error: refused,
            connector: self.connector().map(str::to_owned),
            remote,
        }
    }

    pub(crate) fn username(&self) -> &UserName {
        match self {
            Self::Local(name) => name,
            Self::Provider(identity) => &identity.username,
        }
    }

    pub(crate) fn method(&self) -> &str {
        match self {
            Self::Local(_) => "local",
            Self::Provider(identity) => &identity.method,
        }
    }

    pub(crate) fn connector(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Provider(identity) => Some(&identity.connector),
        }
    }
}

impl Inner {
    /// Goes on with login `id` for who was proven: everything that would refuse the certificates is asked now, so that it is said on the page. The
    /// next page asks for confirmation; of a test the report is kept, and nothing else.
    pub(crate) async fn conclude(
        &self,
        id: &str,
        who: Authenticated,
        mut report: ConnectorReport,
    ) -> ApiResult<BrowserView> {
        let (mut record, revision) = self.login_at(id).await?;
        if !matches!(record.stage, Stage::Open) {
            return Err(not_found(GONE));
        }
        let (connector, name) = (who.connector().unwrap_or_default().to_owned(), who.username().clone());
        let admitted = self.admit_authenticated(who).await;
        if let Asked::Report(_) = &record.asked {
            match admitted {
                Ok((user, _)) => report.user = Some(user.username().to_string()),
                Err(cause) => report.refused = Some(cause.message),
            }
            record.stage = Stage::Tested(Box::new(report));
            self.move_login(&record, revision).await?;
            return Ok(finished(true, "The test is over; see the terminal. You may close this tab."));
        }
        if let (true, Ok((who, _))) = (record.is_for_account(), &admitted) {
            return self.begin_web_session(&record, who).await;
        }
        match admitted {
            Ok((who, _)) => {
                record.proven = self.mark_of(who.username()).await?;
                record.stage = Stage::Confirming(who);
                self.move_login(&record, revision).await?;
                Ok(BrowserView::Redirect { to: confirm_path(id) })
            }
            Err(cause) => {
                let fault = LoginFault::said(cause.message);
                Err(self.login_of_failed(id, &connector, Some(&name), fault).await?)
            }
        }
    }

    /// The end of a login for the account page: there is nothing to confirm, for nothing goes to another program.
    async fn begin_web_session(&self, record: &LoginRecord, who: &Authenticated) -> ApiResult<BrowserView> {
        // From here on nobody else gets anything for this login, also when this fails.
        if !self.end_login(record).await? {
            return Err(not_found(GONE));
        }
        let user = self.user_of_login(who).await?;
        let _turn = self.changes.read().await;
        self.still_there(&user).await?;
        self.record(who.login_event(None, record.remote.clone())).await?;
        let session = self.open_web_session(&user, &record.host, record.remote.clone()).await?;
        Ok(BrowserView::SessionBegun { session })
    }

    /// The account of who was proven, and the user it is now: roles exist, nobody is locked, the name is theirs.
    pub(super) async fn admit_authenticated(&self, who: Authenticated) -> ApiResult<(Authenticated, UserRecord)> {
        let (who, user) = match who {
            Authenticated::Local(name) => {
                let user = self.local_user(&name).await?;
                (Authenticated::Local(name), user)
            }
            Authenticated::Provider(mut identity) => {
                check_traits(&identity.traits)?;
                if identity.roles.is_empty() {
                    return Err(denied(format!(
                        "connector {} gives {} no role; an administrator can see why with tctl sso test",
                        identity.connector, identity.username
                    )));
                }
                let user = self.user_of_account(&identity).await?;
                identity.username = user.name.clone();
                (Authenticated::Provider(identity), user)
            }
        };
        self.admitted_identity(&user)?;
        Ok((who, user))
    }

    /// Ends a login because nobody was proven: audited, and told to who waits. Gives the error for the page.
    pub(crate) async fn login_failed(&self, id: &str, connector: &str, fault: LoginFault) -> ApiResult<ApiError> {
        self.login_of_failed(id, connector, None, fault).await
    }

    /// As [`Inner::login_failed`], of somebody who was proven and is not let in. A login that is past its proof stays as it is.
    async fn login_of_failed(
        &self,
        id: &str,
        connector: &str,
        user: Option<&UserName>,
        fault: LoginFault,
    ) -> ApiResult<ApiError> {
        let (record, revision) = self.login_at(id).await?;
        if !matches!(record.stage, Stage::Open) {
            return Ok(denied(fault.said));
        }
        // A connector that is broken is no reason to keep who waits in the dark.
        let method = match self.connector(connector).await.ok().flatten() {
            Some(connector) => connector.kind().as_str().to_owned(),
            None if connector.is_empty() => "local".to_owned(),
            None => "sso".to_owned(),
        };
        self.record(AuditKind::UserLogin {
            user: user.map(ToString::to_string).unwrap_or_default(),
            method,
            success: false,
            error: Some(fault.detail),
            connector: Some(connector.to_owned()).filter(|name| !name.is_empty()),
            remote: record.remote.clone(),
        })
        .await?;
        self.move_login(&LoginRecord { stage: Stage::Refused(fault.said.clone()), ..record }, revision).await?;
        Ok(denied(fault.said))
    }

    /// Ends a login whose refusal is on record already: who waits is told.
    pub(crate) async fn tell_refused(&self, id: &str, said: &str) -> ApiResult<()> {
        let (record, revision) = self.login_at(id).await?;
        if matches!(record.stage, Stage::Open) {
            self.move_login(&LoginRecord { stage: Stage::Refused(said.to_owned()), ..record }, revision).await?;
        }
        Ok(())
    }

    /// The connector of a login whose browser did not choose it. When it cannot be used any more, the login ends.
    pub(super) async fn connector_or_end(&self, id: &str, name: &str) -> ApiResult<Connector> {
        match self.usable_connector(name).await {
            Err(cause)
                if matches!(cause.kind, ApiErrorKind::Denied | ApiErrorKind::NotFound | ApiErrorKind::BadRequest) =>
            {
                Err(self.login_failed(id, name, LoginFault::said(cause.message)).await?)
            }
            other => other,
        }
    }
}

/// What a stranger said, for the audit log and for pages: its plain ASCII, and not much of it. (Core's `printable` keeps all of a text.)
pub(super) fn excerpt(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(200).collect()
}
