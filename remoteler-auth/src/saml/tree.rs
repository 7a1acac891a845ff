//! An XML document as a bounded tree with namespaces. Owns the one parser of this module and all its refusals: DTDs, processing instructions, CDATA,
//! entities other than the five of XML itself, doubled ids, and everything that is not well-formed. Never knows what a document means.

use std::{collections::BTreeSet, sync::Arc};

use quick_xml::{
    Reader,
    escape::{EscapeError, resolve_xml_entity, unescape_with},
    events::{BytesDecl, BytesStart, Event},
};

use super::names;

/// Largest document, in octets (I47).
pub(crate) const MAX_DOCUMENT: usize = 256 * 1024;
/// Deepest nesting of elements (I47).
pub(crate) const MAX_DEPTH: usize = 32;
/// Most attributes of one element; of declarations one more.
const MAX_ATTRIBUTES: usize = 64;
/// Most elements of one document.
const MAX_ELEMENTS: usize = 10_000;

/// Why a document was not read. Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// More octets, levels, elements or attributes than any message of SAML needs.
    #[error("the document has too many {0}")]
    TooLarge(&'static str),
    /// Not the text of an XML document.
    #[error("the document is not well-formed XML: {0}")]
    Malformed(&'static str),
    /// Well-formed, and a way to show two readers two different things.
    #[error("the document contains {0}, which is refused")]
    Refused(&'static str),
}

/// What becomes of comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comments {
    /// A comment refuses the document: messages have none.
    Refuse,
    /// Comments between elements are passed over; one beside text still refuses the document. For files that people write.
    Skip,
}

/// An element with everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// Empty for none.
    pub(crate) prefix: Box<str>,
    pub(crate) local: Box<str>,
    /// Empty for none.
    pub(crate) namespace: Arc<str>,
    /// Without declarations of namespaces, as they stood.
    pub(crate) attributes: Vec<Attribute>,
    /// Prefixes declared here, and for what; the default namespace has the empty prefix.
    pub(crate) declarations: Vec<(Box<str>, Arc<str>)>,
    pub(crate) children: Vec<Node>,
}

/// An attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// Empty for none.
    pub(crate) prefix: Box<str>,
    pub(crate) local: Box<str>,
    /// Empty for none.
    pub(crate) namespace: Arc<str>,
    pub(crate) value: Box<str>,
}

/// What stands in an element. Two texts never stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// Reads a whole document.
    pub(crate) fn parse(octets: &[u8], comments: Comments) -> Result<Self, XmlError> {
        if octets.len() > MAX_DOCUMENT {
            return Err(XmlError::TooLarge("octets"));
        }
        let text = std::str::from_utf8(octets).map_err(|_| XmlError::Malformed("it is not UTF-8"))?;
        // The mark says how the text is encoded and is no part of it (XML 1.0 section 4.3.3).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Builder::new(comments).read(text)
    }

    /// Whether it has this name.
    pub(crate) fn is(&self, namespace: &str, local: &str) -> bool {
        *self.namespace == *namespace && *self.local == *local
    }

    /// The elements in it, in order.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The value of an attribute without a namespace.
    pub(crate) fn attribute(&self, local: &str) -> Option<&str> {
        let found =
            self.attributes.iter().find(|attribute| attribute.namespace.is_empty() && *attribute.local == *local);
        found.map(|attribute| &*attribute.value)
    }

    /// Its text, without white space around it; `None` when there are elements in it.
    pub(crate) fn text(&self) -> Option<&str> {
        match self.children.as_slice() {
            [] => Some(""),
            [Node::Text(text)] => Some(text.trim_matches(SPACE)),
            _ => None,
        }
    }

    /// Whether there is text in it that is not white space.
    pub(crate) fn has_text(&self) -> bool {
        self.children.iter().any(|node| matches!(node, Node::Text(text) if !text.trim_matches(SPACE).is_empty()))
    }

    /// Calls `each` for this element and all below.
    pub(crate) fn walk<'a>(&'a self, each: &mut impl FnMut(&'a Self)) {
        each(self);
        self.elements().for_each(|element| element.walk(each));
    }
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

struct Builder {
    comments: Comments,
    open: Vec<Open>,
    root: Option<Element>,
    elements: usize,
    ids: BTreeSet<Box<str>>,
    /// No namespace, the one value of it.
    none: Arc<str>,
    xml: Arc<str>,
}

struct Open {
    element: Element,
    commented: bool,
}

impl Builder {
    fn new(comments: Comments) -> Self {
        Self {
            comments,
            open: Vec::new(),
            root: None,
            elements: 0,
            ids: BTreeSet::new(),
            none: Arc::from(""),
            xml: Arc::from(names::XML),
        }
    }

