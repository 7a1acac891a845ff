//! Documents to be created, checked before the first of them is written. Owns what can be said of a document without asking anybody;
//! the auth service checks everything again.

mod connectors;

use anyhow::{Context, bail, ensure};
use remoteler_core::{
    AuthPreferenceSpec, ClusterConfig, ConditionsSpec, GivenSpec, JoinMethod, KubeObjectSpec, KubeResourceSpec,
    LockSpec, LockTarget, NetworkingSpec, NewUser, OptionsSpec, PolicyTest, PolicyTestSpec, Resource, ResourceKind,
    Role, RoleName, RoleSpec, RoleVersion, RuleSpec, SessionRecordingSpec, TargetSpec, TokenSpec, UserName,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::yaml::{self, Lines};

/// Reads the documents of a text and checks them, all of them.
///
/// # Errors
/// One line: the first document that cannot be created, and everything in it that this product does not have.
pub(super) fn parse(text: &str) -> anyhow::Result<Vec<Resource>> {
    checked(text, |_| false)
}

/// The same for tests that nobody writes anywhere: there may be nodes and Kubernetes clusters, for their names and labels.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_for_tests(text: &str) -> anyhow::Result<Vec<Resource>> {
    checked(text, |kind| matches!(kind, ResourceKind::Node | ResourceKind::KubeCluster | ResourceKind::App))
}

fn checked(text: &str, besides: fn(ResourceKind) -> bool) -> anyhow::Result<Vec<Resource>> {
    let documents = yaml::resources(text)?;
    ensure!(!documents.is_empty(), "there is no document in it");
    let lines = yaml::lines(text).unwrap_or_default();
    for (number, document) in documents.iter().enumerate() {
        if !besides(ResourceKind::parse(&document.kind)?) {
            check(document, lines.get(number))?;
        }
    }
    Ok(documents)
}

fn check(document: &Resource, lines: Option<&Lines>) -> anyhow::Result<()> {
    let kind = ResourceKind::parse(&document.kind)?;
    if let Some(how) = kind.made_elsewhere() {
        bail!(
            "{} {:?} cannot be created by a document: {how}; documents of kinds role, user, token, policy_test, lock, oidc, github and saml and those that set the cluster can be created",
            kind.as_str(),
            document.metadata.name
        );
    }
    let this = || format!("{} {:?}", kind.as_str(), document.metadata.name);
    let known = kind.versions();
    ensure!(
        known.contains(&document.version.as_str()),
        "version {:?} of {} is not read; {} is",
        document.version,
        this(),
        known.join(" or ")
    );
    let (unsupported, unreadable) = match kind {
        ResourceKind::Role => faults_in_role(&document.spec),
        ResourceKind::User => (unsupported_in_user(&document.spec), Vec::new()),
        ResourceKind::Token => faults_in::<TokenSpec>(&document.spec),
        ResourceKind::PolicyTest => faults_in_test(&document.spec),
        ResourceKind::Lock => faults_in_lock(&document.spec),
        ResourceKind::ClusterAuthPreference => faults_in::<AuthPreferenceSpec>(&document.spec),
        ResourceKind::ClusterNetworkingConfig => faults_in::<NetworkingSpec>(&document.spec),
        ResourceKind::SessionRecordingConfig => faults_in::<SessionRecordingSpec>(&document.spec),
        ResourceKind::Oidc => connectors::faults_in_oidc(&document.spec),
        ResourceKind::Github => connectors::faults_in_github(&document.spec),
        ResourceKind::Saml => connectors::faults_in_saml(&document.spec),
        ResourceKind::Node | ResourceKind::KubeCluster | ResourceKind::App => (Vec::new(), Vec::new()),
    };
    if !unsupported.is_empty() {
        let named: Vec<_> = unsupported.iter().map(|path| with_line(path, lines)).collect();
        bail!("{} has fields that this product does not have: {}; take them out", this(), named.join(", "));
    }
    if let Some((path, cause)) = unreadable.first() {
        bail!("{}: {}: {cause}", this(), with_line(path, lines));
    }
    match kind {
        ResourceKind::Role => check_role(document, lines).with_context(this),
        ResourceKind::User => check_user(document).with_context(this),
        ResourceKind::Token => check_token(document).with_context(this),
        ResourceKind::PolicyTest => PolicyTest::from_document(document).map(drop).with_context(this),
        ResourceKind::Lock => check_lock(document).with_context(this),
        ResourceKind::ClusterAuthPreference
        | ResourceKind::ClusterNetworkingConfig
        | ResourceKind::SessionRecordingConfig => {
            ClusterConfig::default().with_document(kind, document.clone()).map(drop).with_context(this)
        }
        ResourceKind::Oidc => connectors::check_oidc(document).with_context(this),
        ResourceKind::Github => connectors::check_github(document).with_context(this),
        ResourceKind::Saml => connectors::check_saml(document).with_context(this),
        ResourceKind::Node | ResourceKind::KubeCluster | ResourceKind::App => Ok(()),
    }
}

