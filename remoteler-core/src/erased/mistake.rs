//! What goes wrong between a type and its format, without the format's own kind of error.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

/// Small, because it is in every result.
#[derive(Debug)]
pub(super) struct Mistake(Box<Kind>);

/// What a type says of its value, as serde lets it; formats have words of their own for some of it.
#[derive(Debug)]
enum Kind {
    /// The format has failed: the error itself is kept where its type is known; this is its text.
    Kept(String),
    Custom(String),
    InvalidType(Found, String),
    InvalidValue(Found, String),
    InvalidLength(usize, String),
    UnknownVariant(String, &'static [&'static str]),
    UnknownField(String, &'static [&'static str]),
    MissingField(&'static str),
    DuplicateField(&'static str),
}

impl Mistake {
    fn new(kind: Kind) -> Self {
        Self(Box::new(kind))
    }

    /// The format has failed with `error`.
    pub(super) fn keep<E: Error>(error: E, kept: &mut Option<E>) -> Self {
        let text = error.to_string();
        *kept = Some(error);
        Self::new(Kind::Kept(text))
    }

    /// serde's types and formats ask and answer once; a format or type that does not is refused.
    pub(super) fn again() -> Self {
        Self::custom("the value was asked for or given twice")
    }

    /// The error of the format: its own if it is what failed, or else what the type says.
    pub(super) fn settle<E: Error>(self, kept: Option<E>) -> E {
        match *self.0 {
            Kind::Kept(text) => kept.unwrap_or_else(|| E::custom(text)),
            Kind::Custom(text) => E::custom(text),
            Kind::InvalidType(found, expected) => E::invalid_type(found.unexpected(), &expected.as_str()),
            Kind::InvalidValue(found, expected) => E::invalid_value(found.unexpected(), &expected.as_str()),
            Kind::InvalidLength(len, expected) => E::invalid_length(len, &expected.as_str()),
            Kind::UnknownVariant(name, known) => E::unknown_variant(&name, known),
            Kind::UnknownField(name, known) => E::unknown_field(&name, known),
            Kind::MissingField(name) => E::missing_field(name),
            Kind::DuplicateField(name) => E::duplicate_field(name),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// In serde's own words.
        fn said(kind: &Kind) -> serde::de::value::Error {
            match kind {
                Kind::Kept(text) | Kind::Custom(text) => Error::custom(text),
                Kind::InvalidType(found, expected) => Error::invalid_type(found.unexpected(), &expected.as_str()),
                Kind::InvalidValue(found, expected) => Error::invalid_value(found.unexpected(), &expected.as_str()),
                Kind::InvalidLength(len, expected) => Error::invalid_length(*len, &expected.as_str()),
                Kind::UnknownVariant(name, known) => Error::unknown_variant(name, known),
                Kind::UnknownField(name, known) => Error::unknown_field(name, known),
                Kind::MissingField(name) => Error::missing_field(name),
                Kind::DuplicateField(name) => Error::duplicate_field(name),
            }
        }
        said(&self.0).fmt(f)
    }
}

impl std::error::Error for Mistake {}

impl Error for Mistake {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(Kind::Custom(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::InvalidType(Found::from(found), expected.to_string()))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::InvalidValue(Found::from(found), expected.to_string()))
    }

    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        Self::new(Kind::InvalidLength(len, expected.to_string()))
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownVariant(name.into(), known))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownField(name.into(), known))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(Kind::MissingField(name))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new(Kind::DuplicateField(name))
    }
}

/// [`Unexpected`] that may be kept.
#[derive(Debug)]
enum Found {
    Text(String),
    Octets(Vec<u8>),
    Plain(Unexpected<'static>),
    Other(String),
}

impl From<Unexpected<'_>> for Found {
    fn from(found: Unexpected<'_>) -> Self {
        Self::Plain(match found {
            Unexpected::Str(text) => return Self::Text(text.into()),
            Unexpected::Bytes(octets) => return Self::Octets(octets.into()),
            Unexpected::Other(text) => return Self::Other(text.into()),
            Unexpected::Bool(value) => Unexpected::Bool(value),
            Unexpected::Unsigned(value) => Unexpected::Unsigned(value),
            Unexpected::Signed(value) => Unexpected::Signed(value),
            Unexpected::Float(value) => Unexpected::Float(value),
            Unexpected::Char(value) => Unexpected::Char(value),
            Unexpected::Unit => Unexpected::Unit,
            Unexpected::Option => Unexpected::Option,
            Unexpected::NewtypeStruct => Unexpected::NewtypeStruct,
            Unexpected::Seq => Unexpected::Seq,
            Unexpected::Map => Unexpected::Map,
            Unexpected::Enum => Unexpected::Enum,
            Unexpected::UnitVariant => Unexpected::UnitVariant,
            Unexpected::NewtypeVariant => Unexpected::NewtypeVariant,
            Unexpected::TupleVariant => Unexpected::TupleVariant,
            Unexpected::StructVariant => Unexpected::StructVariant,
        })
    }
}

impl Found {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Text(text) => Unexpected::Str(text),
            Self::Octets(octets) => Unexpected::Bytes(octets),
            Self::Other(text) => Unexpected::Other(text),
            Self::Plain(found) => *found,
        }
    }
}
