//! OpenSSH, OpenSSL and Go read and accept what is issued. They must be installed where the full check runs.

use std::{fs, path::Path, process::Command};

use remoteler_ca::TlsPublicKey;

use crate::support::{Cluster, host_profile, user_profile};

#[test]
fn ssh_keygen_prints_what_was_put_into_the_certificates() {
    let root = Cluster::new("root.example.com");
    let folder = tempfile::tempdir().unwrap();
    let print = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        run("ssh-keygen", &["-L", "-f", path.to_str().unwrap()])
    };
    let Some(user) = print("user-cert.pub", &root.issue_user().ssh_certificate) else { return };
    for part in [
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate",
        "Key ID: \"ann\"",
        "Critical Options: (none)",
        "permit-port-forwarding",
        "permit-pty",
        "identity@remoteler.dev UNKNOWN OPTION",
    ] {
        assert!(user.contains(part), "{part} is missing in\n{user}");
    }
    assert_eq!(block(&user, "Principals:"), ["root", "ubuntu"]);
    assert!(!user.contains("permit-agent-forwarding")); // I5

    let host = print("host-cert.pub", &root.issue_host().ssh_certificate).unwrap();
    // "after" alone: without an end.
    assert!(host.contains("host certificate") && host.contains("Valid: after "), "{host}");
    assert_eq!(block(&host, "Principals:"), host_profile(&root.name).identity.principals());
}

#[test]
fn openssl_accepts_leafs_under_their_own_authority_and_for_their_own_purpose_only() {
    let root = Cluster::new("root.example.com");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
    };
    write("user-ca.pem", root.user.certificate_pem());
    write("host-ca.pem", root.host.certificate_pem());
    write("user.pem", &root.issue_user().tls_certificate_pem);
    write("host.pem", &root.issue_host().tls_certificate_pem);
    let verify = |ca: &str, leaf: &str, extra: &[&str]| {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut arguments =
            vec!["verify", "-x509_strict", "-attime", "1772366400", "-no-CApath", "-no-CAstore", "-CAfile"];
        let (ca, leaf) = (path(ca), path(leaf));
        arguments.push(&ca);
        arguments.extend(extra);
        arguments.push(&leaf);
        run("openssl", &arguments).map(|output| output.contains(": OK"))
    };
    let Some(accepted) = verify("user-ca.pem", "user.pem", &["-purpose", "sslclient"]) else { return };
    assert!(accepted);
    assert_eq!(verify("host-ca.pem", "host.pem", &["-purpose", "sslserver"]), Some(true));
    assert_eq!(verify("host-ca.pem", "host.pem", &["-purpose", "sslclient"]), Some(true));
    assert_eq!(verify("user-ca.pem", "user.pem", &["-purpose", "sslserver"]), Some(false)); // I11
    assert_eq!(verify("user-ca.pem", "host.pem", &[]), Some(false)); // I1
    assert_eq!(verify("host-ca.pem", "user.pem", &[]), Some(false)); // I1

    let identity = host_profile(&root.name).identity;
    for name in identity.dns_names() {
        assert_eq!(verify("host-ca.pem", "host.pem", &["-verify_hostname", &name]), Some(true), "{name}");
    }
    assert_eq!(verify("host-ca.pem", "host.pem", &["-verify_hostname", "other.root.example.com"]), Some(false));
    assert_eq!(verify("host-ca.pem", "host.pem", &["-verify_hostname", "root.example.com"]), Some(false));
}

#[test]
fn rsa_keys_of_openssl_are_certified_from_2048_bits_on() {
    for (bits, accepted) in [("1024", false), ("2048", true), ("3072", true)] {
        let folder = tempfile::tempdir().unwrap();
        let private = folder.path().join("key.pem").display().to_string();
        let argument = format!("rsa_keygen_bits:{bits}");
        if run("openssl", &["genpkey", "-algorithm", "RSA", "-pkeyopt", &argument, "-out", &private]).is_none() {
            return;
        }
        let public = run("openssl", &["pkey", "-in", &private, "-pubout"]).unwrap();
        let key = TlsPublicKey::from_pem(&public);
        assert_eq!(key.is_ok(), accepted, "{bits}: {key:?}"); // I7
        if let Ok(key) = key {
            let root = Cluster::new("root");
            let profile = remoteler_ca::UserProfile { tls_key: key, ..user_profile(&root.name) };
            let prepared = profile.prepare(&root.user, crate::support::now(), &remoteler_core::OsEntropy).unwrap();
            let pem = root.user.issue_user(prepared).unwrap().tls_certificate_pem;
            let path = folder.path().join("leaf.pem");
            fs::write(&path, pem).unwrap();
            let inside = run("openssl", &["x509", "-in", path.to_str().unwrap(), "-noout", "-pubkey"]).unwrap();
            assert_eq!(inside.trim(), public.trim());
        }
    }
}

/// kubectl is written in Go, whose parser refuses more than others do.
#[test]
fn go_accepts_the_certificates_for_the_names_that_kubectl_asks_for() {
    let root = Cluster::new("root.example.com");
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("verify.go", GO_VERIFIER),
        ("user-ca.pem", root.user.certificate_pem()),
        ("host-ca.pem", root.host.certificate_pem()),
        ("user.pem", &root.issue_user().tls_certificate_pem),
        ("host.pem", &root.issue_host().tls_certificate_pem),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = path("verify");
    let Some(built) = run("go", &["build", "-o", &program, &path("verify.go")]) else { return };
    assert!(Path::new(&program).exists(), "{built}");
    let verify = |authority: &str, leaf: &str, name: &str| {
        run(&program, &[&path(authority), &path(leaf), name]).unwrap().trim().to_owned()
    };
    for name in host_profile(&root.name).identity.dns_names() {
        assert_eq!(verify("host-ca.pem", "host.pem", &name), "ok");
    }
    assert_ne!(verify("host-ca.pem", "host.pem", "other.root.example.com"), "ok");
    assert_ne!(verify("user-ca.pem", "host.pem", ""), "ok"); // I1
    assert_eq!(verify("user-ca.pem", "user.pem", "client"), "ok");
    assert_ne!(verify("user-ca.pem", "user.pem", ""), "ok"); // I11
}

/// Arguments: authority, leaf, and the server name, or `client` to verify a client's certificate.
const GO_VERIFIER: &str = r#"
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"
)

func load(path string) *x509.Certificate {
	text, err := os.ReadFile(path)
	if err == nil {
		block, _ := pem.Decode(text)
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			return certificate
		}
	}
	fmt.Println(path, err)
	os.Exit(1)
	return nil
}

func main() {
	roots := x509.NewCertPool()
	roots.AddCert(load(os.Args[1]))
	options := x509.VerifyOptions{Roots: roots, CurrentTime: time.Unix(1772366400, 0), DNSName: os.Args[3]}
	if os.Args[3] == "client" {
		options.DNSName = ""
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if _, err := load(os.Args[2]).Verify(options); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}
"#;

/// Output of a client, both streams; `None`, loudly, where it is not installed at the desk.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&text).into_owned())
        }
        Err(cause) => {
            let required = std::env::var_os("REMOTELER_FULL_CHECK").is_some() || std::env::var_os("CI").is_some();
            assert!(!required, "{program} is needed in the full check: {cause}");
            eprintln!("SKIPPED: {program} is not installed ({cause}): {}", Path::new(file!()).display());
            None
        }
    }
}

/// The indented lines below `title`.
pub(crate) fn block(text: &str, title: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != title);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = lines.next().map(indent).unwrap_or_default();
    lines.take_while(|line| indent(line) > depth).map(|line| line.trim().to_owned()).collect()
}
