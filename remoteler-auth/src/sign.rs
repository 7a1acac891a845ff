//! Certificates on an administrator's word. Owns who may ask, and that everything said of a user comes from the user's record (I9); the
//! content of certificates is checked by their profiles, and all pass the gate of [`crate::issue`].

use std::{net::IpAddr, sync::Arc, time::Duration};

use remoteler_ca::{
    DatabaseProfile, KubeProfile, OpensshHostProfile, OpensshUserProfile, ServerProfile, SmartCardProfile,
};
use remoteler_core::{CaKind, Role, SignRequest, SignedCertificates, Timestamp, UserIdentity, UserName, Verb};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, conflict, not_found},
    issue::{About, SubjectKeys, asked_life},
    records::key,
    service::Inner,
    users::UserRecord,
};

/// What a role's rules call certificates for users and for hosts.
const USER_CERTIFICATE: &str = "user_cert";
const HOST_CERTIFICATE: &str = "host_cert";
/// The user's traits that list accounts elsewhere.
const DATABASE_USERS: &str = "db_users";
const WINDOWS_USERS: &str = "windows_logins";
/// Most names in a request; the profiles allow fewer.
const MAX_NAMES: usize = 256;

/// A stored user, with all roles.
struct Holder {
    record: UserRecord,
    roles: Vec<Arc<Role>>,
    identity: UserIdentity,
}

/// What was issued, before the cluster's own facts are added.
struct Issued {
    ssh: Option<String>,
    tls: Option<String>,
    subject: String,
    expires: Option<Timestamp>,
    identity: Option<UserIdentity>,
    logins: Vec<String>,
}

impl Inner {
    pub(crate) async fn sign_certificates(
        &self,
        caller: &Caller,
        request: SignRequest,
    ) -> ApiResult<SignedCertificates> {
        let kind = match &request {
            SignRequest::OpensshHost { .. } | SignRequest::Server { .. } => HOST_CERTIFICATE,
            SignRequest::User { .. }
            | SignRequest::OpensshUser { .. }
            | SignRequest::Kubernetes { .. }
            | SignRequest::Database { .. }
            | SignRequest::SmartCard { .. } => USER_CERTIFICATE,
        };
        let by = self.admit(caller, kind, Verb::Create).await?;
        if matches!(request, SignRequest::Kubernetes { needs_proxy: true, .. }) && self.proxy_addr().await.is_none() {
            return Err(conflict("no certificate was issued: no proxy has told its address yet; give it with --proxy"));
        }
        // Of a user who is removed at this moment, it is before that, and revoked, or not at all.
        let turn = self.changes.read().await;
        let Issued { ssh, tls, subject, expires, identity, logins } = self.sign(by, request).await?;
        drop(turn);
        Ok(SignedCertificates {
            ssh_certificate: ssh,
            tls_certificate: tls,
            subject,
            expires,
            roles: identity.map(|identity| identity.roles).unwrap_or_default(),
            logins,
            trust: self.issuer.trust(),
            proxy_addr: self.proxy_addr().await,
        })
    }

