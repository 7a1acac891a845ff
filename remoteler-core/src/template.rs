//! `{{internal.logins}}`, `{{external.email}}` and `{{email.local(external.email)}}` in roles: values drawn from the user's traits, with text
//! around them. What a trait says is taken as it is: it never becomes a pattern.

use std::borrow::Cow;

use crate::{
    LabelError, Pattern, Traits,
    label::LabelView,
    predicate::{EvalError, List, PredicateError, Scope},
};

/// Why a `{{…}}` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no template: {reason}")]
pub struct TemplateError {
    text: String,
    reason: String,
}

/// Text with at most one `{{…}}` in it.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    before: Box<str>,
    inside: Option<List>,
    after: Box<str>,
}

impl Template {
    pub(crate) fn new(text: &str) -> Result<Self, TemplateError> {
        let fail = |reason: &str| TemplateError { text: text.chars().take(80).collect(), reason: reason.into() };
        if text.len() > MAX_TEXT {
            return Err(fail("it is longer than 4096 octets"));
        }
        let Some((before, rest)) = text.split_once("{{") else {
            return if text.contains("}}") {
                Err(fail("'}}' without '{{'"))
            } else {
                Ok(Self { before: text.into(), inside: None, after: "".into() })
            };
        };
        let (inside, after) = rest.rsplit_once("}}").ok_or_else(|| fail("'{{' without '}}'"))?;
        // A name with other characters than those of the language is taken after the dot, too.
        let inside = inside.trim();
        let name = inside.strip_prefix("internal.").or_else(|| inside.strip_prefix("external."));
        let simple = |name: &&str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'.' | b':'))
        };
        let list = match name.filter(simple) {
            Some(name) => List::Trait(name.into()),
            None => List::of_traits(inside).map_err(|cause: PredicateError| fail(&cause.to_string()))?,
        };
        Ok(Self { before: before.into(), inside: Some(list), after: after.into() })
    }

    /// The text, when it is the same for everybody.
    pub(crate) fn constant(&self) -> Option<&str> {
        self.inside.is_none().then_some(&*self.before)
    }

    /// One result for each value of the trait; none when the user does not have it.
    pub(crate) fn expand<'a>(&'a self, scope: &Scope<'a>) -> Result<Vec<Cow<'a, str>>, EvalError> {
        let Some(inside) = &self.inside else { return Ok(vec![Cow::Borrowed(&*self.before)]) };
        let mut values = inside.values(scope)?;
        values.retain(|value| !value.is_empty());
        if !self.before.is_empty() || !self.after.is_empty() {
            for value in &mut values {
                *value = Cow::Owned(format!("{}{value}{}", self.before, self.after));
            }
        }
        Ok(values)
    }

    /// Whether `name` is among the results, or one of them is `*`.
    pub(crate) fn names(&self, name: &str, scope: &Scope<'_>) -> Result<bool, EvalError> {
        let fits = |value: &str| value == "*" || value == name;
        if let Some(text) = self.constant() {
            return Ok(fits(text));
        }
        // The usual case, `{{internal.logins}}`, costs no memory.
        if self.before.is_empty()
            && self.after.is_empty()
            && let Some(found) = self.inside.as_ref().and_then(List::plain_trait)
        {
            return Ok(scope.traits.get(found).into_iter().flatten().any(|value| !value.is_empty() && fits(value)));
        }
        Ok(self.expand(scope)?.iter().any(|value| fits(value)))
    }

    /// [`Template::expand`] by the traits alone: templates see nothing else.
    pub(crate) fn expand_for(&self, traits: &Traits) -> Result<Vec<String>, EvalError> {
        let labels = crate::Labels::new();
        let labels = LabelView::of(&labels, 1);
        let values = self.expand(&Scope { user: "", traits, labels: &labels })?;
        Ok(values.into_iter().map(Cow::into_owned).collect())
    }
}

/// A pattern that may have a `{{…}}` in it: text around it is a pattern, the values are texts.
#[derive(Clone, Debug)]
pub(crate) enum TextPattern {
    /// The same for everybody.
    Fixed(Pattern),
    /// Pattern, values, pattern.
    Around(Pattern, Box<Template>, Pattern),
}

