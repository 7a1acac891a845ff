//! `tctl test`: policy tests over the documents of files, without a cluster. Owns the small world that the files describe.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use remoteler_core::{
    AppName, CaSet, ClusterName, KubeClusterName, NodeName, Policy, PolicyTest, Resource, ResourceKind, Role, RoleName,
    TestOutcome, TestWorld, Traits, TrustBundle, UserName, preset_roles, printable,
};
use serde::{Deserialize, Serialize};

use super::resources;
use crate::output::Report;

/// How one test came out, as programs read it.
#[derive(Debug, Serialize)]
struct Line {
    name: RoleName,
    /// `passed`, `failed` or `not_run`.
    outcome: &'static str,
    expect: &'static str,
    reason: String,
}

/// Reads the files and runs their tests.
pub(crate) fn run(files: &[PathBuf]) -> anyhow::Result<Report> {
    let mut documents = Vec::new();
    for file in files {
        documents.extend(resources::read_for_tests(file)?);
    }
    tested(&documents)
}

fn tested(documents: &[Resource]) -> anyhow::Result<Report> {
    let (policy, world, tests) = world(documents)?;
    ensure!(!tests.is_empty(), "there is no document of kind policy_test in it");
    let lines: Vec<Line> = tests.iter().map(|test| line(test, &policy, &world)).collect();
    let bad = lines.iter().filter(|line| line.outcome != "passed").count();
    let mut text = String::new();
    for Line { name, outcome, expect, reason } in &lines {
        let mark = match *outcome {
            "passed" => "ok  ",
            "failed" => "FAIL",
            _ => "????",
        };
        let expected = if *outcome == "passed" { String::new() } else { format!("expected {expect}, but ") };
        text.push_str(&format!("{mark}  {name}: {expected}{}\n", printable(reason)));
    }
    let report = Report::new(text, &lines)?;
    Ok(match bad {
        0 => report,
        _ => report.failed(format!("{bad} of {} policy tests did not pass", lines.len())),
    })
}

fn line(test: &PolicyTest, policy: &Policy, world: &TestWorld) -> Line {
    let (outcome, reason) = match test.run(policy, world) {
        TestOutcome::Passed(explanation) => ("passed", explanation.sentence()),
        TestOutcome::Failed(explanation) => {
            let findings: Vec<_> = explanation.findings.iter().map(ToString::to_string).collect();
            ("failed", format!("{} ({})", explanation.sentence(), findings.join("; ")))
        }
        TestOutcome::NotRun(absent) => ("not_run", format!("it could not be run: {absent}")),
    };
    Line { name: test.name().clone(), outcome, expect: test.expect().as_str(), reason }
}

