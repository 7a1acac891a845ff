//! Rules over the product's own resources: who may list, read or change users, roles, tokens, events, sessions.

use crate::{Policy, RoleName, UserIdentity};

/// What is done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// See that it exists.
    List,
    /// See it whole.
    Read,
    /// Make one.
    Create,
    /// Change one.
    Update,
    /// Remove one.
    Delete,
}

impl Verb {
    const ALL: &'static [Self] = &[Self::List, Self::Read, Self::Create, Self::Update, Self::Delete];

    /// The verbs a word in a role stands for.
    pub(crate) fn parse(word: &str) -> Option<&'static [Self]> {
        Some(match word {
            "list" => &[Self::List],
            "read" => &[Self::Read],
            "create" => &[Self::Create],
            "update" => &[Self::Update],
            "delete" => &[Self::Delete],
            "*" => Self::ALL,
            _ => return None,
        })
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Proof that a user may do `verb` with resources of `kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAccess {
    kind: String,
    verb: Verb,
    role: RoleName,
}

impl RuleAccess {
    /// Kind of resource.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What may be done.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        self.verb
    }

    /// The role that allows it.
    #[must_use]
    pub const fn role(&self) -> &RoleName {
        &self.role
    }
}

/// Decides whether `user` may do `verb` with resources of `kind`. Deny beats allow; a role that is gone grants nothing and,
/// because what it denied is not known any more, refuses all.
#[must_use]
pub fn authorize_rule(user: &UserIdentity, policy: &Policy, kind: &str, verb: Verb) -> Option<RuleAccess> {
    let roles = policy.roles_of(user).ok()?;
    let names = |rules: &[(Vec<String>, Vec<Verb>)]| {
        rules.iter().any(|(resources, verbs)| {
            verbs.contains(&verb) && resources.iter().any(|resource| resource == "*" || resource == kind)
        })
    };
    if roles.iter().any(|role| names(&role.deny().rules)) {
        return None;
    }
    let role = roles.iter().find(|role| names(&role.allow().rules))?;
    Some(RuleAccess { kind: kind.to_owned(), verb, role: role.name().clone() })
}
