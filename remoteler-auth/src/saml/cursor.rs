//! Reads the elements in an element one after the other, as a schema has them. What is not asked for is refused: nothing is passed over.

use super::tree::Element;

/// The elements of one element that were not taken yet.
pub(crate) struct Cursor<'a> {
    parent: &'a Element,
    rest: Vec<&'a Element>,
}

/// An element does not have the form that SAML gives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{element} {what}")]
pub struct ShapeError {
    /// Local name of the element.
    pub(crate) element: Box<str>,
    /// What is wrong with it.
    pub(crate) what: Box<str>,
}

impl ShapeError {
    pub(crate) fn new(element: &Element, what: impl Into<Box<str>>) -> Self {
        Self { element: shown(element).into(), what: what.into() }
    }
}

impl<'a> Cursor<'a> {
    /// Of the elements in `parent`, which must have no text of its own.
    pub(crate) fn new(parent: &'a Element) -> Result<Self, ShapeError> {
        if parent.has_text() {
            return Err(ShapeError::new(parent, "contains text"));
        }
        let mut rest: Vec<&Element> = parent.elements().collect();
        rest.reverse();
        Ok(Self { parent, rest })
    }

    /// The next one, which must have this name.
    pub(crate) fn need(&mut self, namespace: &str, local: &str) -> Result<&'a Element, ShapeError> {
        self.maybe(namespace, local)
            .ok_or_else(|| ShapeError::new(self.parent, format!("lacks {local} where it is due")))
    }

    /// The next one, if it has this name.
    pub(crate) fn maybe(&mut self, namespace: &str, local: &str) -> Option<&'a Element> {
        self.rest.pop_if(|next| next.is(namespace, local))
    }

    /// All that come next and have this name.
    pub(crate) fn all(&mut self, namespace: &str, local: &str) -> Vec<&'a Element> {
        std::iter::from_fn(|| self.maybe(namespace, local)).collect()
    }

    /// All that are left.
    pub(crate) fn rest(self) -> impl Iterator<Item = &'a Element> {
        self.rest.into_iter().rev()
    }

    /// The next one, to say why it is refused.
    pub(crate) fn peek(&self) -> Option<&'a Element> {
        self.rest.last().copied()
    }

    /// Refuses what is left.
    pub(crate) fn end(self) -> Result<(), ShapeError> {
        match self.rest.last() {
            None => Ok(()),
            Some(next) => {
                Err(ShapeError::new(self.parent, format!("contains {} where nothing is expected", shown(next))))
            }
        }
    }
}

/// The name of an element, as far as a person needs it: letters, digits, `.`, `-` and `_`, for the parser takes no others.
fn shown(element: &Element) -> String {
    element.local.chars().take(40).collect()
}

/// An attribute that must be there and not be empty.
pub(crate) fn need_attribute<'a>(element: &'a Element, local: &str) -> Result<&'a str, ShapeError> {
    let value = element.attribute(local).filter(|value| !value.is_empty());
    value.ok_or_else(|| ShapeError::new(element, format!("lacks {local}")))
}

/// The text of an element that must have some, and nothing else.
pub(crate) fn need_text(element: &Element) -> Result<&str, ShapeError> {
    element
        .text()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| ShapeError::new(element, "has no text, or more than text"))
}

/// That there is nothing in an element.
pub(crate) fn need_empty(element: &Element) -> Result<(), ShapeError> {
    Cursor::new(element)?.end()
}
