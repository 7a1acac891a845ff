//! What is typed after a flag, read into types. An error here is wrong usage, exit code 2.

use std::{str::FromStr, time::Duration};

use remoteler_core::{ResourceKind, Timestamp, parse_duration};

/// A trait's key and one of its values: `team=blue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trait {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Trait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err(format!("{text:?} is no KEY=VALUE such as team=blue")),
        }
    }
}

/// How long something lives: `30m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) Duration);

impl FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self).ok_or_else(|| format!("{text:?} is no duration such as 30m, 1h or 7d"))
    }
}

/// A moment in the past, absolute or by how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// That moment.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// The moment, by a clock that shows `now`.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(duration) => now.minus(duration),
        }
    }
}

/// The moments of a stretch of time, which is not empty.
///
/// # Errors
/// It ends before it begins.
pub(crate) fn span(
    from: Option<Moment>,
    to: Option<Moment>,
    now: Timestamp,
) -> anyhow::Result<(Option<Timestamp>, Option<Timestamp>)> {
    let (from, to) = (from.map(|moment| moment.resolve(now)), to.map(|moment| moment.resolve(now)));
    if let (Some(from), Some(to)) = (from, to) {
        anyhow::ensure!(from < to, "--from {from} is not before --to {to}: nothing is between them");
    }
    Ok((from, to))
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(duration) = parse_duration(text) {
            return Ok(Self::Ago(duration));
        }
        let moment = Timestamp::parse(text).or_else(|_| Timestamp::parse(&format!("{text}T00:00:00Z")));
        moment.map(Self::At).map_err(|_| {
            format!("{text:?} is no time such as 2026-03-01T12:00:00Z, no date such as 2026-03-01 and no duration such as 24h")
        })
    }
}

/// A kind of resources, or one of them: `role`, `role/access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceRef {
    pub(crate) kind: ResourceKind,
    pub(crate) name: Option<String>,
}

impl FromStr for ResourceRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((_, "")) => return Err(format!("{text:?} has no name after the slash")),
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (text, None),
        };
        Ok(Self { kind: ResourceKind::parse(kind).map_err(|cause| cause.to_string())?, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_date_or_so_long_ago() {
        let now = Timestamp::parse("2026-03-02T00:00:00Z").unwrap();
        let resolve = |text: &str| text.parse::<Moment>().unwrap().resolve(now).to_string();
        assert_eq!(resolve("2026-03-01T12:00:00+01:00"), "2026-03-01T11:00:00.000Z");
        assert_eq!(resolve("2026-03-01"), "2026-03-01T00:00:00.000Z");
        assert_eq!(resolve("36h"), "2026-02-28T12:00:00.000Z");
        assert!("yesterday".parse::<Moment>().unwrap_err().starts_with("\"yesterday\" is no time such as"));
    }

    #[test]
    fn a_resource_is_a_kind_with_or_without_a_name() {
        let parse = |text: &str| text.parse::<ResourceRef>();
        assert_eq!(parse("roles").unwrap(), ResourceRef { kind: ResourceKind::Role, name: None });
        assert_eq!(parse("user/ann").unwrap(), ResourceRef { kind: ResourceKind::User, name: Some("ann".into()) });
        assert!(parse("role/").is_err());
        assert!(parse("database").unwrap_err().contains("known are role, user"));
    }

    #[test]
    fn a_trait_has_a_key_and_its_value_may_have_anything() {
        let parsed: Trait = "mail=ann@example.com=x".parse().unwrap();
        assert_eq!((parsed.key.as_str(), parsed.value.as_str()), ("mail", "ann@example.com=x"));
        assert!("=x".parse::<Trait>().is_err() && "x".parse::<Trait>().is_err());
    }
}
