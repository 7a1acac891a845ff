//! Who may do what, and why, for those who may know it: administrators hear what each role says, users hear what they may do themselves.
//! Owns who hears what; the answer is the decision of core.

use remoteler_core::{
    ApiError, AppRecord, ExplainRequest, Explanation, KubeRecord, LockContext, Login, NodeRecord, Policy, PolicySource,
    UserIdentity, Verb, explain_app, explain_kube, explain_ssh, prospective_identity,
};

use crate::{
    Caller,
    failure::{ApiResult, bad_request, not_found},
    issue::NO_LOGIN,
    records::key,
    service::Inner,
    users::UserRecord,
};

/// Most explanations in one answer: one fits into some 600 octets.
const MAX_ANSWERS: usize = 1000;

impl Inner {
    pub(crate) async fn explain(&self, caller: &Caller, request: ExplainRequest) -> ApiResult<Vec<Explanation>> {
        let named = [request.node.is_some(), request.kube_cluster.is_some(), request.app.is_some()];
        if named.into_iter().filter(|named| *named).count() > 1 {
            return Err(bad_request("name a node, a Kubernetes cluster or an application, and one of them only"));
        }
        if request.login.is_some() && (request.kube_cluster.is_some() || request.app.is_some()) {
            return Err(bad_request("a login goes with nodes, not with Kubernetes clusters or applications"));
        }
        let policy = self.policy.policy();
        let (identity, own) = match (&request.user, caller) {
            (None, Caller::User { user, .. }) => (self.current(user).await?.clone(), true),
            (None, Caller::LocalAdmin) => return Err(bad_request("name the user it is about")),
            (None, Caller::Host { .. } | Caller::Anonymous { .. }) => {
                return Err(self.refuse(caller, "ask what they may do").await);
            }
            (Some(name), _) => {
                self.admit(caller, "user", Verb::Read).await?;
                self.admit(caller, "role", Verb::Read).await?;
                let user = self.records.read::<UserRecord>(&key::of(key::USERS, name)).await?;
                let user = user.ok_or_else(|| not_found(format!("there is no user {name}")))?;
                (prospective_identity(user.name, &policy, &user.roles, user.traits), false)
            }
        };
        let everything = named == [false; 3];
        let mut answers = Vec::new();
        if everything || request.node.is_some() {
            let mut nodes = self.all_nodes().await?;
            nodes.retain(|node| request.node.as_ref().is_none_or(|name| node.name == *name));
            // The same answer whether it is not there or must not be known (no enumeration).
            nodes.retain(|node| !own || node.visible_to(&identity, &policy));
            if let (Some(name), true) = (&request.node, nodes.is_empty()) {
                return Err(absent("node", name.as_str(), own));
            }
            for node in &nodes {
                answers.extend(of_node(&identity, &policy, node, request.login.as_ref(), own)?);
            }
        }
        if (everything && request.login.is_none()) || request.kube_cluster.is_some() {
            let mut clusters = self.all_kube_clusters().await?;
            clusters.retain(|kube| request.kube_cluster.as_ref().is_none_or(|name| kube.name == *name));
            clusters.retain(|kube| !own || kube.visible_to(&identity, &policy));
            if let (Some(name), true) = (&request.kube_cluster, clusters.is_empty()) {
                return Err(absent("Kubernetes cluster", name.as_str(), own));
            }
            answers.extend(clusters.iter().map(|kube| of_kube(&identity, &policy, kube, own)));
        }
        if (everything && request.login.is_none()) || request.app.is_some() {
            let mut apps = self.all_apps().await?;
            apps.retain(|app| request.app.as_ref().is_none_or(|name| app.name == *name));
            apps.retain(|app| !own || app.visible_to(&identity, &policy));
            if let (Some(name), true) = (&request.app, apps.is_empty()) {
                return Err(absent("application", name.as_str(), own));
            }
            answers.extend(apps.iter().map(|app| of_app(&identity, &policy, app, own)));
        }
        if own && everything {
            // What may I do: not what not.
            answers.retain(|answer| answer.allowed || request.login.is_some());
        }
        if answers.len() > MAX_ANSWERS {
            let found = answers.len();
            return Err(bad_request(format!("{found} answers are more than {MAX_ANSWERS}; name a node or a login")));
        }
        Ok(answers)
    }
}

fn absent(what: &str, name: &str, own: bool) -> ApiError {
    let known = if own { " that you may see" } else { "" };
    not_found(format!("there is no {what} {name}{known}"))
}

/// One explanation for each account: the one that is asked for, or those that the roles give.
fn of_node(
    identity: &UserIdentity,
    policy: &Policy,
    node: &NodeRecord,
    login: Option<&Login>,
    own: bool,
) -> ApiResult<Vec<Explanation>> {
    let given = identity.logins.iter().filter(|login| login.as_str() != NO_LOGIN);
    let mut logins: Vec<Login> = login.map_or_else(|| given.cloned().collect(), |login| vec![login.clone()]);
    if logins.is_empty() {
        // Nobody's account: what the roles say of it is what they say of every one.
        logins.push(Login::new(NO_LOGIN).map_err(|cause| bad_request(cause.to_string()))?);
    }
    let explain = |login: &Login| {
        let told = explain_ssh(identity, policy, (&node.name, &node.labels), login);
        told_to(own, told).unless(policy.check_locks(&LockContext::of_identity(identity).login(login).node(node)))
    };
    Ok(logins.iter().map(explain).collect())
}

fn of_kube(identity: &UserIdentity, policy: &Policy, kube: &KubeRecord, own: bool) -> Explanation {
    let told = explain_kube(identity, policy, (&kube.name, &kube.labels), None);
    let context = LockContext::of_identity(identity).kube(&kube.name).host(None, Some(kube.host_id));
    told_to(own, told).unless(policy.check_locks(&context))
}

fn of_app(identity: &UserIdentity, policy: &Policy, app: &AppRecord, own: bool) -> Explanation {
    let told = explain_app(identity, policy, (&app.name, &app.labels));
    let context = LockContext::of_identity(identity).host(None, Some(app.host_id));
    told_to(own, told).unless(policy.check_locks(&context))
}

/// What the user themself may hear, or all of it.
fn told_to(own: bool, told: Explanation) -> Explanation {
    if own { told.for_the_user() } else { told }
}
