//! `{{internal.logins}}` and `{{external.email}}` in roles: a list of values drawn from the user's traits.

use crate::Traits;

/// Why a `{{…}}` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no template: {reason}")]
pub struct TemplateError {
    text: String,
    reason: &'static str,
}

/// Text with at most one `{{internal.NAME}}` or `{{external.NAME}}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    before: String,
    name: Option<String>,
    after: String,
}

impl Template {
    pub(crate) fn new(text: &str) -> Result<Self, TemplateError> {
        let fail = |reason| TemplateError { text: text.chars().take(80).collect(), reason };
        let Some((before, rest)) = text.split_once("{{") else {
            return if text.contains("}}") {
                Err(fail("'}}' without '{{'"))
            } else {
                Ok(Self { before: text.into(), name: None, after: String::new() })
            };
        };
        let (inside, after) = rest.split_once("}}").ok_or_else(|| fail("'{{' without '}}'"))?;
        if after.contains("{{") || after.contains("}}") {
            return Err(fail("only one {{…}} is allowed"));
        }
        let inside = inside.trim();
        let name = inside.strip_prefix("internal.").or_else(|| inside.strip_prefix("external."));
        let name = name.ok_or_else(|| fail("{{internal.NAME}} or {{external.NAME}} is expected"))?;
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'.' | b':'))
        {
            return Err(fail("a trait's name has letters, digits and '_', '-', '.', '/', ':'"));
        }
        Ok(Self { before: before.into(), name: Some(name.into()), after: after.into() })
    }

    /// One result for each value of the trait; none when the user does not have it.
    pub(crate) fn expand(&self, traits: &Traits) -> Vec<String> {
        match &self.name {
            None => vec![self.before.clone()],
            Some(name) => {
                let values = traits.get(name).map(Vec::as_slice).unwrap_or_default();
                values.iter().filter(|v| !v.is_empty()).map(|v| format!("{}{v}{}", self.before, self.after)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gives_one_result_for_each_value_and_none_for_a_missing_trait() {
        let traits = Traits::from([("logins".into(), vec!["root".into(), "ubuntu".into()])]);
        assert_eq!(Template::new("{{internal.logins}}").unwrap().expand(&traits), ["root", "ubuntu"]);
        assert_eq!(Template::new("x-{{ external.logins }}").unwrap().expand(&traits), ["x-root", "x-ubuntu"]);
        assert!(Template::new("{{external.email}}").unwrap().expand(&traits).is_empty());
        assert_eq!(Template::new("ubuntu").unwrap().expand(&traits), ["ubuntu"]);
    }

    #[test]
    fn malformed_templates_are_refused() {
        for bad in
            ["{{internal.logins", "internal.logins}}", "{{logins}}", "{{internal.}}", "{{internal.a}}{{internal.b}}"]
        {
            assert!(Template::new(bad).is_err(), "{bad}");
        }
    }
}