fn with_line(path: &[String], lines: Option<&Lines>) -> String {
    let name = path.join(".");
    // Not every value has a line of its own: then the one that it is in has.
    match lines.and_then(|lines| (1..=path.len()).rev().find_map(|length| lines.of(&path[..length]))) {
        Some(line) => format!("{name} (line {line})"),
        None => name,
    }
}

fn check_role(document: &Resource, lines: Option<&Lines>) -> anyhow::Result<()> {
    let spec = if document.spec.is_null() { Value::Object(serde_json::Map::new()) } else { document.spec.clone() };
    let name = RoleName::new(&document.metadata.name)?;
    let version = RoleVersion::parse(&document.version).context("the version was checked before")?;
    let checked = Role::of_version(name, version, &serde_json::from_value::<RoleSpec>(spec)?);
    let Err(cause) = checked else { return Ok(()) };
    let path: Vec<String> = ["spec"].into_iter().chain(cause.path()).map(str::to_owned).collect();
    match lines.and_then(|lines| lines.of(&path)) {
        Some(line) => bail!("line {line}: {cause}"),
        None => Err(cause.into()),
    }
}

fn check_token(document: &Resource) -> anyhow::Result<()> {
    let spec: TokenSpec = serde_json::from_value(document.spec.clone())?;
    ensure!(
        spec.join_method != JoinMethod::Token,
        "a token with a secret is made by tctl tokens add, which shows the secret once: only its hash is kept, and no document holds it; \
         documents make tokens of join_method kubernetes"
    );
    Ok(spec.scope().check()?)
}

fn check_user(document: &Resource) -> anyhow::Result<()> {
    let name = UserName::new(&document.metadata.name)?;
    let mut user = document.spec.clone();
    let fields = user.as_object_mut().context("its spec is not made of fields; roles is needed")?;
    fields.insert("name".into(), Value::from(name.to_string()));
    serde_json::from_value::<NewUser>(user)?;
    Ok(())
}

fn check_lock(document: &Resource) -> anyhow::Result<()> {
    let spec: LockSpec = serde_json::from_value(document.spec.clone())?;
    ensure!(
        !spec.target.is_empty(),
        "its target names nothing; give it a user, role, login, node, serial, cluster or kube_cluster"
    );
    Ok(())
}

fn faults_in_lock(spec: &Value) -> Faults {
    let mut found = Faults::default();
    faults::<LockSpec>(spec, &["spec"], &["target"], &mut found);
    faults::<LockTarget>(&spec["target"], &["spec", "target"], &[], &mut found);
    found
}

/// Fields that this product does not have, and fields whose value it cannot read, with the reason.
type Faults = (Vec<Vec<String>>, Vec<(Vec<String>, String)>);

fn faults_in_role(spec: &Value) -> Faults {
    let mut found = Faults::default();
    // What is inside of these has a look of its own, which says more.
    faults::<RoleSpec>(spec, &["spec"], &["options", "allow", "deny"], &mut found);
    faults::<OptionsSpec>(&spec["options"], &["spec", "options"], &[], &mut found);
    for part in ["allow", "deny"] {
        faults::<ConditionsSpec>(&spec[part], &["spec", part], &["rules", "kubernetes_resources"], &mut found);
        faults_in_entries::<KubeResourceSpec>(spec, part, "kubernetes_resources", &mut found);
        faults_in_entries::<RuleSpec>(spec, part, "rules", &mut found);
    }
    found
}

