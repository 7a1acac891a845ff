//! The commented config file that `remoteler configure` prints.

use std::collections::BTreeSet;

use remoteler_core::SystemRole;

/// A config file for `roles`, with a comment on every key. It parses as it stands.
#[must_use]
pub fn commented_config(roles: &BTreeSet<SystemRole>) -> String {
    let mut text = String::from(COMMON);
    let has = |role| roles.contains(&role);
    let switch = |on: bool| if on { "yes" } else { "no" };
    if !has(SystemRole::Auth) {
        text.push_str(JOIN);
    }
    text.push_str(&format!("\nauth_service:\n  enabled: {}\n", switch(has(SystemRole::Auth))));
    if has(SystemRole::Auth) {
        text.push_str(AUTH);
    }
    text.push_str(&format!("\nproxy_service:\n  enabled: {}\n", switch(has(SystemRole::Proxy))));
    if has(SystemRole::Proxy) {
        text.push_str(PROXY);
    }
    text.push_str(&format!("\nssh_service:\n  enabled: {}\n", switch(has(SystemRole::Node))));
    if has(SystemRole::Node) {
        text.push_str(NODE);
    }
    text.push_str(&format!("\nkubernetes_service:\n  enabled: {}\n", switch(has(SystemRole::Kube))));
    if has(SystemRole::Kube) {
        text.push_str(KUBE);
    }
    text.push_str(&format!("\napp_service:\n  enabled: {}\n", switch(has(SystemRole::App))));
    if has(SystemRole::App) {
        text.push_str(APP);
    }
    text
}

const COMMON: &str = "\
# Configuration of the Remoteler daemon. Start it with: remoteler start -c FILE
version: v1
remoteler:
  # Name of this host in the cluster. Default: the machine's host name.
  # nodename: node-a
  # Keys and state; only the daemon's user may read it.
  data_dir: /var/lib/remoteler
  log:
    output: stderr
    severity: INFO          # ERROR, WARN, INFO, DEBUG or TRACE
    format: { output: text } # text or json
  storage: { type: sqlite }
  # Audit events that wait for an auth service elsewhere. When there is no room, what they would allow is refused (deny), or they are dropped and
  # accounted for (drop-and-say-so).
  # audit_spool: { max_size_mb: 64, when_full: deny }
  # How long a reverse tunnel that has lost its connection is kept for another one, 1s to 24h; of its two ends the one that waits less decides.
  # tunnel_resume_window: 10m
  # What all tunnels of this process keep together to be sent again, in MiB; when it is full, writers wait.
  # tunnel_replay_memory_mb: 256
";

const JOIN: &str =
    "  # An auth service (HOST:3025) or a proxy (HOST:3080). Through a proxy, this host listens on no port.
  auth_server: proxy.example.com:3080
  # Needed at the first start only: a token of `tctl tokens add`, or the path of a file that holds it.
  # A pod needs none: with method kubernetes, token_name is the name of a token resource, and the pod shows its projected service-account
  # token: { method: kubernetes, token_name: pods, token_file: /var/run/secrets/remoteler/token }
  join_params: { method: token, token_name: /etc/remoteler.token }
  # What `tctl auth status` prints as CA pin: the cluster proves itself by it.
  # ca_pin: [\"sha256:…\"]
  # To how many proxies of the cluster this host keeps links. Default: to all.
  # tunnel_connections: 2
  # Where octets are paid for: an idle host says little, its calls to the auth service included. A proxy that is gone without a word is found
  # out after minutes, and this host is listed for an hour after it is.
  # tunnel_metered: no
";

