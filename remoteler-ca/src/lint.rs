//! The last look before a signature: rules over certificates as they are about to be signed, read back from the very octets. They ask nothing
//! of the code that built those, so a fault there is found here. Owns the lists of rules, one file each; a rule that is broken refuses.

mod ssh_canonical;
mod ssh_extensions;
mod ssh_keys;
mod ssh_principals;
mod ssh_serial;
mod ssh_size;
mod ssh_type;
mod ssh_validity;
#[cfg(test)]
mod tests;
mod x509_alternative_names;
mod x509_authority_key;
mod x509_basic_constraints;
mod x509_critical;
mod x509_extended_key_usage;
mod x509_extensions;
mod x509_identity;
mod x509_issuer;
mod x509_key_usage;
mod x509_public_key;
mod x509_revocation;
mod x509_serial;
mod x509_signature;
mod x509_subject;
mod x509_validity;
mod x509_version;

use ssh_key::{Certificate, public::KeyData};
use x509_parser::{
    certificate::TbsCertificate,
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer,
};

use crate::{Purpose, ssh_certificate, x509_authority::IssuerName};

/// A certificate breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule} ({source_of_rule}): {finding}")]
pub struct LintError {
    rule: &'static str,
    source_of_rule: &'static str,
    finding: String,
}

impl LintError {
    /// Name of the rule, as its file is called.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}

/// What a rule finds wrong.
type Finding = Result<(), String>;

/// A rule for X.509 certificates.
struct X509Rule {
    /// As its file is called.
    name: &'static str,
    /// Where it comes from.
    source: &'static str,
    check: fn(&X509Draft<'_>) -> Finding,
}

/// A rule for SSH certificates.
struct SshRule {
    /// As its file is called.
    name: &'static str,
    /// Where it comes from.
    source: &'static str,
    check: fn(&SshDraft<'_>) -> Finding,
}

/// An X.509 certificate to be.
struct X509Draft<'a> {
    tbs: &'a TbsCertificate<'a>,
    purpose: Purpose,
    issuer: &'a IssuerName,
}

/// An SSH certificate to be; its signature is none.
struct SshDraft<'a> {
    octets: &'a [u8],
    certificate: &'a Certificate,
    purpose: Purpose,
    authority: &'a KeyData,
}

/// Applies every rule to a TBSCertificate.
pub(crate) fn x509(octets: &[u8], purpose: Purpose, issuer: &IssuerName) -> Result<(), LintError> {
    let unreadable =
        |finding: String| LintError { rule: "x509_readable", source_of_rule: "RFC 5280 section 4.1", finding };
    let (rest, tbs) = TbsCertificate::from_der(octets).map_err(|cause| unreadable(cause.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable(format!("{} octets follow it", rest.len())));
    }
    let draft = X509Draft { tbs: &tbs, purpose, issuer };
    for rule in X509_RULES {
        (rule.check)(&draft).map_err(|finding| LintError { rule: rule.name, source_of_rule: rule.source, finding })?;
    }
    Ok(())
}

/// Applies every rule to an SSH certificate without its signature.
pub(crate) fn ssh(octets: &[u8], purpose: Purpose, authority: &KeyData) -> Result<(), LintError> {
    let certificate = ssh_certificate::draft(octets).map_err(|cause| LintError {
        rule: "ssh_readable",
        source_of_rule: "OpenSSH PROTOCOL.certkeys",
        finding: cause.to_string(),
    })?;
    let draft = SshDraft { octets, certificate: &certificate, purpose, authority };
    for rule in SSH_RULES {
        (rule.check)(&draft).map_err(|finding| LintError { rule: rule.name, source_of_rule: rule.source, finding })?;
    }
    Ok(())
}

const X509_RULES: &[X509Rule] = &[
    x509_version::RULE,
    x509_serial::RULE,
    x509_signature::RULE,
    x509_issuer::RULE,
    x509_validity::RULE,
    x509_subject::RULE,
    x509_public_key::RULE,
    x509_extensions::RULE,
    x509_critical::RULE,
    x509_authority_key::RULE,
    x509_basic_constraints::RULE,
    x509_key_usage::RULE,
    x509_extended_key_usage::RULE,
    x509_alternative_names::RULE,
    x509_revocation::RULE,
    x509_identity::RULE,
];

const SSH_RULES: &[SshRule] = &[
    ssh_canonical::RULE,
    ssh_size::RULE,
    ssh_type::RULE,
    ssh_serial::RULE,
    ssh_keys::RULE,
    ssh_principals::RULE,
    ssh_validity::RULE,
    ssh_extensions::RULE,
];

impl<'a> X509Draft<'a> {
    /// The extension of this kind, and whether it is critical.
    fn extension<T>(&self, pick: impl Fn(&'a ParsedExtension<'a>) -> Option<T>) -> Option<(T, bool)> {
        let found = |extension: &'a X509Extension<'a>| Some((pick(extension.parsed_extension())?, extension.critical));
        self.tbs.extensions().iter().find_map(found)
    }
}

/// What an extension holds if it is of the kind, by the name of the variant.
macro_rules! match_extension {
    ($extension:expr, $kind:ident) => {
        if let x509_parser::extensions::ParsedExtension::$kind(value) = $extension { Some(value) } else { None }
    };
}
use match_extension;

/// The error `finding` unless `holds`.
fn demand(holds: bool, finding: impl FnOnce() -> String) -> Finding {
    if holds { Ok(()) } else { Err(finding()) }
}