fn faults_in_entries<T: DeserializeOwned>(spec: &Value, part: &str, field: &str, found: &mut Faults) {
    for (number, entry) in spec[part][field].as_array().into_iter().flatten().enumerate() {
        let path = ["spec", part, field, &number.to_string()];
        if entry.is_object() {
            faults::<T>(entry, &path, &[], found);
        } else {
            found.1.push((path.map(str::to_owned).into(), format!("{entry} is not made of fields")));
        }
    }
}

fn faults_in_test(spec: &Value) -> Faults {
    let mut found = Faults::default();
    faults::<PolicyTestSpec>(spec, &["spec"], &["given", "target"], &mut found);
    faults::<GivenSpec>(&spec["given"], &["spec", "given"], &[], &mut found);
    faults::<TargetSpec>(&spec["target"], &["spec", "target"], &["kubernetes_resource"], &mut found);
    let object = ["spec", "target", "kubernetes_resource"];
    faults::<KubeObjectSpec>(&spec["target"]["kubernetes_resource"], &object, &[], &mut found);
    found
}

fn faults_in<T: DeserializeOwned>(spec: &Value) -> Faults {
    let mut found = Faults::default();
    faults::<T>(spec, &["spec"], &[], &mut found);
    found
}

fn unsupported_in_user(spec: &Value) -> Vec<Vec<String>> {
    let known = |name: &String| matches!(name.as_str(), "roles" | "traits");
    let names = spec.as_object().into_iter().flat_map(serde_json::Map::keys).filter(|name| !known(name));
    names.map(|name| vec!["spec".to_owned(), name.clone()]).collect()
}

