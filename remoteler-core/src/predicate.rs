//! The predicate language of roles: label expressions such as `labels["env"] == "dev" && contains(user.spec.traits["teams"], labels["team"])`,
//! and what stands between `{{` and `}}`. Owns the checked form and its evaluation, which is total: it ends, within bounds, for every
//! input. Text becomes syntax in [`syntax`]; types and names are checked here, once, when a role is loaded.

mod syntax;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use syntax::{Operator, Syntax};

use crate::{Pattern, PatternError, Traits, label::LabelView, pattern::Expression};

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredicateError {
    /// It does not parse.
    #[error("{expected} is expected at character {at}")]
    Syntax {
        /// What the grammar asks for.
        expected: &'static str,
        /// Where, counted from 1.
        at: usize,
    },
    /// Longer or deeper than any expression needs to be.
    #[error("an expression has at most {MAX_OCTETS} octets and {MAX_DEPTH} levels")]
    TooLarge,
    /// A name that means nothing here.
    #[error("{name:?} is unknown here; known are {known}")]
    Unknown {
        /// As written.
        name: String,
        /// What there is.
        known: &'static str,
    },
    /// A value of another kind than is needed.
    #[error("{wanted} is needed for {place}")]
    Type {
        /// What would fit.
        wanted: &'static str,
        /// Function or operator.
        place: String,
    },
    /// A pattern in it cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Why an expression has no value for one user and thing. Allow rules take it for no, deny rules for yes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// `email.local` of something else.
    #[error("a value is no email address")]
    NoEmail,
    /// A replacement has grown beyond all use.
    #[error("a value is longer than {MAX_VALUE} octets")]
    TooLong,
}

/// What expressions and templates see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) user: &'a str,
    pub(crate) traits: &'a Traits,
    pub(crate) labels: &'a LabelView<'a>,
}

/// A condition on user and labels.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Equal(Text, Text),
    Contains(List, Text),
    ContainsAny(List, List),
    ContainsAll(List, List),
    Matches(List, Pattern),
}

/// One text.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Literal(Box<str>),
    /// Empty when there is no such label.
    Label(Box<str>),
    User,
}

/// Several texts.
#[derive(Clone, Debug)]
pub(crate) enum List {
    One(Text),
    Trait(Box<str>),
    LabelsMatching(Pattern),
    Replace(Box<Self>, Expression, Box<str>),
    EmailLocal(Box<Self>),
    Upper(Box<Self>),
    Lower(Box<Self>),
}

impl Predicate {
    /// Parses a label expression.
    pub(crate) fn new(text: &str) -> Result<Self, PredicateError> {
        predicate(&syntax::parse(text)?)
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        Ok(match self {
            Self::And(one, other) => both(one.holds(scope), || other.holds(scope), false)?,
            Self::Or(one, other) => both(one.holds(scope), || other.holds(scope), true)?,
            Self::Not(inside) => !inside.holds(scope)?,
            Self::Equal(one, other) => one.value(scope) == other.value(scope),
            Self::Contains(list, item) => {
                let item = item.value(scope);
                match list.plain_trait() {
                    // The usual case costs no memory.
                    Some(found) => scope.traits.get(found).into_iter().flatten().any(|value| value == item),
                    None => list.values(scope)?.iter().any(|value| *value == item),
                }
            }
            Self::ContainsAny(list, items) => {
                let (list, items) = (list.values(scope)?, items.values(scope)?);
                items.iter().any(|item| list.contains(item))
            }
            // Of no items at all it would hold for everything: what is missing would grant (I80).
            Self::ContainsAll(list, items) => {
                let (list, items) = (list.values(scope)?, items.values(scope)?);
                !items.is_empty() && items.iter().all(|item| list.contains(item))
            }
            Self::Matches(list, pattern) => list.values(scope)?.iter().any(|value| pattern.matches(value)),
        })
    }
}

/// `&&` and `||`: either side that says `settles` decides, also when the other has no value.
fn both(
    one: Result<bool, EvalError>,
    other: impl FnOnce() -> Result<bool, EvalError>,
    settles: bool,
) -> Result<bool, EvalError> {
    if one == Ok(settles) {
        return Ok(settles);
    }
    match other() {
        Ok(value) if value == settles => Ok(settles),
        rest => one.and(rest),
    }
}

impl Text {
    fn value<'a>(&'a self, scope: &Scope<'a>) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Label(name) => scope.labels.get(name).unwrap_or_default(),
            Self::User => scope.user,
        }
    }
}