    async fn sign(&self, by: String, request: SignRequest) -> ApiResult<Issued> {
        match request {
            SignRequest::User { user, ssh_public_key, tls_public_key, ttl_seconds } => {
                let keys = SubjectKeys::parse(&ssh_public_key, &tls_public_key)?;
                self.sign_user(by, &user, keys, asked_life(ttl_seconds)?).await
            }
            SignRequest::OpensshUser { user, ssh_public_key, ttl_seconds } => {
                self.sign_openssh_user(by, &user, &ssh_public_key, asked_life(ttl_seconds)?).await
            }
            SignRequest::Kubernetes { user, kube_cluster, tls_public_key, ttl_seconds, needs_proxy: _ } => {
                let tls_key = self.issuer.tls_key(&tls_public_key)?;
                let ttl = asked_life(ttl_seconds)?;
                self.sign_for_elsewhere(by, &user, ttl, |holder, not_after| {
                    let profile = KubeProfile {
                        identity: holder.identity.clone(),
                        kube_cluster: kube_cluster.clone(),
                        tls_key,
                        not_after,
                        proven: None,
                    };
                    let issue = self.issuer.prepare_single(CaKind::User, |authority, now, entropy| {
                        profile.prepare(authority, now, entropy)
                    })?;
                    Ok((issue, user.to_string()))
                })
                .await
            }
            SignRequest::Database { user, database_user, tls_public_key, ttl_seconds } => {
                let tls_key = self.issuer.tls_key(&tls_public_key)?;
                let ttl = asked_life(ttl_seconds)?;
                self.sign_for_elsewhere(by, &user, ttl, |holder, not_after| {
                    let database_user = holder.account(DATABASE_USERS, "--db-user", database_user)?;
                    let profile = DatabaseProfile { database_user: database_user.clone(), tls_key, not_after };
                    let issue = self.issuer.prepare_single(CaKind::User, |authority, now, entropy| {
                        profile.prepare(authority, now, entropy)
                    })?;
                    Ok((issue, database_user))
                })
                .await
            }
            SignRequest::SmartCard { user, windows_user, domain, sid, crl_url, tls_public_key, ttl_seconds } => {
                let tls_key = self.issuer.tls_key(&tls_public_key)?;
                let ttl = asked_life(ttl_seconds)?;
                self.sign_for_elsewhere(by, &user, ttl, |holder, not_after| {
                    let windows_user = holder.account(WINDOWS_USERS, "--windows-user", windows_user)?;
                    let subject = format!("{windows_user}@{domain}");
                    let profile = SmartCardProfile { windows_user, domain, sid, crl_url, tls_key, not_after };
                    let issue = self.issuer.prepare_single(CaKind::User, |authority, now, entropy| {
                        profile.prepare(authority, now, entropy)
                    })?;
                    Ok((issue, subject))
                })
                .await
            }
            SignRequest::OpensshHost { names, ssh_public_key, ttl_seconds } => {
                self.sign_openssh_host(by, names, &ssh_public_key, asked_life(ttl_seconds)?).await
            }
            SignRequest::Server { names, tls_public_key, ttl_seconds } => {
                self.sign_server(by, names, &tls_public_key, asked_life(ttl_seconds)?).await
            }
        }
    }

    async fn sign_user(
        &self,
        by: String,
        user: &UserName,
        keys: SubjectKeys,
        ttl: Option<Duration>,
    ) -> ApiResult<Issued> {
        let Holder { roles, identity, .. } = self.holder(user).await?;
        let issue = self.issuer.prepare_user(identity.clone(), &roles, keys, ttl)?.asked_by(by);
        let expires = issue.expires();
        let issued = self.issuer.issue_user(issue).await?;
        Ok(Issued {
            ssh: Some(issued.ssh_certificate),
            tls: Some(issued.tls_certificate_pem),
            subject: user.to_string(),
            expires: Some(expires),
            logins: identity.logins.iter().map(ToString::to_string).collect(),
            identity: Some(identity),
        })
    }

    async fn sign_openssh_user(
        &self,
        by: String,
        user: &UserName,
        key: &str,
        ttl: Option<Duration>,
    ) -> ApiResult<Issued> {
        let ssh_key = self.issuer.ssh_key(key)?;
        let holder = self.holder(user).await?;
        let logins: Vec<String> = holder
            .roles
            .iter()
            .flat_map(|role| role.logins(&holder.record.traits))
            .map(|login| login.to_string())
            .fold(Vec::new(), |mut logins, login| {
                if !logins.contains(&login) {
                    logins.push(login);
                }
                logins
            });
        if logins.is_empty() {
            return Err(bad_request(format!(
                "the roles of {user} give no login, so no server would let the certificate in; set the user's trait logins"
            )));
        }
        let (not_after, permits) = self.issuer.user_limits(&holder.roles, ttl)?;
        let profile =
            OpensshUserProfile { user: user.clone(), principals: logins.clone(), ssh_key, permits, not_after };
        let issue = self
            .issuer
            .prepare_single(CaKind::User, |authority, now, entropy| profile.prepare(authority, now, entropy))?;
        let expires = issue.expires();
        let about = About { logins: logins.clone(), ..holder.about(by, user.as_str()) };
        let certificate = self.issuer.issue_ssh(issue, about).await?;
        Ok(Issued {
            ssh: Some(certificate),
            tls: None,
            subject: user.to_string(),
            expires,
            identity: Some(holder.identity),
            logins,
        })
    }

    /// An X.509 certificate of a user for other programs; `prepare` makes it ready and says whose name stands in it.
    async fn sign_for_elsewhere(
        &self,
        by: String,
        user: &UserName,
        ttl: Option<Duration>,
        prepare: impl FnOnce(
            &Holder,
            Timestamp,
        ) -> ApiResult<(crate::issue::SingleIssue<remoteler_ca::PreparedX509>, String)>,
    ) -> ApiResult<Issued> {
        let holder = self.holder(user).await?;
        let (not_after, _) = self.issuer.user_limits(&holder.roles, ttl)?;
        let (issue, subject) = prepare(&holder, not_after)?;
        let expires = issue.expires();
        let certificate = self.issuer.issue_x509(issue, holder.about(by, &subject)).await?;
        Ok(Issued {
            ssh: None,
            tls: Some(certificate),
            subject,
            expires,
            identity: Some(holder.identity),
            logins: Vec::new(),
        })
    }