/// Looks for faults in the fields of `value`, which is to be a `T`. They are found by asking `T` itself, so that there is no second list
/// of fields: with a field alone, it can say that it does not know its name, or why it does not read its content. What it says of other
/// fields that are missing is passed over here. What is in the fields `inside` is looked at elsewhere.
fn faults<T: DeserializeOwned>(value: &Value, path: &[&str], inside: &[&str], found: &mut Faults) {
    let Some(fields) = value.as_object() else { return };
    let within = |name: &String| path.iter().map(|part| (*part).to_owned()).chain([name.clone()]).collect();
    for (name, content) in fields {
        let alone = Value::Object([(name.clone(), content.clone())].into_iter().collect());
        let Err(cause) = serde_json::from_value::<T>(alone) else { continue };
        let said = cause.to_string();
        if said.starts_with(&format!("unknown field `{name}`")) {
            found.0.push(within(name));
        } else if !(inside.contains(&name.as_str()) && (content.is_object() || content.is_array()))
            && !said.starts_with("missing field")
        {
            found.1.push((within(name), said));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let cause = parse(text).unwrap_err();
        let line = format!("{cause:#}");
        assert!(!line.contains('\n'), "{line}");
        line
    }

    // I80
    #[test]
    fn every_field_that_this_product_does_not_have_is_named_with_its_line() {
        let role = "\
# from another cluster
kind: role
version: v7
metadata: { name: dev }
spec:
  options:
    max_session_ttl: 8h
    desktop_clipboard: true
    record_session: { desktop: true }
  allow:
    logins: [root]
    db_labels: { '*': '*' }
    rules:
      - resources: [session]
        verbs: [read]
        where: contains(user.spec.traits, x)
  deny:
    windows_desktop_labels: {}
";
        let line = refused(role);
        for named in [
            "spec.options.desktop_clipboard (line 8)",
            "spec.options.record_session (line 9)",
            "spec.allow.db_labels (line 12)",
            "spec.allow.rules.0.where (line 16)",
            "spec.deny.windows_desktop_labels (line 18)",
        ] {
            assert!(line.contains(named), "{named} in {line}");
        }
        assert!(
            line.starts_with("role \"dev\" has fields") && !line.contains("logins") && !line.contains("max_session")
        );
        let second = format!("kind: role\nversion: v5\nmetadata: {{ name: a }}\n---\n{role}");
        assert!(refused(&second).contains("spec.allow.db_labels (line 16)"), "{}", refused(&second));
    }

    // I80
    #[test]
    fn a_value_that_is_refused_is_named_with_its_line() {
        for (line, said) in [
            ("permit_x11_forwarding: true", "permit_x11_forwarding"),
            ("client_idle_timeout: soon", "client_idle_timeout"),
            ("lock: sometimes", "lock"),
            ("max_sessions: many", "max_sessions"),
            ("forward_agent: [1]", "forward_agent"),
        ] {
            let role = format!(
                "kind: role\nversion: v7\nmetadata: {{ name: dev }}\nspec:\n  options:\n    max_session_ttl: 8h\n    {line}\n"
            );
            let refusal = refused(&role);
            assert!(refusal.contains("line 7") && refusal.contains(said), "{refusal}");
        }
        for (line, said) in [
            ("kubernetes_resources: pods", "spec.allow.kubernetes_resources (line 6)"),
            (
                "kubernetes_resources: [pods]",
                "spec.allow.kubernetes_resources.0 (line 6): \"pods\" is not made of fields",
            ),
            ("kubernetes_resources: [{ kind: pod, name: 5 }]", "spec.allow.kubernetes_resources.0.name (line 6)"),
            ("rules: [session]", "spec.allow.rules.0 (line 6)"),
        ] {
            let role = format!("kind: role\nversion: v7\nmetadata: {{ name: dev }}\nspec:\n  allow:\n    {line}\n");
            assert!(refused(&role).contains(said), "{}", refused(&role));
        }
        let whole = refused("kind: role\nversion: v7\nmetadata: { name: dev }\nspec:\n  allow: everything\n");
        assert!(whole.contains("spec.allow (line 5)"), "{whole}");
        let pattern =
            "kind: role\nversion: v7\nmetadata: { name: dev }\nspec:\n  deny:\n    node_labels: { env: '^(a$' }\n";
        assert!(refused(pattern).contains("line 6: deny.node_labels"), "{}", refused(pattern));
    }

    #[test]
    fn role_documents_of_every_version_load_as_they_are() {
        for text in [
            include_str!("../../fixtures/roles/contract.yaml"),
            include_str!("../../fixtures/roles/v5.yaml"),
            include_str!("../../fixtures/roles/v6.yaml"),
            include_str!("../../fixtures/roles/v7.yaml"),
        ] {
            let [document] = parse(text).unwrap_or_else(|cause| panic!("{cause:#}")).try_into().unwrap();
            // What is printed again is read again, and means the same.
            let role = remoteler_core::Role::from_document(&document).unwrap();
            let [again] = parse(&yaml::document(&document).unwrap()).unwrap().try_into().unwrap();
            assert_eq!(again, document);
            assert_eq!(role.version().as_str(), document.version);
        }
    }

    // I80
    #[test]
    fn what_a_version_does_not_have_is_refused_with_its_line() {
        let role = |version: &str, entry: &str| {
            format!(
                "kind: role\nversion: {version}\nmetadata: {{ name: a }}\nspec:\n  allow:\n    kubernetes_resources:\n      - {entry}\n"
            )
        };
        for (version, entry, said) in [
            ("v5", "{ kind: pod, namespace: '*', name: '*' }", "line 6: allow.kubernetes_resources"),
            ("v6", "{ kind: secret, namespace: '*', name: '*' }", "v6 knows kind pod only"),
            ("v7", "{ kind: pods, namespace: '*', name: '*', verbs: ['*'] }", "\"pods\" is unknown"),
            ("v7", "{ kind: pod, namespace: '*', name: '*', verbs: ['*'], api_group: x }", "api_group (line 7)"),
        ] {
            let line = refused(&role(version, entry));
            assert!(line.contains(said), "{said} in {line}");
        }
        let expression = "kind: role\nversion: v7\nmetadata: { name: a }\nspec:\n  allow:\n    node_labels_expression: 'labels[x]'\n";
        assert!(refused(expression).contains("line 6: allow.node_labels_expression"), "{}", refused(expression));
    }

    #[test]
    fn kinds_that_documents_do_not_make_are_refused_with_those_that_they_do() {
        for kind in ["node", "kube_cluster"] {
            let line =
                refused(&format!("kind: {kind}\nversion: v2\nmetadata: {{ name: a }}\nspec: {{ roles: [node] }}\n"));
            assert!(
                line.contains("cannot be created by a document")
                    && line.contains(
                        "role, user, token, policy_test, lock, oidc, github and saml and those that set the cluster can"
                    ),
                "{line}"
            );
        }
    }

    #[test]
    fn a_document_makes_a_token_without_a_secret_and_none_with_one() {
        let head = "kind: token\nversion: v2\nmetadata: { name: pods }\nspec:\n  roles: [kube]\n";
        let rules = "  join_method: kubernetes\n  kubernetes: { allow: [{ service_account: \"a:b\" }] }\n";
        assert_eq!(parse(&format!("{head}{rules}")).unwrap().len(), 1);
        let line = refused(head);
        assert!(line.contains("tctl tokens add"), "{line}");
        let line = refused(&format!("{head}{rules}  bot_name: x\n"));
        assert!(line.contains("spec.bot_name (line 8)"), "{line}"); // I80
    }

    // I80
    #[test]
    fn documents_that_set_the_cluster_are_one_of_each_kind_and_what_they_do_not_have_is_named_with_its_line() {
        let document = |kind: &str, name: &str, spec: &str| {
            format!("kind: {kind}\nversion: v2\nmetadata:\n  name: {name}\nspec:\n  {spec}\n")
        };
        let preference = |spec| document("cluster_auth_preference", "cluster-auth-preference", spec);
        for good in [
            preference("second_factor: optional"),
            preference("{ type: local, locking_mode: strict, disconnect_expired_cert: true }"),
            document("cluster_networking_config", "cluster-networking-config", "client_idle_timeout: 30m"),
            document("session_recording_config", "session-recording-config", "mode: node"),
        ] {
            parse(&good).unwrap_or_else(|cause| panic!("{cause:#}: {good}"));
        }
        for (bad, said) in [
            (preference("webauthn: { rp_id: x }"), "spec.webauthn (line 6)"),
            (preference("second_factor: sms"), "line 6"),
            (document("cluster_auth_preference", "mine", "{}"), "its name is cluster-auth-preference"),
            (
                document("cluster_networking_config", "cluster-networking-config", "client_idle_timeout: soon"),
                "\"soon\" is no duration",
            ),
            (document("session_recording_config", "session-recording-config", "mode: proxy"), "spec.mode (line 6)"),
        ] {
            let line = refused(&bad);
            assert!(line.contains(said), "{said} in {line}");
        }
    }

    #[test]
    fn one_bad_document_refuses_all_whatever_is_wrong_with_it() {
        let good = "kind: role\nversion: v7\nmetadata: { name: a }\n";
        assert_eq!(parse(good).unwrap().len(), 1);
        for (bad, said) in [
            ("kind: toaster\nversion: v1\nmetadata: { name: b }\n", "\"toaster\" is no kind of resource"), // I80
            ("kind: role\nversion: v1\nmetadata: { name: b }\n", "v5 or v6 or v7"),
            ("kind: role\nversion: v7\nmetadata: { name: -b }\n", "role \"-b\""),
            ("kind: role\nversion: v7\nmetadata: { name: b }\nspec: { options: { max_session_ttl: soon } }\n", "soon"),
            ("kind: user\nversion: v2\nmetadata: { name: b }\nspec: { traits: {} }\n", "roles"),
            ("kind: user\nversion: v2\nmetadata: { name: b }\nspec: { roles: [a], name: c }\n", "spec.name (line 8)"),
            ("kind: user\nversion: v2\nmetadata: { name: b }\nspec: { roles: [a], expires: x }\n", "spec.expires"),
            ("kind: lock\nversion: v2\nmetadata: { name: b }\nspec: { target: {} }\n", "its target names nothing"),
            (
                "kind: lock\nversion: v2\nmetadata: { name: b }\nspec: { target: { mfa_device: x } }\n",
                "spec.target.mfa_device",
            ),
        ] {
            let line = refused(&format!("{good}---\n{bad}"));
            assert!(line.contains(said), "{said} in {line}");
        }
        assert!(parse("").is_err());
        assert!(parse("# nothing\n").is_err());
    }
}
