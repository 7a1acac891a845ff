//! What strangers wrote, on the terminal of who reads it: a user name that nobody has, and a label that a host gave itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use expectrl::{Eof, Expect, process::unix::WaitStatus};
use remoteler_client::{KeyPairs, WebClient, WebTrust};
use remoteler_core::{LoginRequest, Secret};
use remoteler_tests::{Cluster, ClusterOptions, binary, on_terminal};

const NAME: &str = "ann\u{1b}]0;mine\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}root\u{7f}";

/// What a program shows at a terminal until it ends well. Octets that are no UTF-8 end the test.
#[track_caller]
fn shown(command: Command) -> String {
    let mut session = on_terminal(command);
    let said = String::from_utf8(session.expect(Eof).unwrap().as_bytes().to_vec()).unwrap();
    let ended = session.get_process().wait().unwrap();
    assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}: {said:?}");
    said
}

/// Somebody who is nobody tries to log in.
fn knock(proxy: &str) {
    let keys = KeyPairs::generate("x").unwrap();
    let request = LoginRequest {
        user: NAME.into(),
        password: Secret::new("whatever"),
        code: None,
        ssh_public_key: keys.ssh_public,
        tls_public_key: keys.tls_public,
        ttl_seconds: None,
        client_addr: None,
    };
    let web = WebClient::new(&proxy.parse().unwrap(), WebTrust::Insecure).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(web.login(&request)).unwrap_err();
}

// I72
#[test]
fn no_format_of_any_list_lets_a_stranger_write_on_the_terminal() {
    let label = "  commands:\n  - { name: note, command: [printf, \"x\\u202e\\u2066y\"], period: 1h }\n";
    let cluster = Cluster::start_with(ClusterOptions { extra_config: label.into(), ..ClusterOptions::default() });
    let ann = cluster.user("ann", "access");
    knock(cluster.proxy());
    let attempt = cluster.event("user.login", |event| event["success"] == false);
    assert_eq!(attempt["user"], NAME, "it is kept as it came");
    let nodes = cluster.tctl_json(&["nodes", "ls"]);
    assert_eq!(nodes[0]["labels"]["note"], "x\u{202e}\u{2066}y", "{nodes}");

    let tctl = |words: &[&str]| {
        let mut command = Command::new(binary("tctl"));
        command.arg("--data-dir").arg(cluster.data_dir()).args(words);
        command
    };
    let tsh = |words: &[&str]| {
        let mut command = ann.tsh_command();
        command.args(words);
        command
    };
    for format in ["text", "json", "yaml"] {
        let lists = [
            (tctl(&["audit", "ls", "--type", "user.login", "--format", format]), "mine"),
            (tctl(&["nodes", "ls", "--format", format]), "note"),
            (tsh(&["ls", "--format", format]), "note"),
        ];
        for (command, words) in lists {
            let program = format!("{command:?}");
            let said = shown(command);
            assert!(said.contains(words), "{program}: {said:?}");
            let steers = |c: char| {
                let bidirectional = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                bidirectional || (c.is_control() && c != '\n')
            };
            // The terminal's own ends of lines.
            assert!(!said.replace("\r\n", "\n").contains(steers), "{program}: {said:?}");
        }
    }
    let log = std::fs::read_to_string(cluster.dir().join("daemon.log")).unwrap();
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
}
