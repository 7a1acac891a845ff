//! Exclusive canonical XML (W3C recommendation of 18 July 2002, without comments) of a tree or a part of it. Owns the one writer of XML of this
//! module: what is sent is written by it too.

use std::{collections::BTreeMap, sync::Arc};

use super::tree::{Attribute, Element, Node};

/// Largest canonical form, in octets. It may be larger than the document, for declarations are repeated where they are used.
const MAX_CANONICAL: usize = 512 * 1024;

/// What is written, of the element it begins at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// A child of that element that is left out with all that is in it (the enveloped signature), by its place among the children.
    without: Option<usize>,
    /// Prefixes whose declarations are written as inclusive canonical XML does, `#default` as the empty one.
    inclusive: Vec<&'a str>,
    /// Elements around it, the outermost first: declarations there may be in scope.
    around: Vec<&'a Element>,
}

impl<'a> Choice<'a> {
    /// All of a document.
    pub(crate) fn whole() -> Self {
        Self::default()
    }

    /// Leaves out one child.
    pub(crate) fn without(mut self, child: usize) -> Self {
        self.without = Some(child);
        self
    }

    /// With an `InclusiveNamespaces PrefixList`, and the elements around.
    pub(crate) fn inclusive(mut self, prefixes: Vec<&'a str>, around: Vec<&'a Element>) -> Self {
        self.inclusive = prefixes;
        self.around = around;
        self
    }
}

/// The canonical form would be larger than any message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// The canonical octets of `element`.
pub(crate) fn canonical(element: &Element, choice: &Choice<'_>) -> Result<Vec<u8>, TooLarge> {
    let mut scope = Scope::new();
    for outer in &choice.around {
        scope = entered(&scope, outer, &choice.inclusive);
    }
    let mut writer = Writer { out: String::new(), inclusive: &choice.inclusive };
    writer.element(element, &scope, &Scope::new(), choice.without)?;
    Ok(writer.out.into_bytes())
}

/// Prefixes and what they stand for.
type Scope = BTreeMap<Box<str>, Arc<str>>;

/// The scope within `element`, as far as it is asked for: for inclusive prefixes.
fn entered(scope: &Scope, element: &Element, inclusive: &[&str]) -> Scope {
    let mut within = scope.clone();
    for (prefix, uri) in &element.declarations {
        if inclusive.contains(&&**prefix) {
            within.insert(prefix.clone(), uri.clone());
        }
    }
    within
}

struct Writer<'a> {
    out: String,
    inclusive: &'a [&'a str],
}

impl Writer<'_> {
    fn element(
        &mut self,
        element: &Element,
        scope: &Scope,
        rendered: &Scope,
        without: Option<usize>,
    ) -> Result<(), TooLarge> {
        let scope = entered(scope, element, self.inclusive);
        let mut used: BTreeMap<&str, &Arc<str>> = scope.iter().map(|(prefix, uri)| (&**prefix, uri)).collect();
        used.insert(&element.prefix, &element.namespace);
        let prefixed = element.attributes.iter().filter(|attribute| !attribute.prefix.is_empty());
        used.extend(prefixed.map(|attribute| (&*attribute.prefix, &attribute.namespace)));
        used.remove("xml");

        self.push(&["<"])?;
        self.name(&element.prefix, &element.local)?;
        let mut within = rendered.clone();
        for (prefix, uri) in used {
            let before = rendered.get(prefix);
            // No default namespace need not be said where there was none.
            if before.map_or("", |uri| uri) == &**uri && (before.is_some() || prefix.is_empty()) {
                continue;
            }
            match prefix {
                "" => self.push(&[" xmlns=\""])?,
                prefix => self.push(&[" xmlns:", prefix, "=\""])?,
            }
            self.value(uri)?;
            within.insert(prefix.into(), uri.clone());
        }
        let mut attributes: Vec<&Attribute> = element.attributes.iter().collect();
        attributes.sort_by(|one, other| (&one.namespace, &one.local).cmp(&(&other.namespace, &other.local)));
        for attribute in attributes {
            self.push(&[" "])?;
            self.name(&attribute.prefix, &attribute.local)?;
            self.push(&["=\""])?;
            self.value(&attribute.value)?;
        }
        self.push(&[">"])?;
        for (at, child) in element.children.iter().enumerate() {
            match child {
                _ if without == Some(at) => {}
                Node::Element(child) => self.element(child, &scope, &within, None)?,
                Node::Text(text) => self.text(text)?,
            }
        }
        self.push(&["</"])?;
        self.name(&element.prefix, &element.local)?;
        self.push(&[">"])
    }

    fn name(&mut self, prefix: &str, local: &str) -> Result<(), TooLarge> {
        if prefix.is_empty() { self.push(&[local]) } else { self.push(&[prefix, ":", local]) }
    }

    /// The value of an attribute, and the quote that ends it.
    fn value(&mut self, value: &str) -> Result<(), TooLarge> {
        self.escaped(value, |c| match c {
            '&' => Some("&amp;"),
            '<' => Some("&lt;"),
            '"' => Some("&quot;"),
            '\t' => Some("&#x9;"),
            '\n' => Some("&#xA;"),
            '\r' => Some("&#xD;"),
            _ => None,
        })?;
        self.push(&["\""])
    }

    fn text(&mut self, text: &str) -> Result<(), TooLarge> {
        self.escaped(text, |c| match c {
            '&' => Some("&amp;"),
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '\r' => Some("&#xD;"),
            _ => None,
        })
    }

    fn escaped(&mut self, text: &str, escape: impl Fn(char) -> Option<&'static str>) -> Result<(), TooLarge> {
        let mut buffer = [0; 4];
        text.chars().try_for_each(|c| self.push(&[escape(c).unwrap_or_else(|| c.encode_utf8(&mut buffer))]))
    }

    fn push(&mut self, pieces: &[&str]) -> Result<(), TooLarge> {
        for piece in pieces {
            if self.out.len() + piece.len() > MAX_CANONICAL {
                return Err(TooLarge);
            }
            self.out.push_str(piece);
        }
        Ok(())
    }
}