impl List {
    /// Parses what stands between `{{` and `}}`: values drawn from the user's traits.
    pub(crate) fn of_traits(text: &str) -> Result<Self, PredicateError> {
        list(&syntax::parse(text)?, Words::Template)
    }

    /// The name of the trait, where this is one as it is.
    pub(crate) fn plain_trait(&self) -> Option<&str> {
        match self {
            Self::Trait(name) => Some(name),
            Self::One(_)
            | Self::LabelsMatching(_)
            | Self::Replace(..)
            | Self::EmailLocal(_)
            | Self::Upper(_)
            | Self::Lower(_) => None,
        }
    }

    pub(crate) fn values<'a>(&'a self, scope: &Scope<'a>) -> Result<Vec<Cow<'a, str>>, EvalError> {
        let borrowed = |text: &'a str| Cow::Borrowed(text);
        Ok(match self {
            Self::One(text) => vec![borrowed(text.value(scope))],
            Self::Trait(name) => scope.traits.get(&**name).into_iter().flatten().map(|text| borrowed(text)).collect(),
            Self::LabelsMatching(pattern) => {
                let labels = scope.labels.iter().filter(|(name, _)| pattern.matches(name));
                labels.map(|(_, value)| borrowed(value)).collect()
            }
            // A value in which nothing is replaced is none of those that are meant, and is left out.
            Self::Replace(inside, expression, replacement) => {
                let values = inside.values(scope)?;
                let replaced = values.iter().filter_map(|value| expression.replace(value, replacement));
                replaced.map(|value| bounded(value).map(Cow::Owned)).collect::<Result<_, _>>()?
            }
            Self::EmailLocal(inside) => {
                let local = |value: &Cow<'_, str>| match value.split_once('@') {
                    Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@') => {
                        Ok(Cow::Owned(local.to_owned()))
                    }
                    Some(_) | None => Err(EvalError::NoEmail),
                };
                inside.values(scope)?.iter().map(local).collect::<Result<_, _>>()?
            }
            Self::Upper(inside) => changed(inside, scope, str::to_uppercase)?,
            Self::Lower(inside) => changed(inside, scope, str::to_lowercase)?,
        })
    }
}

fn changed<'a>(
    inside: &'a List,
    scope: &Scope<'a>,
    change: impl Fn(&str) -> String,
) -> Result<Vec<Cow<'a, str>>, EvalError> {
    inside.values(scope)?.iter().map(|value| bounded(change(value)).map(Cow::Owned)).collect()
}

fn bounded(value: String) -> Result<String, EvalError> {
    if value.len() > MAX_VALUE { Err(EvalError::TooLong) } else { Ok(value) }
}

/// Which names mean something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// `labels`, `user.spec.traits`, `user.metadata.name`.
    Labels,
    /// `internal`, `external`.
    Template,
}

const TESTS: &str =
    "contains, contains_any, contains_all, equals, regexp.match, and the operators ==, !=, &&, || and !";
const LISTS: &str = "labels[\"…\"], labels_matching(\"…\"), user.spec.traits[\"…\"], user.metadata.name, regexp.replace, email.local, strings.upper and strings.lower";
const TRAITS: &str =
    "internal.NAME, external.NAME, external[\"NAME\"], email.local, regexp.replace, strings.upper and strings.lower";

fn predicate(syntax: &Syntax) -> Result<Predicate, PredicateError> {
    let boxed = |syntax: &Syntax| predicate(syntax).map(Box::new);
    let words = Words::Labels;
    match syntax {
        Syntax::Not(inside) => Ok(Predicate::Not(boxed(inside)?)),
        Syntax::Binary(Operator::And, one, other) => Ok(Predicate::And(boxed(one)?, boxed(other)?)),
        Syntax::Binary(Operator::Or, one, other) => Ok(Predicate::Or(boxed(one)?, boxed(other)?)),
        Syntax::Binary(Operator::Equal, one, other) => Ok(Predicate::Equal(text(one, "==")?, text(other, "==")?)),
        Syntax::Binary(Operator::Unequal, one, other) => {
            Ok(Predicate::Not(Box::new(Predicate::Equal(text(one, "!=")?, text(other, "!=")?))))
        }
        Syntax::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("contains", [one, item]) => Ok(Predicate::Contains(list(one, words)?, text(item, "contains")?)),
            ("equals", [one, other]) => Ok(Predicate::Equal(text(one, "equals")?, text(other, "equals")?)),
            ("contains_any", [one, items]) => Ok(Predicate::ContainsAny(list(one, words)?, list(items, words)?)),
            ("contains_all", [one, items]) => Ok(Predicate::ContainsAll(list(one, words)?, list(items, words)?)),
            ("regexp.match", [one, pattern]) => {
                Ok(Predicate::Matches(list(one, words)?, Pattern::new(literal(pattern, "regexp.match")?)?))
            }
            ("contains" | "equals" | "contains_any" | "contains_all" | "regexp.match", _) => {
                Err(PredicateError::Type { wanted: "two arguments", place: name.clone() })
            }
            _ => Err(PredicateError::Unknown { name: short(name), known: TESTS }),
        },
        Syntax::Literal(_) | Syntax::Path(_) => Err(PredicateError::Type {
            wanted: "a comparison or a function that is true or false",
            place: "a condition".into(),
        }),
    }
}

