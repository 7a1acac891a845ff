//! `tctl` against a running cluster: what it prints can be read by programs, what it exports is understood by OpenSSH and
//! OpenSSL, and who is no administrator is refused.

use std::process::Command;

use remoteler_tests::{Cluster, binary, need, run, run_with_input};
use serde_json::Value;

const DEVELOPER: &str = "\
kind: role
version: v7
metadata: { name: developer }
spec:
  allow:
    logins: [\"{{internal.logins}}\"]
    node_labels: { env: [test] }
";

#[test]
fn status_shows_the_cluster_in_every_format() {
    let cluster = Cluster::start();
    let json = cluster.tctl_json(&["status"]);
    assert_eq!(json["cluster_name"], Cluster::NAME);
    let pin = json["ca_pins"][0].as_str().expect("a pin").to_owned();
    assert!(pin.starts_with("sha256:"), "{pin}");
    for args in [&["status"][..], &["status", "--format", "yaml"], &["auth", "status"]] {
        let text = cluster.tctl(args).ok().text();
        assert!(text.contains(&pin) && text.contains(Cluster::NAME), "{text}");
    }
}

#[test]
fn what_get_prints_create_reads() {
    let cluster = Cluster::start();
    cluster.tctl_with_input(&["create"], DEVELOPER).ok();
    let again = cluster.tctl_with_input(&["create", "-"], DEVELOPER).one_line_failure();
    assert!(again.contains("developer"), "{again}");
    let file = cluster.dir().join("roles.yaml");
    std::fs::write(&file, cluster.tctl(&["get", "roles"]).ok().text()).expect("the file can be written");
    cluster.tctl(&["create", "-f", file.to_str().expect("a path of text")]).ok();
    assert_eq!(cluster.tctl_json(&["get", "role/developer"])["spec"]["allow"]["node_labels"]["env"][0], "test");
    cluster.tctl(&["rm", "role/developer"]).ok();
    let line = cluster.tctl(&["get", "role/developer"]).one_line_failure();
    assert!(line.contains("developer"), "{line}");
    let names = |event: &Value| event["name"] == "developer";
    cluster.event("role.create", names);
    cluster.event("role.delete", names);
}

// I76
#[test]
fn get_shows_the_secrets_of_connectors_only_when_asked_and_create_reads_them_elsewhere() {
    let (cluster, other) = (Cluster::start(), Cluster::start());
    let connector = "\
kind: oidc
version: v3
metadata: { name: idp }
spec:
  issuer_url: https://idp.example.com
  client_id: remoteler
  client_secret: canary-secret
  redirect_url: https://proxy.example.com/web/callback/idp
  claims_to_roles: [{ claim: groups, value: dev, roles: [access] }]
";
    cluster.tctl_with_input(&["create"], connector).ok();
    let plain = cluster.tctl(&["get", "oidc"]).ok().text();
    assert!(plain.contains("idp.example.com") && !plain.contains("canary"), "{plain}");
    assert_eq!(cluster.events("connector.secrets_shown").len(), 0);
    let whole = cluster.tctl(&["get", "oidc", "--with-secrets"]).ok().text();
    assert!(whole.contains("client_secret: canary-secret"), "{whole}");
    let event = cluster.event("connector.secrets_shown", |event| event["name"] == "idp");
    assert_eq!(event["kind"], "oidc");
    // Without its secret it is no connector to a cluster that never had it; with it, it is.
    let refused = other.tctl_with_input(&["create"], &plain).one_line_failure();
    assert!(refused.contains("client_secret"), "{refused}");
    other.tctl_with_input(&["create"], &whole).ok();
    assert_eq!(other.tctl(&["get", "oidc", "--with-secrets"]).ok().text(), whole);
    let line = cluster.tctl(&["get", "role/access", "--with-secrets"]).one_line_failure();
    assert!(line.contains("hold no secrets"), "{line}");
    let log = std::fs::read_to_string(cluster.dir().join("daemon.log")).expect("there is a log");
    assert!(
        !log.contains("canary")
            && !serde_json::to_string(&cluster.events("connector.secrets_shown")).expect("JSON").contains("canary")
    );
}

#[test]
fn a_connector_that_cannot_be_read_is_named_by_get_and_missing_from_no_list() {
    let mut cluster = Cluster::start();
    let connector = |name: &str| {
        format!(
            "\
kind: oidc
version: v3
metadata: {{ name: {name} }}
spec:
  issuer_url: https://idp.example.com
  client_id: remoteler
  client_secret: canary-secret
  redirect_url: https://proxy.example.com/web/callback/{name}
  claims_to_roles: [{{ claim: groups, value: dev, roles: [access] }}]
"
        )
    };
    for name in ["backup", "corp", "lab"] {
        cluster.tctl_with_input(&["create"], &connector(name)).ok();
    }
    // As a newer version would have written it.
    cluster.kill_daemon();
    let store = rusqlite::Connection::open(cluster.data_dir().join("auth.sqlite")).expect("the store opens");
    for (name, field) in [("corp", "$.spec.shape"), ("lab", "$.metadata.shape")] {
        let newer = "UPDATE items SET value = CAST(json_set(CAST(value AS TEXT), ?1, 'round') AS BLOB) WHERE key = ?2";
        assert_eq!(store.execute(newer, [field, &format!("connectors/{name}")]).expect("it is written"), 1);
    }
    drop(store);
    cluster.start_daemon();
    cluster.wait_ready();

    for wanted in [&["get", "oidc"][..], &["get", "oidc", "--with-secrets"]] {
        let line = cluster.tctl(wanted).one_line_failure();
        for part in ["oidc/corp (", "oidc/lab (", "shape", "cannot be read", "tctl rm", "by name: oidc/backup"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("canary"), "{line}");
    }
    for name in ["oidc/corp", "oidc/lab"] {
        for wanted in [&["get", name][..], &["get", name, "--with-secrets"]] {
            let line = cluster.tctl(wanted).one_line_failure();
            assert!(line.contains(&format!("{name} (")) && !line.contains("backup"), "{line}");
        }
    }
    assert_eq!(cluster.events("connector.secrets_shown").len(), 0, "nothing was shown");
    let other = cluster.tctl(&["get", "oidc/backup", "--with-secrets"]).ok().text();
    assert!(other.contains("client_secret: canary-secret"), "{other}");
    cluster.tctl(&["get", "github"]).ok();

    // What it says to do is done.
    let refused = cluster.tctl_with_input(&["create"], &connector("corp")).one_line_failure();
    assert!(refused.contains("exists already"), "{refused}");
    cluster.tctl_with_input(&["create", "-f"], &connector("corp")).ok();
    cluster.tctl(&["rm", "oidc/lab"]).ok();
    let whole = cluster.tctl(&["get", "oidc", "--with-secrets"]).ok().text();
    assert_eq!(whole.matches("client_secret: canary-secret").count(), 2, "{whole}");
}

#[test]
fn a_document_with_an_unknown_field_changes_nothing() {
    let cluster = Cluster::start();
    let wrong = DEVELOPER.replace("node_labels", "nodes_labels");
    let line = cluster.tctl_with_input(&["create"], &wrong).one_line_failure();
    assert!(line.contains("nodes_labels"), "{line}"); // I80
    let line = cluster.tctl(&["get", "role/developer"]).one_line_failure();
    assert!(line.contains("developer"), "{line}");
}

#[test]
fn of_several_documents_none_is_written_when_one_is_wrong_or_there_already() {
    let cluster = Cluster::start();
    let second = DEVELOPER.replace("name: developer", "name: tester");
    let wrong = second.replace("node_labels", "nodes_labels").replace("logins:", "db_names:");
    let line = cluster.tctl_with_input(&["create"], &format!("{DEVELOPER}---\n{wrong}")).one_line_failure();
    assert!(line.contains("nodes_labels (line ") && line.contains("db_names (line "), "{line}"); // I80
    assert!(line.contains("nothing was written"), "{line}");
    let _ = cluster.tctl(&["get", "role/developer"]).one_line_failure();

    cluster.tctl_with_input(&["create"], &second).ok();
    let line = cluster.tctl_with_input(&["create"], &format!("{DEVELOPER}---\n{second}")).one_line_failure();
    assert!(line.contains("role \"tester\" exists already; nothing was written"), "{line}");
    let _ = cluster.tctl(&["get", "role/developer"]).one_line_failure();

    // What only the auth service can know: the user's role is missing.
    let user = "kind: user\nversion: v2\nmetadata: { name: eve }\nspec: { roles: [nobody] }\n";
    let line = cluster.tctl_with_input(&["create"], &format!("{DEVELOPER}---\n{user}")).one_line_failure();
    assert!(line.contains("there is no role nobody") && line.contains("not written; 0 of 2 documents were"), "{line}");
    let _ = cluster.tctl(&["get", "role/developer"]).one_line_failure();
    // A user may come in one file with the role that is new, before it. What stands between other documents is a change of its own.
    let user = user.replace("nobody", "developer");
    let lock = "kind: lock\nversion: v2\nmetadata: { name: out }\nspec: { target: { role: nobody }, message: out }\n";
    let node = "kind: lock\nversion: v2\nmetadata: { name: both }\nspec: { target: {} }\n";
    let line = cluster.tctl_with_input(&["create"], &format!("{node}---\n{user}")).one_line_failure();
    assert!(line.contains("lock \"both\"") && line.contains("nothing"), "{line}");
    let _ = cluster.tctl(&["get", "user/eve"]).one_line_failure();
    let file = format!("{lock}---\n{user}---\n{DEVELOPER}");
    let text = cluster.tctl_with_input(&["create"], &file).ok().text();
    assert_eq!(text, "lock \"out\" was written.\nuser \"eve\" was written.\nrole \"developer\" was written.\n");
    cluster.tctl(&["get", "user/eve"]).ok();
    let line = cluster.tctl_with_input(&["create"], &cluster.tctl(&["get", "nodes"]).ok().text()).one_line_failure();
    assert!(line.contains("node \"local\" cannot be created by a document"), "{line}");
}

#[test]
fn users_come_and_go_and_their_passwords_are_never_shown() {
    let cluster = Cluster::start();
    let made =
        cluster.tctl_json(&["users", "add", "ann", "--roles", "access", "--logins", "ann", "--traits", "team=blue"]);
    assert_eq!(made["user"], "ann");
    let token = made["token"].as_str().expect("a token").to_owned();
    cluster.tctl_with_input(&["users", "passwd", "ann"], "correct horse battery\n").ok();
    let users = cluster.tctl_json(&["users", "ls"]);
    assert_eq!(users[0]["name"], "ann");
    assert_eq!(users[0]["has_password"], true);
    for args in [&["users", "ls"][..], &["get", "users"], &["audit", "ls", "--format", "json"]] {
        let text = cluster.tctl(args).ok().text();
        assert!(!text.contains("correct horse") && !text.contains("argon2") && !text.contains(&token), "{text}"); // I76
    }
    cluster.tctl(&["users", "rm", "ann"]).ok();
    let line = cluster.tctl(&["users", "rm", "ann"]).one_line_failure();
    assert!(line.contains("ann"), "{line}");
    assert_eq!(cluster.tctl_json(&["users", "ls"]), Value::Array(Vec::new()));
}

#[test]
fn a_token_is_shown_once_and_is_gone_when_removed() {
    let cluster = Cluster::start();
    let made = cluster.tctl_json(&["tokens", "add", "--type", "node,kube", "--ttl", "30m"]);
    let token = made["token"].as_str().expect("a token");
    assert!(token.len() >= 32 && made["expires"].is_string(), "{made}"); // I35
    let listed = cluster.tctl(&["tokens", "ls", "--format", "json"]).ok().text();
    assert!(!listed.contains(token), "{listed}");
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    cluster.tctl(&["tokens", "rm", listed[0]["id"].as_str().expect("an id")]).ok();
    assert_eq!(cluster.tctl_json(&["tokens", "ls"]), Value::Array(Vec::new()));
}

#[test]
fn exported_authorities_are_read_by_openssh_and_openssl() {
    if !need(&["ssh-keygen", "openssl"]) {
        return;
    }
    let cluster = Cluster::start();
    let export = |kind| cluster.tctl(&["auth", "export", "--type", kind]).ok().text();
    let user_key = run_with_input(Command::new("ssh-keygen").args(["-l", "-f", "-"]), export("user").as_bytes()).ok();
    assert!(user_key.text().contains("ED25519"), "{}", user_key.text());
    let known_hosts = cluster.dir().join("known_hosts");
    std::fs::write(&known_hosts, export("host")).expect("the file can be written");
    let host = format!("node.{}", Cluster::NAME);
    let found = run(Command::new("ssh-keygen").args(["-F", &host, "-f"]).arg(&known_hosts)).ok().text();
    assert!(found.contains("@cert-authority") || found.contains("CA"), "{found}");
    let elsewhere = run(Command::new("ssh-keygen").args(["-F", "node.example.org", "-f"]).arg(&known_hosts));
    assert_eq!(elsewhere.code, Some(1), "a host of another domain is not vouched for: {}", elsewhere.text()); // I71
    for kind in ["tls-user", "tls-host"] {
        let subject =
            run_with_input(Command::new("openssl").args(["x509", "-noout", "-subject"]), export(kind).as_bytes());
        assert!(subject.ok().text().contains("subject"));
    }
}

#[test]
fn an_administrator_works_from_afar_with_what_tsh_got_and_others_are_refused() {
    let cluster = Cluster::start();
    let admin = cluster.user("ada", "editor,auditor");
    let other = cluster.user("bob", "access");
    let tctl = |user: &remoteler_tests::User, args: &[&str]| {
        let mut command = Command::new(binary("tctl"));
        user.environment(&mut command);
        run(command.args(args).args(["--auth-server", cluster.proxy()]))
    };
    let users = tctl(&admin, &["users", "ls", "--format", "json"]).ok().text();
    assert!(users.contains("bob"), "{users}");
    let line = tctl(&other, &["users", "ls"]).one_line_failure();
    assert!(line.contains("bob"), "{line}");
    let line = tctl(&other, &["users", "add", "eve", "--roles", "editor"]).one_line_failure();
    assert!(!cluster.tctl(&["users", "ls"]).ok().text().contains("eve"), "{line}"); // I9
}

#[test]
fn without_an_auth_service_there_is_one_line_that_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let line = run(Command::new(binary("tctl")).arg("--data-dir").arg(dir.path()).arg("status")).one_line_failure();
    assert!(line.contains("no auth service runs with data directory") && line.contains("--data-dir"), "{line}");
    let usage = run(Command::new(binary("tctl")).args(["users", "add"]));
    assert_eq!(usage.code, Some(2));
}
