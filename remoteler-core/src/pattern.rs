//! Patterns that roles hold against labels and names: exact text, `*`, globs and `^regex$`. Owns the one place where an expression of a role is
//! compiled, and its bounds. Matching takes linear time whatever the pattern and the text are.

use std::fmt;

use regex::{Regex, RegexBuilder};
use wildmatch::WildMatch;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The expression between `^` and `$` does not parse, or is too large when it is compiled.
    #[error("{pattern:?} is not a regular expression that can be used: {reason}")]
    Regex {
        /// As written.
        pattern: String,
        /// What the parser says.
        reason: String,
    },
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
    /// The whole text: `^a|b$` is `a` or `b`.
    Regex(Expression),
}

/// A compiled regular expression.
#[derive(Clone)]
pub struct Expression(Box<Regex>);

impl Pattern {
    /// Parses a pattern as it stands in a role.
    ///
    /// # Errors
    /// [`PatternError`] for an expression that does not parse, is longer than 1 KiB, or larger than 64 KiB when compiled.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > MAX_PATTERN {
            return Err(PatternError::TooLong(pattern.len()));
        }
        if pattern == "*" {
            return Ok(Self::Any);
        }
        if let Some(inside) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) {
            return Expression::whole(inside, pattern).map(Self::Regex);
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
            Self::Regex(regex) => regex.0.is_match(value),
        }
    }

    /// Whether every value fits, so that nothing is left out.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

impl Expression {
    /// An expression that may match anywhere in a text.
    pub(crate) fn search(expression: &str) -> Result<Self, PatternError> {
        if expression.len() > MAX_PATTERN {
            return Err(PatternError::TooLong(expression.len()));
        }
        compile(expression, expression)
    }

    pub(crate) fn whole(inside: &str, pattern: &str) -> Result<Self, PatternError> {
        // On its own first: `a)|(b` is none, though it would be one between our parentheses.
        compile(inside, pattern)?;
        compile(&format!("^(?:{inside})$"), pattern)
    }

    /// `value` with what matches replaced, or `None` when nothing does. In `replacement`, `$1` and `${1}` are groups.
    pub(crate) fn replace(&self, value: &str, replacement: &str) -> Option<String> {
        self.0.is_match(value).then(|| self.0.replace_all(value, replacement).into_owned())
    }
}

fn compile(expression: &str, written: &str) -> Result<Expression, PatternError> {
    let refused = |reason: String| PatternError::Regex { pattern: written.chars().take(80).collect(), reason };
    let expression = ascii_classes(expression)
        .ok_or_else(|| refused("classes of Unicode such as \\p{Greek} are not supported".into()))?;
    let built = RegexBuilder::new(&expression)
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_PROGRAM)
        .nest_limit(MAX_NESTING)
        .build();
    built.map(|regex| Expression(Box::new(regex))).map_err(|cause| {
        // The parser draws a picture of several lines; the last one says what is wrong.
        let said = cause.to_string();
        let reason = said.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned();
        refused(reason)
    })
}

/// `\d`, `\w`, `\s` and `\b` in the meaning they have in RE2, by which such roles were written: ASCII only. That keeps programs small, too. `None`
/// for `\p`, whose tables a build may have or not have.
fn ascii_classes(expression: &str) -> Option<String> {
    let mut written = String::with_capacity(expression.len());
    let mut characters = expression.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            written.push(character);
            continue;
        }
        match characters.next() {
            Some('d') => written.push_str("[0-9]"),
            Some('D') => written.push_str("[^0-9]"),
            Some('w') => written.push_str("[0-9A-Za-z_]"),
            Some('W') => written.push_str("[^0-9A-Za-z_]"),
            Some('s') => written.push_str("[\\t\\n\\f\\r ]"),
            Some('S') => written.push_str("[^\\t\\n\\f\\r ]"),
            Some('b') => written.push_str("(?-u:\\b)"),
            Some('p' | 'P') => return None,
            other => written.extend(['\\'].into_iter().chain(other)),
        }
    }
    Some(written)
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Glob(glob) => write!(f, "{glob}"),
            Self::Regex(regex) => regex.fmt(f),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Longest pattern, in octets.
const MAX_PATTERN: usize = 1024;
/// Largest program that a pattern may become, and largest cache of its automaton, in octets.
const MAX_PROGRAM: usize = 64 * 1024;
/// Deepest nesting of groups.
const MAX_NESTING: u32 = 32;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(value)
    }

    #[test]
    fn globs_and_expressions_hold_for_the_whole_text() {
        assert!(matches("web-*", "web-1") && !matches("web-*", "my-web-1"));
        assert!(!matches("^web$", "web1"));
        assert!(matches("^test|staging$", "staging") && !matches("^test|staging$", "test-1"));
        assert!(!matches("^a$", "a\n"));
    }

    #[test]
    fn classes_have_the_meaning_of_re2() {
        assert!(matches(r"^web-\d+$", "web-12") && !matches(r"^\d$", "\u{0663}"));
        assert!(matches(r"^[\w.-]+$", "a_b.c-9") && !matches(r"^\w$", "\u{fc}"));
        assert!(matches(r"^a\s\S\W\D\b.$", "a b-cd") || matches(r"^a\s\S$", "a b"));
        assert!(matches(r"^\\d$", r"\d"));
        assert!(matches("^(?i)prod$", "PROD"));
    }

    // I80
    #[test]
    fn what_does_not_parse_or_is_too_large_is_refused_in_one_line() {
        let long = format!("^{}$", "a".repeat(2000));
        for bad in
            ["^we(b$", "^(a{1000}){1000}$", "^a)|(b$", "^[a$", r"^(?<n$", r"^\p{Greek}$", &long, &"x".repeat(1025)]
        {
            let cause = Pattern::new(bad).unwrap_err().to_string();
            assert!(!cause.contains('\n') && cause.len() < 400, "{cause}");
        }
        let nested = format!("^{}a{}$", "(".repeat(400), ")".repeat(400));
        assert!(Pattern::new(&nested).is_err());
    }

    // I25
    #[test]
    fn no_pattern_takes_more_than_linear_time() {
        // The least of some runs, so that what else the machine does counts little.
        let least = |pattern: &Pattern, value: &str| {
            let run = |_| {
                let begun = Instant::now();
                assert!(!pattern.matches(value));
                begun.elapsed()
            };
            (0..5).map(run).min().unwrap()
        };
        let (short, long) = ("a".repeat(2_000), "a".repeat(20_000));
        for pattern in ["^(a+)+b$", "^(a|aa)+b$", "^(a*)*(a*)*b$", "*a*a*a*b"] {
            let pattern = Pattern::new(pattern).unwrap();
            let (short, long) = (least(&pattern, &short), least(&pattern, &long));
            // Ten times the text takes ten times as long; where it went with the square, it would take a hundred times.
            assert!(long < 60 * short.max(FLOOR), "{pattern:?}: {short:?} and {long:?}");
        }
    }

    /// Less than this is taken for this, which is more than a clock is wrong by and less than a square would need.
    const FLOOR: Duration = Duration::from_micros(200);
}
