//! A smart-card logon at a Windows desktop (MS-PKCA, MS-WCCE): the user principal name as alternative name, where the revocation list lies,
//! and, for domain controllers that enforce strong mapping, the account's security identifier.

use remoteler_core::{Entropy, Timestamp, check_principal};

use super::{ProfileError, Window, bad_name, check_dns_name, x509_serial};
use crate::{
    Authority, PreparedX509, Purpose, TlsPublicKey,
    x509_leaf::{AltName, Leaf},
};

/// An X.509 certificate wanted for the logon of a Windows user. Raw: nothing in it was checked.
#[derive(Clone, Debug)]
pub struct SmartCardProfile {
    /// Account in the domain, without the domain; from the stored user's roles, never from the request alone (I9).
    pub windows_user: String,
    /// DNS name of the Active Directory domain, in lower case.
    pub domain: String,
    /// `S-1-5-…`: the account's security identifier, if it is known.
    pub sid: Option<String>,
    /// Where the authority's revocation list can be fetched: `http://…`, which domain controllers demand.
    pub crl_url: String,
    /// Key of the card.
    pub tls_key: TlsPublicKey,
    /// When it ends; rounded down to seconds.
    pub not_after: Timestamp,
}

impl SmartCardProfile {
    /// Checks everything, draws the serial, builds and lints; nothing is signed yet.
    ///
    /// # Errors
    /// [`ProfileError`] with the first rule that is broken.
    pub fn prepare(
        self,
        authority: &Authority,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<PreparedX509, ProfileError> {
        let Self { windows_user, domain, sid, crl_url, tls_key, not_after } = self;
        let purpose = Purpose::SmartCard;
        authority.check(purpose, None)?;
        let forbidden = ['@', '/', '\\', '[', ']', ':', ';', '|', '=', '+', '*', '?', '<', '>'];
        if windows_user.len() > 64 || check_principal(&windows_user).is_err() || windows_user.contains(forbidden) {
            let rule = "1 to 64 octets are expected, none of them white space, a quote or one of @ / \\ [ ] : ; | = + * ? < > ,";
            return Err(bad_name("Windows user", &windows_user, rule));
        }
        if domain.starts_with('*') {
            return Err(bad_name("domain", &domain, "it names one domain"));
        }
        check_dns_name(&domain)?;
        if let Some(sid) = sid.as_deref().filter(|sid| !is_sid(sid)) {
            return Err(bad_name("security identifier", sid, "S-1- and numbers joined by '-' are expected"));
        }
        let plain =
            |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
        let host = crl_url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || host.starts_with('/') || crl_url.len() > 1024 || !crl_url.bytes().all(plain) {
            return Err(bad_name("revocation list address", &crl_url, "http:// and a host are expected"));
        }
        let subject = format!("{windows_user}@{domain}");
        let leaf = Leaf {
            purpose,
            organizations: Vec::new(),
            common_name: windows_user,
            names: vec![AltName::Upn(subject.clone())],
            key: &tls_key,
            serial: x509_serial(entropy),
            window: Window::new(&subject, purpose, now, not_after)?,
            identity: None,
            crl: Some(crl_url),
            sid,
        };
        PreparedX509::new(authority, &subject, &leaf)
    }
}

/// `S-1-<authority>-<sub-authority>…` with 1 to 15 sub-authorities (MS-DTYP section 2.4.2.1).
fn is_sid(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("S-1-") else { return false };
    let mut parts = rest.split('-');
    let number = |part: &str, max: u64| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u64>().is_ok_and(|n| n <= max)
    };
    let authority = parts.next().is_some_and(|part| number(part, (1 << 48) - 1));
    let subs: Vec<&str> = parts.collect();
    authority && (1..=15).contains(&subs.len()) && subs.iter().all(|part| number(part, u64::from(u32::MAX)))
}
