//! Labels of things and the patterns that roles hold against them.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::{
    PatternError, TemplateError,
    predicate::{EvalError, Predicate, Scope},
    template::TextPattern,
};

/// Labels of a node, cluster or app: name to value.
pub type Labels = BTreeMap<String, String>;

/// Why a label pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A pattern is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A `{{…}}` is wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// `"*"` as a name stands for every label; it says nothing with another value than `"*"`.
    #[error("the label name \"*\" goes with the value \"*\" only; name the label that is meant")]
    WildcardName,
}

/// The labels of one thing, as the conditions of many roles ask for them.
#[derive(Clone, Debug)]
pub(crate) struct LabelView<'a> {
    labels: &'a Labels,
    /// Where it pays: the keys of a map in order share long beginnings, and each question compares several of them.
    index: Option<HashMap<&'a str, &'a str>>,
}

impl<'a> LabelView<'a> {
    /// Of `labels`, for so many roles.
    pub(crate) fn of(labels: &'a Labels, roles: usize) -> Self {
        let pays = labels.len() >= WORTH_AN_INDEX && roles >= WORTH_AN_INDEX;
        let pairs = || labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Self { labels, index: pays.then(|| pairs().collect()) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        match &self.index {
            Some(index) => index.get(name).copied(),
            None => self.labels.get(name).map(String::as_str),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// From how many labels and roles on.
const WORTH_AN_INDEX: usize = 8;

/// One value or several, as YAML lets both be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts (numbers, yes and no need quotes)")]
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
pub(crate) struct LabelMatcher {
    everything: bool,
    conditions: Vec<(Box<str>, Vec<TextPattern>)>,
}

impl LabelMatcher {
    /// Parses the map of a role document.
    ///
    /// # Errors
    /// The first pattern that cannot be used.
    pub(crate) fn new(spec: &BTreeMap<String, OneOrMany>) -> Result<Self, LabelError> {
        let mut matcher = Self::default();
        for (name, patterns) in spec {
            if name == "*" {
                if patterns.iter().any(|pattern| pattern != "*") {
                    return Err(LabelError::WildcardName);
                }
                matcher.everything = true;
                continue;
            }
            let patterns = patterns.iter().map(TextPattern::new).collect::<Result<Vec<_>, _>>()?;
            matcher.conditions.push((name.as_str().into(), patterns));
        }
        Ok(matcher)
    }

    /// Whether the labels of `scope` meet every condition; an absent label never does.
    ///
    /// # Errors
    /// [`EvalError`] when a template cannot be worked out for this user, and the rest does not settle it.
    pub(crate) fn matches(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        if self.everything || self.conditions.is_empty() {
            return Ok(self.everything);
        }
        let mut unsure = None;
        for (name, patterns) in &self.conditions {
            let Some(value) = scope.labels.get(name) else { return Ok(false) };
            let (mut met, mut doubt) = (false, None);
            for pattern in patterns {
                match pattern.matches(value, scope) {
                    Ok(fits) => met |= fits,
                    Err(cause) => doubt = Some(cause),
                }
            }
            match doubt {
                None if !met => return Ok(false),
                Some(cause) if !met => unsure = Some(cause),
                None | Some(_) => {}
            }
        }
        unsure.map_or(Ok(true), Err)
    }

    /// Whether any condition at all stands here.
    pub(crate) fn is_empty(&self) -> bool {
        !self.everything && self.conditions.is_empty()
    }
}

/// Labels and label expression of one side of a role, for one kind of thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelRule {
    labels: LabelMatcher,
    expression: Option<Predicate>,
}

impl LabelRule {
    pub(crate) const fn new(labels: LabelMatcher, expression: Option<Predicate>) -> Self {
        Self { labels, expression }
    }

    /// As a grant: what stands here must all hold, something must stand here, and what cannot be worked out grants nothing.
    pub(crate) fn allows(&self, scope: &Scope<'_>) -> bool {
        let labels = self.labels.is_empty() || self.labels.matches(scope) == Ok(true);
        match &self.expression {
            None => !self.labels.is_empty() && labels,
            Some(expression) => labels && expression.holds(scope) == Ok(true),
        }
    }

    /// As a denial: one of both is enough, and what cannot be worked out denies.
    pub(crate) fn denies(&self, scope: &Scope<'_>) -> bool {
        self.labels.matches(scope) != Ok(false)
            || self.expression.as_ref().is_some_and(|expression| expression.holds(scope) != Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Traits;

    fn matcher(spec: &[(&str, &[&str])]) -> LabelMatcher {
        let spec = spec
            .iter()
            .map(|(name, values)| ((*name).into(), OneOrMany::Many(values.iter().map(|v| (*v).into()).collect())))
            .collect();
        LabelMatcher::new(&spec).unwrap()
    }

    fn fits(matcher: &LabelMatcher, labels: &[(&str, &str)]) -> Result<bool, EvalError> {
        let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let traits = Traits::from([("teams".into(), vec!["apps".into(), "*".into()])]);
        matcher.matches(&Scope { user: "ann", traits: &traits, labels: &LabelView::of(&labels, 1) })
    }

    #[test]
    fn every_named_label_must_be_there_and_fit() {
        let both = matcher(&[("env", &["dev", "staging"]), ("team", &["^a.+$"])]);
        assert_eq!(fits(&both, &[("env", "dev"), ("team", "apps"), ("x", "y")]), Ok(true));
        assert_eq!(fits(&both, &[("env", "dev")]), Ok(false));
        assert_eq!(fits(&both, &[("env", "prod"), ("team", "apps")]), Ok(false));
    }

    #[test]
    fn no_condition_matches_nothing_and_the_star_matches_all() {
        assert_eq!(fits(&LabelMatcher::default(), &[("env", "dev")]), Ok(false)); // I80
        assert_eq!(fits(&matcher(&[("*", &["*"])]), &[]), Ok(true));
        assert_eq!(fits(&matcher(&[("*", &["*"]), ("env", &["prod"])]), &[("env", "dev")]), Ok(true));
        let half = BTreeMap::from([("*".to_owned(), OneOrMany::One("prod".to_owned()))]);
        assert_eq!(LabelMatcher::new(&half).unwrap_err(), LabelError::WildcardName);
    }

    #[test]
    fn a_trait_in_a_label_stands_for_its_own_text_and_never_for_a_pattern() {
        let own = matcher(&[("team", &["{{external.teams}}"])]);
        assert_eq!(fits(&own, &[("team", "apps")]), Ok(true));
        assert_eq!(fits(&own, &[("team", "*")]), Ok(true));
        assert_eq!(fits(&own, &[("team", "database")]), Ok(false)); // I80: the trait's value `*` is no wildcard
        let around = matcher(&[("team", &["*-{{external.teams}}-?"])]);
        assert_eq!(fits(&around, &[("team", "eu-apps-1")]), Ok(true));
        assert_eq!(fits(&around, &[("team", "eu-apps-")]), Ok(false));
        assert_eq!(fits(&matcher(&[("team", &["{{external.none}}"])]), &[("team", "")]), Ok(false));
    }

    #[test]
    fn a_template_that_cannot_be_worked_out_is_an_error_only_where_it_decides() {
        let local = matcher(&[("owner", &["{{email.local(external.teams)}}"]), ("env", &["dev"])]);
        assert!(fits(&local, &[("owner", "ann"), ("env", "dev")]).is_err()); // I80
        assert_eq!(fits(&local, &[("owner", "ann"), ("env", "prod")]), Ok(false));
        assert_eq!(fits(&local, &[("env", "dev")]), Ok(false));
    }

    // I80
    #[test]
    fn what_cannot_be_worked_out_grants_nothing_and_denies() {
        let (traits, labels) = (Traits::from([("email".into(), vec!["broken".into()])]), Labels::new());
        let labels = LabelView::of(&labels, 1);
        let scope = Scope { user: "ann", traits: &traits, labels: &labels };
        let broken = Predicate::new(r#"contains(email.local(user.spec.traits["email"]), "x")"#).unwrap();
        let rule = LabelRule::new(LabelMatcher::default(), Some(broken));
        assert!(!rule.allows(&scope) && rule.denies(&scope));
        assert!(!LabelRule::default().allows(&scope) && !LabelRule::default().denies(&scope));
    }

    #[test]
    fn labels_and_expression_must_both_allow_and_either_denies() {
        let (traits, labels) =
            (Traits::new(), Labels::from([("env".into(), "dev".into()), ("team".into(), "db".into())]));
        let labels = LabelView::of(&labels, 1);
        let scope = Scope { user: "ann", traits: &traits, labels: &labels };
        for (env, team) in [("dev", "db"), ("dev", "x"), ("x", "db"), ("x", "x")] {
            let expression = Predicate::new(&format!("labels[\"team\"] == \"{team}\"")).unwrap();
            let rule = LabelRule::new(matcher(&[("env", &[env])]), Some(expression));
            assert_eq!(rule.allows(&scope), env == "dev" && team == "db");
            assert_eq!(rule.denies(&scope), env == "dev" || team == "db");
        }
    }

    #[test]
    fn many_labels_and_roles_get_the_answers_that_few_get() {
        let labels: Labels = (0..40).map(|number| (format!("label-{number}"), format!("value-{number}"))).collect();
        let (few, many) = (LabelView::of(&labels, 1), LabelView::of(&labels, 40));
        assert!(few.index.is_none() && many.index.is_some());
        for name in labels.keys().map(String::as_str).chain(["", "label-", "label-40", "LABEL-1"]) {
            assert_eq!(few.get(name), many.get(name), "{name}");
            assert_eq!(many.get(name), labels.get(name).map(String::as_str), "{name}");
        }
        assert!(few.iter().eq(many.iter()));
    }
}
