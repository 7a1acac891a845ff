//! Certificates are verified in two files of the workspace and nowhere else (I3).

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Calls that decide whether a certificate is believed, in the libraries in use. They belong into `remoteler-core/src/verify_*.rs`.
const FORBIDDEN: &[&str] = &[
    // ssh-key
    ".validate(",
    ".validate_at(",
    ".verify_signature(",
    // rustls-webpki
    "verify_for_usage(",
    "anchor_from_trusted_cert(",
    "EndEntityCert",
    // x509-parser, with its `verify` feature
    "X509StructureValidator",
    ".verify_recursive(",
];

#[test]
fn certificates_are_verified_by_the_two_functions_of_core_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let mut sources = Vec::new();
    collect(root, &mut sources);
    assert!(sources.iter().any(|path| path.ends_with("remoteler-core/src/verify_ssh.rs")), "the search finds sources");

    let mut findings = Vec::new();
    for path in sources.iter().filter(|path| !is_verifier(path)) {
        let text = fs::read_to_string(path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if FORBIDDEN.iter().any(|call| code.contains(call)) {
                findings.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(findings.is_empty(), "use verify_ssh_certificate or verify_x509_chain:\n{}", findings.join("\n")); // I3
}

#[test]
fn the_two_functions_are_where_the_search_does_not_look() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(fs::read_to_string(source.join("verify_ssh.rs")).unwrap().contains(".verify_signature("));
    assert!(fs::read_to_string(source.join("verify_x509.rs")).unwrap().contains("verify_for_usage("));
}

fn is_verifier(path: &Path) -> bool {
    path.ends_with("remoteler-core/src/verify_ssh.rs") || path.ends_with("remoteler-core/src/verify_x509.rs")
}

/// Every Rust file below a `src` folder; tests may look at certificates as they like.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !matches!(name, "target" | "tests" | "benches" | "fuzz") {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") && path.components().any(|part| part.as_os_str() == "src") {
            found.push(path);
        }
    }
}
