//! xmlsec1 and signxml, asked whether each signature of a document is good under the provider's certificate.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_tests::{SamlClients, run, run_with_input};

pub(crate) struct Judges {
    clients: SamlClients,
    certificate: PathBuf,
    dir: tempfile::TempDir,
}

impl Judges {
    pub(crate) fn new(clients: &SamlClients, certificate: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { clients: clients.clone(), certificate: certificate.to_owned(), dir }
    }

    /// Whether there is a signature and all are good.
    pub(crate) fn xmlsec1(&self, octets: &[u8]) -> bool {
        let file = self.dir.path().join("document.xml");
        std::fs::write(&file, octets).expect("writable");
        let text = String::from_utf8_lossy(octets);
        let ends = text.split("</").skip(1).filter_map(|rest| rest.split(['>', ' ', '\n']).next());
        let signatures = ends.filter(|name| name.rsplit(':').next() == Some("Signature")).count();
        let good = |number: usize| {
            let mut xmlsec = Command::new("xmlsec1");
            xmlsec.args(["--verify", "--enabled-reference-uris", "same-doc", "--enabled-key-data", "raw-x509-cert"]);
            for name in ["protocol:Response", "assertion:Assertion"] {
                xmlsec.arg("--id-attr:ID").arg(format!("urn:oasis:names:tc:SAML:2.0:{name}"));
            }
            xmlsec.arg("--node-xpath").arg(format!("(//*[local-name()='Signature'])[{number}]"));
            xmlsec.arg("--pubkey-cert-pem").arg(&self.certificate).arg(&file);
            run(&mut xmlsec).code == Some(0)
        };
        signatures > 0 && (1..=signatures).all(good)
    }

    /// The same of several documents.
    pub(crate) fn signxml(&self, documents: &[Vec<u8>]) -> Vec<bool> {
        let lines: String = documents.iter().map(|octets| STANDARD.encode(octets) + "\n").collect();
        let mut judge = self.clients.script("judge.py");
        let verdicts = run_with_input(judge.arg(&self.certificate), lines.as_bytes()).ok().text();
        let verdicts: Vec<bool> = verdicts.lines().map(|line| line.contains("\"good\": true")).collect();
        assert_eq!(verdicts.len(), documents.len());
        verdicts
    }
}
