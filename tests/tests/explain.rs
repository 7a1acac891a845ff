//! Explanations and policy tests in a running cluster: what administrators and users see, what is written of a refusal, and that no change breaks a test.

use std::process::Command;

use remoteler_tests::{Cluster, binary, os_login, run};

const POLICY: &str = "\
kind: role
version: v7
metadata: { name: developer }
spec:
  options: { ssh_file_copy: false }
  allow: { logins: ['{{internal.logins}}', daemon], node_labels: { '*': '*' } }
  deny: { logins: [daemon], node_labels_expression: 'contains(labels_matching(\"closed-*\"), user.metadata.name)' }
";

#[test]
fn a_refusal_is_explained_to_the_administrator_and_not_to_the_user() {
    let cluster = Cluster::start();
    cluster.tctl_with_input(&["create"], POLICY).ok();
    let login = os_login();
    let user = cluster.user("ann", "developer");
    let node = "local".to_owned();

    let allowed = cluster.tctl(&["explain", "--user", "ann", "--login", &login, "--node", &node]).ok().text();
    assert!(allowed.contains("role developer allows it") && allowed.contains("no file copies"), "{allowed}");
    let denied = cluster.tctl_json(&["explain", "--user", "ann", "--login", "daemon", "--node", &node]);
    assert_eq!(denied[0]["allowed"], false);
    assert_eq!(denied[0]["findings"][0]["fields"][0], "deny.logins");

    let mine = user.tsh(&["explain"]).ok().text();
    assert!(mine.contains(&login) && !mine.contains("daemon"), "{mine}");
    let refused = user.tsh(&["explain", "--login", "daemon", &node]).ok().text();
    assert!(refused.contains("may not") && !refused.contains("developer"), "{refused}");
    let absent = user.tsh(&["explain", "no-such-node"]).one_line_failure();
    assert!(absent.contains("no node no-such-node that you may see"), "{absent}");

    let said = user.tsh(&["ssh", &format!("daemon@{node}"), "true"]);
    assert_eq!(said.code, Some(255));
    let line = &said.stderr;
    assert!(line.contains("may not log in as daemon") && !line.contains("developer"), "{line}");
    let event = cluster.event("auth", |event| event["login"] == "daemon");
    let error = event["error"].as_str().expect("a reason");
    assert!(error.contains("role developer denies it by deny.logins"), "{error}");
}

#[test]
fn no_change_breaks_a_policy_test() {
    let cluster = Cluster::start();
    let test = "\
kind: policy_test
version: v1
metadata: { name: nobody-is-daemon }
spec:
  given: { roles: [developer] }
  target: { node_labels: { env: prod } }
  login: daemon
  expect: deny
";
    cluster.tctl_with_input(&["create"], &format!("{POLICY}---\n{test}")).ok();
    let wider = POLICY.replace("logins: [daemon], ", "");
    let line = cluster.tctl_with_input(&["create", "-f"], &wider).one_line_failure();
    assert!(line.contains("policy_test nobody-is-daemon") && line.contains("role developer allows it"), "{line}");
    let kept = cluster.tctl_json(&["get", "role/developer"]);
    assert_eq!(kept["spec"]["deny"]["logins"][0], "daemon");
    assert_eq!(cluster.tctl_json(&["get", "policy_tests"])[0]["metadata"]["name"], "nobody-is-daemon");

    // The same offline, as a pipeline runs it.
    let (good, bad) = (cluster.dir().join("good.yaml"), cluster.dir().join("bad.yaml"));
    std::fs::write(&good, format!("{POLICY}---\n{test}")).expect("the file can be written");
    std::fs::write(&bad, format!("{wider}---\n{test}")).expect("the file can be written");
    cluster.tctl(&["test", good.to_str().expect("a path of text")]).ok();
    let failed = cluster.tctl(&["test", bad.to_str().expect("a path of text")]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.text().contains("FAIL  nobody-is-daemon"), "{}", failed.text());
}

#[test]
fn policy_tests_of_several_files_run_where_no_cluster_is() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("the file can be written");
        path
    };
    let test = |name: &str, login: &str, expect: &str| {
        format!(
            "kind: policy_test\nversion: v1\nmetadata: {{ name: {name} }}\nspec:\n  given: {{ roles: [developer], traits: {{ logins: [ann] }} }}\n  \
             target: {{ node_labels: {{ env: prod }} }}\n  login: {login}\n  expect: {expect}\n"
        )
    };
    // The role is in one file and what it is tried by in another, with tests in both.
    let policy = write("policy.yaml", &format!("{POLICY}---\n{}", test("nobody-is-daemon", "daemon", "deny")));
    let good = write("good.yaml", &test("ann-gets-in", "ann", "allow"));
    let bad = write("bad.yaml", &test("ann-is-shut-out", "ann", "deny"));
    let tested = |files: &[&std::path::PathBuf]| {
        let nowhere = dir.path().join("no-data");
        run(Command::new(binary("tctl")).arg("--data-dir").arg(nowhere).arg("test").args(files))
    };

    let passed = tested(&[&policy, &good]).ok().text();
    assert!(passed.contains("ok    nobody-is-daemon") && passed.contains("ok    ann-gets-in"), "{passed}");
    let failed = tested(&[&policy, &good, &bad]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let said = failed.text();
    assert!(said.contains("FAIL  ann-is-shut-out") && said.contains("ok    ann-gets-in"), "{said}");
    assert!(failed.stderr.contains("1 of 3 policy tests did not pass"), "{}", failed.stderr);
    // Without the file that has the role, it grants nothing to anybody.
    let without = tested(&[&good]);
    assert_eq!(without.code, Some(1), "{}", without.text());
}