    async fn sign_openssh_host(
        &self,
        by: String,
        names: Vec<String>,
        key: &str,
        ttl: Option<Duration>,
    ) -> ApiResult<Issued> {
        let ssh_key = self.issuer.ssh_key(key)?;
        let (names, first) = host_names(names)?;
        let not_after = self.issuer.host_end(ttl);
        let profile = OpensshHostProfile { names: names.clone(), ssh_key, not_after };
        let issue = self
            .issuer
            .prepare_single(CaKind::Host, |authority, now, entropy| profile.prepare(authority, now, entropy))?;
        let expires = issue.expires();
        let about = About { by, user: first.clone(), logins: names.clone(), ..About::default() };
        let certificate = self.issuer.issue_ssh(issue, about).await?;
        Ok(Issued { ssh: Some(certificate), tls: None, subject: first, expires, identity: None, logins: names })
    }

    async fn sign_server(&self, by: String, names: Vec<String>, key: &str, ttl: Option<Duration>) -> ApiResult<Issued> {
        let tls_key = self.issuer.tls_key(key)?;
        let (names, first) = host_names(names)?;
        let addresses: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let dns_names = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
        let not_after = self.issuer.host_end(ttl);
        let profile = ServerProfile { dns_names, addresses, tls_key, not_after };
        let issue = self
            .issuer
            .prepare_single(CaKind::Host, |authority, now, entropy| profile.prepare(authority, now, entropy))?;
        let expires = issue.expires();
        let about = About { by, user: first.clone(), logins: names.clone(), ..About::default() };
        let certificate = self.issuer.issue_x509(issue, about).await?;
        Ok(Issued { ssh: None, tls: Some(certificate), subject: first, expires, identity: None, logins: names })
    }

    async fn holder(&self, user: &UserName) -> ApiResult<Holder> {
        let found = self.records.read::<UserRecord>(&key::of(key::USERS, user)).await?;
        let record = found
            .ok_or_else(|| not_found(format!("there is no user {user}; tctl users ls lists the users there are")))?;
        let (roles, identity) = self.admitted_identity(&record)?;
        Ok(Holder { record, roles, identity })
    }
}

impl Holder {
    /// The account elsewhere: one of those that the user's `listed` trait names, without that trait the user's own name. What was asked for
    /// chooses among them and adds none (I9).
    fn account(&self, listed: &str, flag: &str, asked: Option<String>) -> ApiResult<String> {
        let user = &self.record.name;
        let own = [user.to_string()];
        let allowed = self.record.traits.get(listed).map_or(&own[..], Vec::as_slice);
        match (asked, allowed) {
            (Some(asked), _) if allowed.contains(&asked) => Ok(asked),
            (Some(asked), _) => {
                let asked: String = asked.chars().take(80).collect();
                Err(bad_request(format!(
                    "user {user} may not be {asked:?} there, only {}; add it to the user's trait {listed}",
                    shown(allowed)
                )))
            }
            (None, [only]) => Ok(only.clone()),
            (None, _) if allowed.contains(&user.to_string()) => Ok(user.to_string()),
            (None, []) => Err(bad_request(format!("the trait {listed} of user {user} is empty; add an account to it"))),
            (None, _) => {
                Err(bad_request(format!("user {user} may be {} there; choose one with {flag}", shown(allowed))))
            }
        }
    }

    fn about(&self, by: String, subject: &str) -> About {
        let user = self.record.name.to_string();
        About {
            by,
            subject: if subject == user { String::new() } else { subject.to_owned() },
            user,
            roles: self.identity.roles.iter().map(ToString::to_string).collect(),
            logins: Vec::new(),
        }
    }
}

/// The first names of a list, for a message.
fn shown(names: &[String]) -> String {
    let some: Vec<_> = names.iter().take(8).map(String::as_str).collect();
    let more = if names.len() > some.len() { " and others" } else { "" };
    format!("{}{more}", some.join(", "))
}

/// The names of a host, in lower case, and the first of them.
fn host_names(names: Vec<String>) -> ApiResult<(Vec<String>, String)> {
    if names.len() > MAX_NAMES {
        return Err(bad_request(format!("a host has at most {MAX_NAMES} names")));
    }
    let names: Vec<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
    let first = names.first().cloned().ok_or_else(|| bad_request("a host needs at least one name"))?;
    Ok((names, first))
}
