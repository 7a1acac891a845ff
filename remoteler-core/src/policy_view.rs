//! The rules on their way from the auth service to a service: what is different from what the service has, in parts. Owns the form, and what
//! makes two views the same. Never says what a rule means.

use std::{fmt, str::FromStr};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{ClusterSettings, Locks, Resource, Revocations, TrustBundle};

/// Which rules somebody has: a digest of each part, so that an auth service that starts anew knows them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyVersion([[u8; DIGEST]; PARTS]);

const PARTS: usize = 4;
/// Octets of each digest: 96 bits are more than chance finds.
const DIGEST: usize = 12;

/// The rules, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyView {
    /// Authorities, without what is revoked.
    pub trust: TrustBundle,
    /// What is revoked.
    pub revoked: Revocations,
    /// Role documents.
    pub roles: Vec<Resource>,
    /// Locks and settings.
    pub limits: PolicyLimits,
}

/// What holds for everybody beside roles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyLimits {
    /// Locks.
    #[serde(default)]
    pub locks: Locks,
    /// Settings of the cluster.
    #[serde(default)]
    pub settings: ClusterSettings,
}

/// The parts of the rules that differ from what the asker has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyUpdate {
    /// What the asker has with these.
    pub version: PolicyVersion,
    /// Authorities, without what is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustBundle>,
    /// All that is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocations>,
    /// All role documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Resource>>,
    /// All locks, and the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,
}

impl PolicyView {
    /// Takes a trust bundle as it is used apart.
    #[must_use]
    pub fn new(trust: &TrustBundle, roles: Vec<Resource>, limits: PolicyLimits) -> Self {
        let revoked = trust.revoked.clone();
        Self { trust: TrustBundle { revoked: Revocations::default(), ..trust.clone() }, revoked, roles, limits }
    }

    /// The trust bundle as it is used.
    #[must_use]
    pub fn trust_bundle(&self) -> TrustBundle {
        TrustBundle { revoked: self.revoked.clone(), ..self.trust.clone() }
    }

    /// Which these are.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        PolicyVersion([part(&self.trust), part(&self.revoked), part(&self.roles), part(&self.limits)])
    }

    /// What somebody lacks who has `known`; `None` when that is nothing. `version` is that of this view.
    #[must_use]
    pub fn since(&self, version: PolicyVersion, known: Option<PolicyVersion>) -> Option<PolicyUpdate> {
        if known == Some(version) {
            return None;
        }
        let differs = |number: usize| known.is_none_or(|known| known.0.get(number) != version.0.get(number));
        Some(PolicyUpdate {
            version,
            trust: differs(0).then(|| self.trust.clone()),
            revoked: differs(1).then(|| self.revoked.clone()),
            roles: differs(2).then(|| self.roles.clone()),
            limits: differs(3).then(|| self.limits.clone()),
        })
    }

    /// With what has changed.
    #[must_use]
    pub fn with(self, update: PolicyUpdate) -> Self {
        Self {
            trust: update.trust.unwrap_or(self.trust),
            revoked: update.revoked.unwrap_or(self.revoked),
            roles: update.roles.unwrap_or(self.roles),
            limits: update.limits.unwrap_or(self.limits),
        }
    }
}

fn part(content: &impl Serialize) -> [u8; DIGEST] {
    // Strings, lists and maps with string keys always encode; of what would not, nobody has a copy that is the same.
    let content = serde_json::to_vec(content).unwrap_or_default();
    let mut octets = [0; DIGEST];
    for (octet, digest) in octets.iter_mut().zip(digest(&SHA256, &content).as_ref()) {
        *octet = *digest;
    }
    octets
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            for octet in part {
                write!(f, "{octet:02x}")?;
            }
        }
        Ok(())
    }
}

/// Not a version of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of the rules")]
pub struct PolicyVersionError(String);

impl FromStr for PolicyVersion {
    type Err = PolicyVersionError;

    fn from_str(text: &str) -> Result<Self, PolicyVersionError> {
        let wrong = || PolicyVersionError(text.chars().take(120).collect());
        let mut parts = [[0; DIGEST]; PARTS];
        let mut texts = text.split('.');
        for part in &mut parts {
            let hex = texts.next().filter(|hex| hex.len() == 2 * DIGEST && hex.is_ascii()).ok_or_else(wrong)?;
            for (at, octet) in part.iter_mut().enumerate() {
                let digits = hex.get(2 * at..2 * at + 2).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
                *octet = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?;
            }
        }
        if texts.next().is_some() { Err(wrong()) } else { Ok(Self(parts)) }
    }
}

impl Serialize for PolicyVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PolicyVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CaSet, ClusterName, Lock, LockMode, LockTarget, RoleName, RoleSpec};

    fn view() -> PolicyView {
        let empty = || CaSet { ssh: Vec::new(), x509: Vec::new() };
        let mut trust = TrustBundle::new(ClusterName::new("root").unwrap(), empty(), empty());
        trust.revoked = ["ssh-user-7".parse().unwrap()].into_iter().collect();
        let role = Resource::role(&RoleName::new("dev").unwrap(), &RoleSpec::default());
        PolicyView::new(&trust, vec![role], PolicyLimits::default())
    }

    fn names(update: &PolicyUpdate) -> Vec<&'static str> {
        let there = [
            ("trust", update.trust.is_some()),
            ("revoked", update.revoked.is_some()),
            ("roles", update.roles.is_some()),
            ("limits", update.limits.is_some()),
        ];
        there.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    #[test]
    fn who_has_the_rules_gets_nothing_and_who_lacks_a_part_gets_that_part_alone() {
        let before = view();
        let all = before.since(before.version(), None).unwrap();
        assert_eq!(names(&all), ["trust", "revoked", "roles", "limits"]);
        assert_eq!(before.since(before.version(), Some(all.version)), None);

        let mut locked = before.clone();
        let target = LockTarget { user: Some("ann".parse().unwrap()), ..LockTarget::default() };
        let lock = Lock { name: "x".into(), target, message: String::new(), expires: None };
        locked.limits.locks = [lock].into_iter().collect();
        let update = locked.since(locked.version(), Some(before.version())).unwrap();
        assert_eq!(names(&update), ["limits"]);
        assert_eq!(before.clone().with(update), locked);

        let mut revoked = locked.clone();
        revoked.revoked = Revocations::default();
        assert_eq!(names(&revoked.since(revoked.version(), Some(locked.version())).unwrap()), ["revoked"]);
        assert_eq!(revoked.trust_bundle().revoked.len(), 0);
        assert_eq!(before.trust_bundle().revoked.len(), 1);

        let mut strict = before.clone();
        strict.limits.settings.locking_mode = LockMode::Strict;
        assert_eq!(names(&strict.since(strict.version(), Some(before.version())).unwrap()), ["limits"]);
    }

    #[test]
    fn a_version_has_one_spelling_and_an_update_reads_back() {
        let view = view();
        let version = view.version();
        assert_eq!(version.to_string().parse(), Ok(version));
        for wrong in ["", "a.b.c.d", &format!("{version}."), &version.to_string().replace('.', "")] {
            assert!(wrong.parse::<PolicyVersion>().is_err(), "{wrong}");
        }
        let update = view.since(version, None).unwrap();
        let text = serde_json::to_string(&update).unwrap();
        assert_eq!(serde_json::from_str::<PolicyUpdate>(&text).unwrap(), update);
    }
}