/// Sorts the documents by what they are. The roles of a new cluster are there unless the files say otherwise.
fn world(documents: &[Resource]) -> anyhow::Result<(Policy, TestWorld, Vec<PolicyTest>)> {
    #[derive(Deserialize)]
    struct UserSpec {
        roles: BTreeSet<RoleName>,
        #[serde(default)]
        traits: Traits,
    }
    let nobody = CaSet { ssh: Vec::new(), x509: Vec::new() };
    let trust = TrustBundle::new(ClusterName::new("offline")?, nobody.clone(), nobody);
    let mut policy = Policy::new(trust, BTreeMap::new());
    for (name, spec) in preset_roles() {
        policy.roles.insert(name.clone(), Arc::new(Role::new(name, &spec)?));
    }
    let mut world = TestWorld::default();
    let mut tests = Vec::new();
    let mut seen = BTreeSet::new();
    for document in documents {
        let kind = ResourceKind::parse(&document.kind)?;
        let name = &document.metadata.name;
        ensure!(seen.insert((kind, name.clone())), "{} {name:?} is there twice", kind.as_str());
        match kind {
            ResourceKind::Role => {
                let role = Role::from_document(document)?;
                policy.roles.insert(role.name().clone(), Arc::new(role));
            }
            ResourceKind::User => {
                let spec: UserSpec = serde_json::from_value(document.spec.clone())
                    .with_context(|| format!("user {name:?} cannot be read"))?;
                world.users.insert(UserName::new(name)?, (spec.roles, spec.traits));
            }
            ResourceKind::Node => {
                world.nodes.insert(NodeName::new(name)?, document.metadata.labels.clone());
            }
            ResourceKind::KubeCluster => {
                world.kube_clusters.insert(KubeClusterName::new(name)?, document.metadata.labels.clone());
            }
            ResourceKind::App => {
                world.apps.insert(AppName::new(name)?, document.metadata.labels.clone());
            }
            ResourceKind::PolicyTest => tests.push(PolicyTest::from_document(document)?),
            ResourceKind::Token
            | ResourceKind::Lock
            | ResourceKind::Oidc
            | ResourceKind::Github
            | ResourceKind::ClusterAuthPreference
            | ResourceKind::ClusterNetworkingConfig
            | ResourceKind::SessionRecordingConfig
            | ResourceKind::Saml => {
                bail!("a document of kind {} has no place in a test", kind.as_str())
            }
        }
    }
    Ok((policy, world, tests))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::documents, output::Format};

    const POLICY: &str = "\
kind: role
version: v7
metadata: { name: developer }
spec:
  allow: { logins: ['{{internal.logins}}'], node_labels: { env: [dev, staging] } }
  deny: { logins: [root] }
---
kind: user
version: v2
metadata: { name: ann }
spec: { roles: [developer], traits: { logins: [ann, root] } }
---
kind: node
version: v2
metadata: { name: gw-17, labels: { env: dev } }
---
kind: policy_test
version: v1
metadata: { name: ann-works-on-gateways }
spec: { given: { user: ann }, target: { node: gw-17 }, login: ann, expect: allow }
---
kind: policy_test
version: v1
metadata: { name: nobody-is-root }
spec: { given: { user: ann }, target: { node_labels: { env: dev } }, login: root, expect: deny }
";

    fn report(text: &str) -> anyhow::Result<Report> {
        tested(&documents::parse_for_tests(text)?)
    }

    #[test]
    fn tests_that_pass_say_what_was_decided() {
        let report = report(POLICY).unwrap();
        assert_eq!(report.failure(), None);
        assert_eq!(
            report.render(Format::Text).unwrap(),
            "ok    ann-works-on-gateways: ann may log in as ann to gw-17: role developer allows it\n\
             ok    nobody-is-root: ann may not log in as root to any-such-node: role developer denies it\n"
        );
    }

    #[test]
    fn a_test_that_fails_names_the_roles_and_fails_the_run() {
        let report = report(&POLICY.replace("  deny: { logins: [root] }\n", "")).unwrap();
        assert_eq!(report.failure(), Some("1 of 2 policy tests did not pass"));
        let text = report.render(Format::Text).unwrap();
        assert!(
            text.contains("FAIL  nobody-is-root: expected deny, but ann may log in as root to any-such-node: role developer allows it (role developer allows it by allow.node_labels and allow.logins)"),
            "{text}"
        );
        let absent = POLICY.replace("node: gw-17", "node: gw-18");
        let absent = super::tests::report(&absent).unwrap();
        assert!(
            absent.failure().is_some()
                && absent.render(Format::Text).unwrap().contains("gw-18 is not in the inventory")
        );
    }

    #[test]
    fn files_without_tests_and_documents_that_are_wrong_are_refused() {
        assert!(report("kind: role\nversion: v7\nmetadata: { name: a }\n").is_err());
        let twice =
            format!("{POLICY}---\nkind: user\nversion: v2\nmetadata: {{ name: ann }}\nspec: {{ roles: [access] }}\n");
        assert!(report(&twice).unwrap_err().to_string().contains("twice"));
        let wrong = POLICY.replace("expect: deny", "expects: deny");
        let cause = format!("{:#}", report(&wrong).unwrap_err());
        assert!(cause.contains("spec.expects (line 25)"), "{cause}");
    }
}