fn text(syntax: &Syntax, place: &str) -> Result<Text, PredicateError> {
    match syntax {
        Syntax::Literal(text) => Ok(Text::Literal(text.as_str().into())),
        Syntax::Path(path) => match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["labels", name] => Ok(Text::Label((*name).into())),
            ["user", "metadata", "name"] => Ok(Text::User),
            ["user", "spec", "traits", _] => {
                Err(PredicateError::Type { wanted: "one text, not the list of a trait's values,", place: place.into() })
            }
            other => Err(PredicateError::Unknown { name: short(&other.join(".")), known: LISTS }),
        },
        Syntax::Call(..) | Syntax::Not(_) | Syntax::Binary(..) => {
            Err(PredicateError::Type { wanted: "a text in quotes or a label", place: place.into() })
        }
    }
}

fn list(syntax: &Syntax, words: Words) -> Result<List, PredicateError> {
    let known = if words == Words::Template { TRAITS } else { LISTS };
    let inside = |syntax: &Syntax| list(syntax, words).map(Box::new);
    match syntax {
        Syntax::Path(path) if words == Words::Template => match path.as_slice() {
            [space, name] if (space == "internal" || space == "external") && !name.is_empty() => {
                Ok(List::Trait(name.as_str().into()))
            }
            other => Err(PredicateError::Unknown { name: short(&other.join(".")), known }),
        },
        Syntax::Path(path) => match path.as_slice() {
            [user, spec, traits, name] if user == "user" && spec == "spec" && traits == "traits" => {
                Ok(List::Trait(name.as_str().into()))
            }
            _ => text(syntax, "a list").map(List::One),
        },
        Syntax::Literal(_) if words == Words::Labels => text(syntax, "a list").map(List::One),
        Syntax::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("labels_matching", [pattern]) if words == Words::Labels => {
                Ok(List::LabelsMatching(Pattern::new(literal(pattern, name)?)?))
            }
            ("regexp.replace", [one, expression, replacement]) => Ok(List::Replace(
                inside(one)?,
                Expression::search(literal(expression, name)?)?,
                literal(replacement, name)?.into(),
            )),
            ("email.local", [one]) => Ok(List::EmailLocal(inside(one)?)),
            ("strings.upper", [one]) => Ok(List::Upper(inside(one)?)),
            ("strings.lower", [one]) => Ok(List::Lower(inside(one)?)),
            ("email.local" | "strings.upper" | "strings.lower", _) => {
                Err(PredicateError::Type { wanted: "one argument", place: name.clone() })
            }
            ("regexp.replace", _) => Err(PredicateError::Type { wanted: "three arguments", place: name.clone() }),
            _ => Err(PredicateError::Unknown { name: short(name), known }),
        },
        Syntax::Literal(_) | Syntax::Not(_) | Syntax::Binary(..) => {
            Err(PredicateError::Type { wanted: "a list of values", place: "this place".into() })
        }
    }
}

fn literal<'a>(syntax: &'a Syntax, place: &str) -> Result<&'a str, PredicateError> {
    match syntax {
        Syntax::Literal(text) => Ok(text),
        Syntax::Path(_) | Syntax::Call(..) | Syntax::Not(_) | Syntax::Binary(..) => {
            Err(PredicateError::Type { wanted: "a text in quotes", place: place.into() })
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Longest expression.
const MAX_OCTETS: usize = 4096;
/// Deepest nesting of parentheses, calls and `!`; also the longest chain of `&&` and `||`.
const MAX_DEPTH: usize = 64;
/// Longest value on the way.
const MAX_VALUE: usize = 4096;
