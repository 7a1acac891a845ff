//! No extension stands there twice, and each one parses.

use x509_parser::extensions::ParsedExtension;

use super::{Finding, X509Draft, X509Rule, demand};

pub(super) const RULE: X509Rule = X509Rule { name: "x509_extensions", source: "RFC 5280 section 4.2", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let extensions = draft.tbs.extensions();
    for (at, extension) in extensions.iter().enumerate() {
        let twice = extensions.iter().take(at).any(|earlier| earlier.oid == extension.oid);
        demand(!twice, || format!("extension {} twice", extension.oid))?;
        let broken = matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. });
        demand(!broken, || format!("extension {} does not parse", extension.oid))?;
    }
    Ok(())
}
