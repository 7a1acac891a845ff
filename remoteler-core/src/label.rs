//! Labels of things and the patterns that roles hold against them.

use std::{collections::BTreeMap, fmt};

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// Labels of a node, cluster or app: name to value.
pub type Labels = BTreeMap<String, String>;

/// Why a label pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The expression between `^` and `$` does not parse.
    #[error("{pattern:?} is not a regular expression: {reason}")]
    Regex {
        /// As written.
        pattern: String,
        /// What the parser says.
        reason: String,
    },
    /// `"*"` as a name stands for every label; it says nothing with another value than `"*"`.
    #[error("the label name \"*\" goes with the value \"*\" only; name the label that is meant")]
    WildcardName,
    /// Longer than any pattern needs to be.
    #[error("a pattern of {0} octets is too long; at most 1024 are allowed")]
    TooLong(usize),
}

/// One pattern: exact text, `*` for anything, a glob with `*` and `?`, or `^regex$`. Matching takes linear time.
#[derive(Clone)]
pub enum Pattern {
    /// Matches anything.
    Any,
    /// Matches this text only.
    Exact(Box<str>),
    /// `*` stands for any run of characters, `?` for one.
    Glob(WildMatch),
    /// Anchored at both ends.
    Regex(Regex),
}

impl Pattern {
    /// Parses a pattern as it stands in a role.
    ///
    /// # Errors
    /// [`LabelError`] for an expression that does not parse or is longer than 1 KiB.
    pub fn new(pattern: &str) -> Result<Self, LabelError> {
        if pattern.len() > 1024 {
            return Err(LabelError::TooLong(pattern.len()));
        }
        if pattern == "*" {
            return Ok(Self::Any);
        }
        if pattern.starts_with('^') && pattern.ends_with('$') {
            return Regex::new(pattern)
                .map(Self::Regex)
                .map_err(|cause| LabelError::Regex { pattern: pattern.into(), reason: cause.to_string() });
        }
        if pattern.contains(['*', '?']) {
            return Ok(Self::Glob(WildMatch::new(pattern)));
        }
        Ok(Self::Exact(pattern.into()))
    }

    /// Whether `value` fits.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => **text == *value,
            Self::Glob(glob) => glob.matches(value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Glob(glob) => write!(f, "{glob}"),
            Self::Regex(regex) => f.write_str(regex.as_str()),
        }
    }
}

/// One value or several, as YAML lets both be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `env: prod`
    One(String),
    /// `env: [dev, staging]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

/// A set of label conditions: each named label must be there and fit one of its patterns. Empty matches nothing.
/// `"*": "*"` matches everything, labelled or not, whatever stands beside it.
#[derive(Clone, Debug, Default)]
pub struct LabelMatcher {
    everything: bool,
    conditions: BTreeMap<String, Vec<Pattern>>,
}

impl LabelMatcher {
    /// Parses the map of a role document.
    ///
    /// # Errors
    /// The first pattern that cannot be used.
    pub fn new(spec: &BTreeMap<String, OneOrMany>) -> Result<Self, LabelError> {
        let mut matcher = Self::default();
        for (name, patterns) in spec {
            if name == "*" {
                if patterns.iter().any(|pattern| pattern != "*") {
                    return Err(LabelError::WildcardName);
                }
                matcher.everything = true;
                continue;
            }
            let patterns = patterns.iter().map(Pattern::new).collect::<Result<Vec<_>, _>>()?;
            matcher.conditions.insert(name.clone(), patterns);
        }
        Ok(matcher)
    }

    /// Whether `labels` meet every condition; an absent label never does.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        if self.everything || self.conditions.is_empty() {
            return self.everything;
        }
        self.conditions.iter().all(|(name, patterns)| {
            labels.get(name).is_some_and(|value| patterns.iter().any(|pattern| pattern.matches(value)))
        })
    }

    /// Whether any condition at all stands here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.conditions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(spec: &[(&str, &[&str])]) -> LabelMatcher {
        let spec = spec
            .iter()
            .map(|(name, values)| ((*name).into(), OneOrMany::Many(values.iter().map(|v| (*v).into()).collect())))
            .collect();
        LabelMatcher::new(&spec).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn every_named_label_must_be_there_and_fit() {
        let both = matcher(&[("env", &["dev", "staging"]), ("team", &["^a.+$"])]);
        assert!(both.matches(&labels(&[("env", "dev"), ("team", "apps"), ("x", "y")])));
        assert!(!both.matches(&labels(&[("env", "dev")])));
        assert!(!both.matches(&labels(&[("env", "prod"), ("team", "apps")])));
    }

    #[test]
    fn no_condition_matches_nothing_and_the_star_matches_all() {
        assert!(!LabelMatcher::default().matches(&labels(&[("env", "dev")]))); // I80
        assert!(matcher(&[("*", &["*"])]).matches(&Labels::new()));
        assert!(matcher(&[("*", &["*"]), ("env", &["prod"])]).matches(&labels(&[("env", "dev")])));
        let half = BTreeMap::from([("*".to_owned(), OneOrMany::One("prod".to_owned()))]);
        assert_eq!(LabelMatcher::new(&half).unwrap_err(), LabelError::WildcardName);
    }

    #[test]
    fn globs_and_expressions_are_anchored() {
        assert!(Pattern::new("web-*").unwrap().matches("web-1"));
        assert!(!Pattern::new("web-*").unwrap().matches("my-web-1"));
        assert!(!Pattern::new("^web$").unwrap().matches("web1"));
        assert!(Pattern::new("^we(b$").is_err());
    }
}