impl TextPattern {
    pub(crate) fn new(text: &str) -> Result<Self, LabelError> {
        // `{{` stands for something in no regular expression.
        if !text.contains("{{") || (text.starts_with('^') && text.ends_with('$')) {
            return Ok(Self::Fixed(Pattern::new(text)?));
        }
        let mut template = Template::new(text)?;
        let (before, after) = (std::mem::take(&mut template.before), std::mem::take(&mut template.after));
        Ok(Self::Around(Pattern::new(&before)?, Box::new(template), Pattern::new(&after)?))
    }

    pub(crate) fn matches(&self, value: &str, scope: &Scope<'_>) -> Result<bool, EvalError> {
        match self {
            Self::Fixed(pattern) => Ok(pattern.matches(value)),
            Self::Around(before, template, after) => Ok(template.expand(scope)?.iter().any(|inside| {
                let splits = value.match_indices(&**inside);
                splits.into_iter().any(|(at, found)| {
                    let (start, rest) = value.split_at(at);
                    let end = rest.get(found.len()..).unwrap_or_default();
                    before.matches(start) && after.matches(end)
                })
            })),
        }
    }

    /// Whether every value fits, whoever the user is.
    pub(crate) const fn is_any(&self) -> bool {
        match self {
            Self::Fixed(pattern) => pattern.is_any(),
            Self::Around(..) => false,
        }
    }
}

const MAX_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<Vec<String>, EvalError> {
        let traits = Traits::from([
            ("logins".into(), vec!["root".into(), "ubuntu".into(), String::new()]),
            ("email".into(), vec!["ann@example.com".into()]),
            ("http://schemas.example.com/claims/name".into(), vec!["ann".into()]),
        ]);
        Template::new(text).unwrap_or_else(|cause| panic!("{cause}")).expand_for(&traits)
    }

    #[test]
    fn a_template_gives_one_result_for_each_value_and_none_for_a_missing_trait() {
        for (text, expected) in [
            ("{{internal.logins}}", &["root", "ubuntu"][..]),
            ("x-{{ external.logins }}-y", &["x-root-y", "x-ubuntu-y"]),
            ("{{external.none}}", &[]),
            ("ubuntu", &["ubuntu"]),
            ("{{external[\"logins\"]}}", &["root", "ubuntu"]),
            ("{{external[\"http://schemas.example.com/claims/name\"]}}", &["ann"]),
            ("{{email.local(external.email)}}", &["ann"]),
            ("{{email.local(external.none)}}", &[]),
            ("{{regexp.replace(external.email, \"^(.*)@example.com$\", \"u-$1\")}}", &["u-ann"]),
            ("{{regexp.replace(external.email, \"^(.{3})@(.*)$\", \"${2}/$1\")}}", &["example.com/ann"]),
            ("{{regexp.replace(external.email, \"@elsewhere\", \"\")}}", &[]),
            ("{{strings.upper(email.local(external.email))}}", &["ANN"]),
        ] {
            assert_eq!(expand(text).unwrap(), expected, "{text}");
        }
        assert_eq!(expand("{{email.local(internal.logins)}}"), Err(EvalError::NoEmail));
    }

    // I80
    #[test]
    fn malformed_templates_are_refused() {
        for bad in [
            "{{internal.logins",
            "internal.logins}}",
            "{{logins}}",
            "{{internal.}}",
            "{{internal.a}}{{internal.b}}",
            "{{regexp.match(\"x\")}}",
            "{{email.local()}}",
            "{{\"root\"}}",
            "{{labels[\"env\"]}}",
            "{{regexp.replace(external.a, \"(\", \"\")}}",
            "{{internal.a || internal.b}}",
        ] {
            assert!(Template::new(bad).is_err(), "{bad}");
        }
        let refused = Template::new("{{regexp.not_match(\"x\")}}").unwrap_err().to_string();
        assert!(refused.contains("regexp.not_match"), "{refused}");
    }
}
