//! Patterns of connectors: what `*` or a group matches in a claim can be part of a role's name. Owns the translation of globs; the expressions
//! and their bounds are those of roles.

use crate::{Expression, PatternError};

/// Exact text, a glob with `*`, or `^regex$`, of which the whole value must match.
#[derive(Clone, Debug)]
pub struct CapturePattern(Expression);

impl CapturePattern {
    /// Parses a pattern as it stands in a connector.
    ///
    /// # Errors
    /// [`PatternError`]
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if let Some(inside) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) {
            return Expression::whole(inside, pattern).map(Self);
        }
        let literal: Vec<String> = pattern.split('*').map(regex::escape).collect();
        Expression::whole(&literal.join("(.*)"), pattern).map(Self)
    }

    /// `template` with `$1` and on replaced by what `value` has there; `None` when the value does not match.
    #[must_use]
    pub fn expand(&self, value: &str, template: &str) -> Option<String> {
        self.0.replace(value, template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_value_matches_and_gives_its_parts() {
        for (pattern, value, template, expected) in [
            ("admins", "admins", "access", Some("access")),
            ("admins", "my-admins", "access", None),
            ("admins", "admins\n", "access", None),
            ("a.b", "axb", "access", None),
            ("*", "anything", "access", Some("access")),
            ("ssh-*", "ssh-prod", "$1", Some("prod")),
            ("ssh-*-*", "ssh-prod-eu", "${2}_$1", Some("eu_prod")),
            ("^ssh-([a-z]+)$", "ssh-prod", "role-$1", Some("role-prod")),
            ("^ssh-([a-z]+)$", "ssh-prod1", "role-$1", None),
            ("^a|b$", "b", "x", Some("x")),
            ("^a|b$", "ab", "x", None),
            ("ssh-*", "ssh-prod", "$9", Some("")),
        ] {
            let pattern_read = CapturePattern::new(pattern).unwrap();
            assert_eq!(pattern_read.expand(value, template).as_deref(), expected, "{pattern} {value}");
        }
        assert!(CapturePattern::new("^($").is_err());
    }
}
