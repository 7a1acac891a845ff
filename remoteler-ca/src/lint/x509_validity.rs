//! It ends after it begins, in the encoding for its year; whoever is no host gets an end within the limit (I6).

use super::{Finding, X509Draft, X509Rule, demand};
use crate::{MAX_USER_TTL, profile::BACKDATED};

pub(super) const RULE: X509Rule =
    X509Rule { name: "x509_validity", source: "RFC 5280 section 4.1.2.5; own policy", check };

fn check(draft: &X509Draft<'_>) -> Finding {
    let (from, to) = (draft.tbs.validity.not_before, draft.tbs.validity.not_after);
    demand(from.timestamp() < to.timestamp(), || format!("from {from} until {to}"))?;
    for moment in [from, to] {
        // UTCTime through 2049, GeneralizedTime from 2050 on.
        demand(moment.is_utctime() == (moment.timestamp() < YEAR_2050), || format!("{moment} in the wrong encoding"))?;
    }
    let longest = (MAX_USER_TTL + BACKDATED).as_secs().cast_signed();
    let short = to.timestamp() - from.timestamp() <= longest;
    demand(short || draft.purpose.may_last_for_ever(), || format!("until {to} is too long for a {}", draft.purpose))
}

/// 2050-01-01T00:00:00Z
const YEAR_2050: i64 = 2_524_608_000;