    fn read(mut self, text: &str) -> Result<Element, XmlError> {
        let mut reader = Reader::from_str(text);
        let mut first = true;
        loop {
            let event = reader.read_event().map_err(|_| XmlError::Malformed("its markup does not parse"))?;
            match event {
                Event::Eof => break,
                Event::Decl(declaration) if first => check_declaration(&declaration)?,
                Event::Decl(_) => return Err(XmlError::Malformed("a declaration stands elsewhere than at its start")),
                Event::Start(start) => self.start(&start)?,
                Event::Empty(start) => {
                    self.start(&start)?;
                    self.end()?;
                }
                Event::End(_) => self.end()?,
                Event::Text(text) => {
                    if text.contains("]]>") {
                        return Err(XmlError::Malformed("a section ends that did not begin"));
                    }
                    self.text(&text.xml10_content())?;
                }
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|_| BAD_REFERENCE)?;
                    match character {
                        Some(character) => self.reference(character.encode_utf8(&mut [0; 4]))?,
                        None => self.reference(resolve_xml_entity(&reference).ok_or(ENTITY)?)?,
                    }
                }
                Event::Comment(_) => self.comment()?,
                Event::CData(_) => return Err(XmlError::Refused("a CDATA section")),
                Event::PI(_) => return Err(XmlError::Refused("a processing instruction")),
                Event::DocType(_) => return Err(XmlError::Refused("a document type")),
            }
            first = false;
        }
        if !self.open.is_empty() {
            return Err(XmlError::Malformed("it ends too early"));
        }
        self.root.ok_or(XmlError::Malformed("there is no element"))
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(XmlError::Malformed("there is a second element outside of the first"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlError::TooLarge("levels"));
        }
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(XmlError::TooLarge("elements"));
        }
        let (mut declarations, mut plain) = (Vec::new(), Vec::new());
        for (name, value) in attributes(start)? {
            match qname(name)? {
                ("", "xmlns") => declarations.push((Box::from(""), self.declared("", &value)?)),
                ("xmlns", prefix) => declarations.push((Box::from(prefix), self.declared(prefix, &value)?)),
                (prefix, local) => plain.push((prefix, local, value)),
            }
        }
        // One more declaration, so that the canonical form, which declares what is used, can be read too.
        if plain.len() > MAX_ATTRIBUTES || declarations.len() > MAX_ATTRIBUTES + 1 {
            return Err(XmlError::TooLarge("attributes"));
        }
        let (prefix, local) = qname(start.name().into_inner())?;
        let namespace = self.resolve(&declarations, prefix)?;
        let mut attributes = Vec::with_capacity(plain.len());
        let mut seen = BTreeSet::new();
        for (prefix, local, value) in plain {
            let namespace = if prefix.is_empty() { self.none.clone() } else { self.resolve(&declarations, prefix)? };
            if !seen.insert((namespace.clone(), local)) {
                return Err(XmlError::Malformed("an element has one attribute twice"));
            }
            if is_id(&namespace, local) && !self.ids.insert(value.clone()) {
                return Err(XmlError::Refused("one id twice"));
            }
            attributes.push(Attribute { prefix: prefix.into(), local: local.into(), namespace, value });
        }
        let (prefix, local) = (prefix.into(), local.into());
        let element = Element { prefix, local, namespace, attributes, declarations, children: Vec::new() };
        self.open.push(Open { element, commented: false });
        Ok(())
    }

    /// The namespace that a declaration gives to `prefix`.
    fn declared(&self, prefix: &str, value: &str) -> Result<Arc<str>, XmlError> {
        if prefix == "xml" || prefix == "xmlns" || value == names::XML || value == names::XMLNS {
            // Namespaces in XML 1.0 section 3 allows one of these, which nobody writes.
            return Err(XmlError::Refused("a declaration of a namespace of XML itself"));
        }
        match (prefix, value) {
            ("", "") => Ok(self.none.clone()),
            (_, "") => Err(XmlError::Malformed("a prefix is taken back")),
            // Canonical XML 1.0 section 1.1: relative ones have no canonical form.
            (_, uri) if !is_absolute(uri) => Err(XmlError::Refused("a namespace that is no absolute URI")),
            (_, uri) => Ok(Arc::from(uri)),
        }
    }

    fn resolve(&self, own: &[(Box<str>, Arc<str>)], prefix: &str) -> Result<Arc<str>, XmlError> {
        if prefix == "xml" {
            return Ok(self.xml.clone());
        }
        let outer = self.open.iter().rev().flat_map(|open| &open.element.declarations);
        let found = own.iter().chain(outer).find(|(declared, _)| **declared == *prefix).map(|(_, uri)| uri.clone());
        match found {
            Some(uri) => Ok(uri),
            None if prefix.is_empty() => Ok(self.none.clone()),
            None => Err(XmlError::Malformed("a prefix is not declared")),
        }
    }

    fn end(&mut self) -> Result<(), XmlError> {
        let Some(Open { element, commented }) = self.open.pop() else {
            return Err(XmlError::Malformed("an element ends that did not begin"));
        };
        if commented && element.has_text() {
            return Err(COMMENT);
        }
        match self.open.last_mut() {
            Some(parent) => parent.element.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        check_characters(text)?;
        match self.open.last_mut() {
            Some(Open { element, .. }) => {
                match element.children.last_mut() {
                    Some(Node::Text(before)) => before.push_str(text),
                    _ if text.is_empty() => {}
                    Some(Node::Element(_)) | None => element.children.push(Node::Text(text.to_owned())),
                }
                Ok(())
            }
            None if text.trim_matches(SPACE).is_empty() => Ok(()),
            None => Err(XmlError::Malformed("there is text outside of the element")),
        }
    }

    fn reference(&mut self, text: &str) -> Result<(), XmlError> {
        // White space around the element is markup; a reference to it is not.
        if self.open.is_empty() {
            return Err(XmlError::Malformed("there is text outside of the element"));
        }
        self.text(text)
    }

    fn comment(&mut self) -> Result<(), XmlError> {
        match self.comments {
            Comments::Refuse => Err(COMMENT),
            Comments::Skip => {
                if let Some(open) = self.open.last_mut() {
                    open.commented = true;
                }
                Ok(())
            }
        }
    }
}

