//! Reading values of many types with one copy of a format's code. A parser of serde is made anew for each type that is read with it, which is
//! most of a program that reads a large configuration; behind [`Erased`] it is made once. Owns nothing of any format, and changes no value and
//! no error: what goes wrong in the format's code passes through as it is, and what a type says of its value is said to the format again.
//!
//! The crate `erased-serde` does this too, and says what is wrong without its place: the lines of a configuration file would be gone.

mod access;
mod mistake;

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Visitor},
};

use self::{
    access::{AnyEnum, AnyMap, AnySeq, EnumParts, MapParts, SeqParts},
    mistake::Mistake,
};

/// A value that is read through one copy of the format's code, whatever its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Erased<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut format = Format::new(deserializer);
        T::deserialize(Asked(&mut format)).map(Self).map_err(|mistake| mistake.settle(format.failed))
    }
}

/// What a type asks its format for: the methods of [`Deserializer`].
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    String,
    Bytes,
    ByteBuf,
    Option,
    Unit,
    UnitStruct(&'static str),
    NewtypeStruct(&'static str),
    Seq,
    Tuple(usize),
    TupleStruct(&'static str, usize),
    Map,
    Struct(&'static str, &'static [&'static str]),
    Enum(&'static str, &'static [&'static str]),
    Identifier,
    Ignored,
}

/// What a format answers: the methods of [`Visitor`]. Numbers of fewer bits come as the widest, as serde has it by default.
enum Given<'a, 'de> {
    Bool(bool),
    I64(i64),
    I128(i128),
    U64(u64),
    U128(u128),
    F64(f64),
    Str(&'a str),
    BorrowedStr(&'de str),
    String(String),
    Bytes(&'a [u8]),
    BorrowedBytes(&'de [u8]),
    ByteBuf(Vec<u8>),
    None,
    Some(&'a mut dyn AnyFormat<'de>),
    Unit,
    Newtype(&'a mut dyn AnyFormat<'de>),
    Seq(&'a mut dyn AnySeq<'de>),
    Map(&'a mut dyn AnyMap<'de>),
    Enum(&'a mut dyn AnyEnum<'de>),
}

/// Some [`Deserializer`], to be asked once.
trait AnyFormat<'de> {
    fn read(&mut self, wanted: Wanted, visitor: &mut dyn AnyVisitor<'de>) -> Result<(), Mistake>;
    fn is_human_readable(&self) -> bool;
}

/// Some [`Visitor`], to be answered once; it keeps its value.
trait AnyVisitor<'de> {
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    fn take(&mut self, given: Given<'_, 'de>) -> Result<(), Mistake>;
}

/// Some [`DeserializeSeed`], to be used once; it keeps its value.
trait AnySeed<'de> {
    fn sow(&mut self, format: &mut dyn AnyFormat<'de>) -> Result<(), Mistake>;
}

/// The side of the format: what it fails with is kept here, because its type is known nowhere else.
struct Format<D, E> {
    deserializer: Option<D>,
    is_human_readable: bool,
    failed: Option<E>,
}

impl<'de, D: Deserializer<'de>> Format<D, D::Error> {
    fn new(deserializer: D) -> Self {
        let is_human_readable = deserializer.is_human_readable();
        Self { deserializer: Some(deserializer), is_human_readable, failed: None }
    }
}

impl<'de, D: Deserializer<'de>> AnyFormat<'de> for Format<D, D::Error> {
    fn read(&mut self, wanted: Wanted, visitor: &mut dyn AnyVisitor<'de>) -> Result<(), Mistake> {
        let Some(format) = self.deserializer.take() else { return Err(Mistake::again()) };
        let visitor = Answered(visitor);
        let read = match wanted {
            Wanted::Any => format.deserialize_any(visitor),
            Wanted::Bool => format.deserialize_bool(visitor),
            Wanted::I8 => format.deserialize_i8(visitor),
            Wanted::I16 => format.deserialize_i16(visitor),
            Wanted::I32 => format.deserialize_i32(visitor),
            Wanted::I64 => format.deserialize_i64(visitor),
            Wanted::I128 => format.deserialize_i128(visitor),
            Wanted::U8 => format.deserialize_u8(visitor),
            Wanted::U16 => format.deserialize_u16(visitor),
            Wanted::U32 => format.deserialize_u32(visitor),
            Wanted::U64 => format.deserialize_u64(visitor),
            Wanted::U128 => format.deserialize_u128(visitor),
            Wanted::F32 => format.deserialize_f32(visitor),
            Wanted::F64 => format.deserialize_f64(visitor),
            Wanted::Char => format.deserialize_char(visitor),
            Wanted::Str => format.deserialize_str(visitor),
            Wanted::String => format.deserialize_string(visitor),
            Wanted::Bytes => format.deserialize_bytes(visitor),
            Wanted::ByteBuf => format.deserialize_byte_buf(visitor),
            Wanted::Option => format.deserialize_option(visitor),
            Wanted::Unit => format.deserialize_unit(visitor),
            Wanted::UnitStruct(name) => format.deserialize_unit_struct(name, visitor),
            Wanted::NewtypeStruct(name) => format.deserialize_newtype_struct(name, visitor),
            Wanted::Seq => format.deserialize_seq(visitor),
            Wanted::Tuple(len) => format.deserialize_tuple(len, visitor),
            Wanted::TupleStruct(name, len) => format.deserialize_tuple_struct(name, len, visitor),
            Wanted::Map => format.deserialize_map(visitor),
            Wanted::Struct(name, fields) => format.deserialize_struct(name, fields, visitor),
            Wanted::Enum(name, variants) => format.deserialize_enum(name, variants, visitor),
            Wanted::Identifier => format.deserialize_identifier(visitor),
            Wanted::Ignored => format.deserialize_ignored_any(visitor),
        };
        read.map_err(|failed| Mistake::keep(failed, &mut self.failed))
    }

    fn is_human_readable(&self) -> bool {
        self.is_human_readable
    }
}

/// What the format sees of a type.
struct Answered<'a, 'de>(&'a mut dyn AnyVisitor<'de>);

impl Answered<'_, '_> {
    fn given<E: Error>(taken: Result<(), Mistake>) -> Result<(), E> {
        taken.map_err(|mistake| mistake.settle(None))
    }
}

impl<'de> Visitor<'de> for Answered<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        Self::given(self.0.take(Given::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        Self::given(self.0.take(Given::I64(value)))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<(), E> {
        Self::given(self.0.take(Given::I128(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        Self::given(self.0.take(Given::U64(value)))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<(), E> {
        Self::given(self.0.take(Given::U128(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        Self::given(self.0.take(Given::F64(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        Self::given(self.0.take(Given::Str(value)))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<(), E> {
        Self::given(self.0.take(Given::BorrowedStr(value)))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<(), E> {
        Self::given(self.0.take(Given::String(value)))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<(), E> {
        Self::given(self.0.take(Given::Bytes(value)))
    }

    fn visit_borrowed_bytes<E: Error>(self, value: &'de [u8]) -> Result<(), E> {
        Self::given(self.0.take(Given::BorrowedBytes(value)))
    }

    fn visit_byte_buf<E: Error>(self, value: Vec<u8>) -> Result<(), E> {
        Self::given(self.0.take(Given::ByteBuf(value)))
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Self::given(self.0.take(Given::None))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Self::given(self.0.take(Given::Unit))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut format = Format::new(deserializer);
        self.0.take(Given::Some(&mut format)).map_err(|mistake| mistake.settle(format.failed))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut format = Format::new(deserializer);
        self.0.take(Given::Newtype(&mut format)).map_err(|mistake| mistake.settle(format.failed))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let mut parts = SeqParts { seq, failed: None };
        self.0.take(Given::Seq(&mut parts)).map_err(|mistake| mistake.settle(parts.failed))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let mut parts = MapParts { map, failed: None };
        self.0.take(Given::Map(&mut parts)).map_err(|mistake| mistake.settle(parts.failed))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let mut parts = EnumParts::new(access);
        self.0.take(Given::Enum(&mut parts)).map_err(|mistake| mistake.settle(parts.failed))
    }
}

/// The side of the type: its visitor, and then its value.
enum Slot<V, T> {
    Waiting(V),
    Done(T),
    Empty,
}

impl<V, T> Slot<V, T> {
    fn take(&mut self) -> Result<V, Mistake> {
        match std::mem::replace(self, Self::Empty) {
            Self::Waiting(waiting) => Ok(waiting),
            Self::Done(_) | Self::Empty => Err(Mistake::again()),
        }
    }

    fn value(self) -> Result<T, Mistake> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Waiting(_) | Self::Empty => Err(Mistake::again()),
        }
    }
}

impl<'de, V: Visitor<'de>> AnyVisitor<'de> for Slot<V, V::Value> {
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(visitor) => visitor.expecting(f),
            Self::Done(_) | Self::Empty => Ok(()),
        }
    }

    fn take(&mut self, given: Given<'_, 'de>) -> Result<(), Mistake> {
        let visitor = Slot::take(self)?;
        *self = Self::Done(match given {
            Given::Bool(value) => visitor.visit_bool(value),
            Given::I64(value) => visitor.visit_i64(value),
            Given::I128(value) => visitor.visit_i128(value),
            Given::U64(value) => visitor.visit_u64(value),
            Given::U128(value) => visitor.visit_u128(value),
            Given::F64(value) => visitor.visit_f64(value),
            Given::Str(value) => visitor.visit_str(value),
            Given::BorrowedStr(value) => visitor.visit_borrowed_str(value),
            Given::String(value) => visitor.visit_string(value),
            Given::Bytes(value) => visitor.visit_bytes(value),
            Given::BorrowedBytes(value) => visitor.visit_borrowed_bytes(value),
            Given::ByteBuf(value) => visitor.visit_byte_buf(value),
            Given::None => visitor.visit_none(),
            Given::Some(format) => visitor.visit_some(Asked(format)),
            Given::Unit => visitor.visit_unit(),
            Given::Newtype(format) => visitor.visit_newtype_struct(Asked(format)),
            Given::Seq(seq) => visitor.visit_seq(seq),
            Given::Map(map) => visitor.visit_map(map),
            Given::Enum(access) => visitor.visit_enum(access),
        }?);
        Ok(())
    }
}

impl<'de, S: DeserializeSeed<'de>> AnySeed<'de> for Slot<S, S::Value> {
    fn sow(&mut self, format: &mut dyn AnyFormat<'de>) -> Result<(), Mistake> {
        *self = Self::Done(self.take()?.deserialize(Asked(format))?);
        Ok(())
    }
}

/// What the type sees of the format.
struct Asked<'a, 'de>(&'a mut dyn AnyFormat<'de>);

impl<'de> Asked<'_, 'de> {
    fn read<V: Visitor<'de>>(self, wanted: Wanted, visitor: V) -> Result<V::Value, Mistake> {
        let mut slot = Slot::Waiting(visitor);
        self.0.read(wanted, &mut slot)?;
        slot.value()
    }
}

/// `asks!(bool => Bool, …)`: methods that want what needs no further word.
macro_rules! asks {
    ($($method:ident => $wanted:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            self.read(Wanted::$wanted, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Asked<'_, 'de> {
    type Error = Mistake;

    asks!(
        deserialize_any => Any, deserialize_bool => Bool, deserialize_i8 => I8, deserialize_i16 => I16, deserialize_i32 => I32,
        deserialize_i64 => I64, deserialize_i128 => I128, deserialize_u8 => U8, deserialize_u16 => U16, deserialize_u32 => U32,
        deserialize_u64 => U64, deserialize_u128 => U128, deserialize_f32 => F32, deserialize_f64 => F64, deserialize_char => Char,
        deserialize_str => Str, deserialize_string => String, deserialize_bytes => Bytes, deserialize_byte_buf => ByteBuf,
        deserialize_option => Option, deserialize_unit => Unit, deserialize_seq => Seq, deserialize_map => Map,
        deserialize_identifier => Identifier, deserialize_ignored_any => Ignored
    );

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        self.read(Wanted::UnitStruct(name), visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        self.read(Wanted::NewtypeStruct(name), visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.read(Wanted::Tuple(len), visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.read(Wanted::TupleStruct(name, len), visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.read(Wanted::Struct(name, fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.read(Wanted::Enum(name, variants), visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

#[cfg(test)]
mod tests;