const AUTH: &str = "  listen_addr: 0.0.0.0:3025
  # Part of every certificate; cannot be changed later.
  cluster_name: remoteler.local
  # What is said here of the whole cluster counts more than documents (tctl get cap, netconfig, recconfig); what is left out, they say.
  # locking_mode strict: services that have not heard from the auth service for 5 minutes allow nothing new.
  # second_factor: off, optional (of users who have one), on (of everybody), or otp or webauthn (of everybody, and of that kind).
  # What the authorities sign with: balanced (Ed25519 and P-256), token (P-256 only) or legacy (RSA). A rotation brings a change.
  authentication: { type: local, signature_algorithm_suite: balanced }
  # Where terminal sessions are recorded: node or off.
  # session_recording: node
  # How long nothing may happen in an SSH connection before it is ended, such as 30m.
  # client_idle_timeout: never
  # Whether sessions and links end with their certificate. Otherwise they go on, and nothing new begins in them.
  # disconnect_expired_cert: no
  # Seals the authorities' keys: 32 random octets in a file outside of data_dir and its backup, which others may not read:
  # (umask 077; head -c 32 /dev/urandom > /etc/remoteler/key-encryption.key)
  # key_encryption_file: /etc/remoteler/key-encryption.key
  # Passwords that nobody may set, as a file of their SHA-1, ordered, one HASH:COUNT a line, as Have I Been Pwned's downloader writes it.
  # breached_passwords_file: /var/lib/pwnedpasswords.txt
  # Which API server vouches for pods that join. Empty: that of the pod which this runs in. Its account needs system:auth-delegator.
  # kubernetes_join: { kubeconfig_file: /etc/kubeconfig }
  # How long audit events are kept, who is given the log's checkpoints (a file or a URL), and where events are shipped to.
  # audit:
  #   retention: 365d
  #   witness: /var/lib/witness/checkpoints.jsonl
  #   ship:
  #     - { type: file, path: /var/log/remoteler-audit.jsonl, max_size_mb: 100, keep: 10 }
  #     - { type: syslog, address: \"unix:/dev/log\" }
  #     - { type: http, url: \"https://siem.example.com/in\", token_file: /etc/remoteler/siem.token }
  # Makes new keys of the authorities in a hardware token; with new_keys: database, the token keeps those it has until they are rotated out.
  # ca_key_params:
  #   new_keys: token
  #   pkcs11: { module_path: /usr/lib/softhsm/libsofthsm2.so, token_label: ca, pin_path: /etc/remoteler/token.pin }
";

const PROXY: &str = "  listen_addr: 0.0.0.0:3080
  # How users reach this proxy.
  # public_addr: proxy.example.com:443
  # Shows the X.509 revocation lists, which are signed, and nothing else over plain HTTP too: who reads those often speaks no TLS.
  # crl_listen_addr: 0.0.0.0:80
  # Certificate for browsers and logins. Default: a self-signed one.
  # https_keypairs: [{ key_file: /etc/remoteler/key.pem, cert_file: /etc/remoteler/cert.pem }]
";

const NODE: &str = "  # Not used when this host joins through a proxy: then it is reached by its reverse tunnel.
  listen_addr: 0.0.0.0:3022
  # What roles match against.
  labels: { env: dev }
  # Labels whose values commands print.
  commands: [{ name: kernel, command: [uname, -r], period: 1h }]
";

const KUBE: &str = "  # Credentials of the API server. Default: the pod's service account.
  # kubeconfig_file: /etc/kubeconfig
  # kube_cluster_name: staging
  labels: { env: dev }
";

const APP: &str = "  # Web apps that this host reaches. Names are unique in the cluster; browsers come in at the proxy, under public_addr or, without one, the
  # app's name in front of the proxy's own (grafana.proxy.example.com), for which the proxy needs a DNS name and a certificate.
  apps:
    - name: grafana
      uri: \"http://127.0.0.1:3000\"
      # public_addr: grafana.example.com
      labels: { env: dev }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Flags, Settings};

    #[test]
    fn what_configure_prints_is_a_config_that_starts() {
        for roles in [
            vec![SystemRole::Auth, SystemRole::Proxy, SystemRole::Node],
            vec![SystemRole::Node, SystemRole::Kube],
            vec![SystemRole::App],
            vec![SystemRole::Auth, SystemRole::Proxy, SystemRole::Node, SystemRole::Kube],
        ] {
            let mut roles: BTreeSet<_> = roles.into_iter().collect();
            let mut text = commented_config(&roles);
            if !roles.contains(&SystemRole::Auth) {
                text = text.replace("/etc/remoteler.token", "not-a-file-token");
            }
            let settings = Settings::new(ConfigFile::parse(&text).unwrap(), Flags::default()).unwrap();
            roles.retain(|_| true);
            assert_eq!(settings.roles(), roles);
        }
    }
}