const COMMENT: XmlError = XmlError::Refused("a comment");
const ENTITY: XmlError = XmlError::Refused("an entity");
const BAD_REFERENCE: XmlError = XmlError::Malformed("a character reference names none");

/// Names and values of all attributes of a start tag, checked where the library is lenient.
fn attributes<'a>(start: &'a BytesStart<'_>) -> Result<Vec<(&'a str, Box<str>)>, XmlError> {
    let raw = start.attributes_raw();
    let mut found = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| XmlError::Malformed("an attribute does not parse"))?;
        if found.len() > 2 * MAX_ATTRIBUTES {
            return Err(XmlError::TooLarge("attributes"));
        }
        let name = attribute.key.into_inner();
        // `a="1"b="2"` is not XML.
        let before = (name.as_ptr() as usize).checked_sub(raw.as_ptr() as usize).and_then(|at| raw.get(..at));
        if !before.is_some_and(|before| before.ends_with(SPACE)) {
            return Err(XmlError::Malformed("no space stands before an attribute"));
        }
        if attribute.value.contains('<') {
            return Err(XmlError::Malformed("an attribute contains markup"));
        }
        // XML 1.0 section 3.3.3: white space becomes spaces unless it is written as a reference.
        let spaced = attribute.value.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ");
        let value = unescape_with(&spaced, resolve_xml_entity).map_err(|cause| match cause {
            EscapeError::UnrecognizedEntity(..) => ENTITY,
            EscapeError::UnterminatedEntity(_)
            | EscapeError::InvalidCharRef(_)
            | EscapeError::TooManyNestedEntities => BAD_REFERENCE,
        })?;
        check_characters(&value)?;
        found.push((name, value.into()));
    }
    Ok(found)
}

/// Splits a name at its colon. Names of SAML are ASCII; others are refused.
fn qname(name: &str) -> Result<(&str, &str), XmlError> {
    let (prefix, local) = match name.split_once(':') {
        Some((prefix, local)) if is_ncname(prefix) => (prefix, local),
        Some(_) => return Err(XmlError::Malformed("a name is none")),
        None => ("", name),
    };
    if is_ncname(local) { Ok((prefix, local)) } else { Err(XmlError::Malformed("a name is none")) }
}

pub(crate) fn is_ncname(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// RFC 3986 section 3: a scheme, a colon, and characters of a URI only.
fn is_absolute(uri: &str) -> bool {
    let scheme = uri.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    }) && uri
        .chars()
        .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
}

/// What readers take for an id without a DTD, in any of its spellings.
pub(crate) fn is_id(namespace: &str, local: &str) -> bool {
    match namespace {
        "" => local.eq_ignore_ascii_case("id"),
        names::XML => local == "id",
        _ => false,
    }
}

/// XML 1.0 section 2.2.
fn check_characters(text: &str) -> Result<(), XmlError> {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..);
    if text.chars().all(allowed) { Ok(()) } else { Err(XmlError::Malformed("a character is not allowed in XML")) }
}

/// XML 1.0 section 2.8: a version, then perhaps an encoding, then perhaps a word about other documents. The library passes over what it does not know.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), XmlError> {
    let start = BytesStart::from_content(&**declaration, "xml".len());
    let fields = attributes(&start)?;
    let mut fields = fields.iter().map(|(name, value)| (*name, &**value)).peekable();
    match fields.next() {
        Some(("version", "1.0")) => {}
        Some(("version", _)) => return Err(XmlError::Refused("another version of XML than 1.0")),
        _ => return Err(BAD_DECLARATION),
    }
    if let Some((_, encoding)) = fields.next_if(|(name, _)| *name == "encoding")
        && !encoding.eq_ignore_ascii_case("utf-8")
    {
        return Err(XmlError::Refused("another encoding than UTF-8"));
    }
    fields.next_if(|field| matches!(field, ("standalone", "yes" | "no")));
    if fields.next().is_some() { Err(BAD_DECLARATION) } else { Ok(()) }
}

const BAD_DECLARATION: XmlError = XmlError::Malformed("its declaration does not parse");
