//! The parts of lists, maps and enums, on the side of the format and on that of the type.

use serde::{
    Deserializer,
    de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor},
};

use super::{Answered, AnyFormat, AnySeed, AnyVisitor, Format, Slot, mistake::Mistake};

/// Some [`SeqAccess`].
pub(super) trait AnySeq<'de> {
    /// Whether there was another element.
    fn next(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<bool, Mistake>;
    fn size_hint(&self) -> Option<usize>;
}

/// Some [`MapAccess`].
pub(super) trait AnyMap<'de> {
    /// Whether there was another key.
    fn key(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<bool, Mistake>;
    fn value(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<(), Mistake>;
    fn size_hint(&self) -> Option<usize>;
}

/// Some [`EnumAccess`], and then its [`VariantAccess`].
pub(super) trait AnyEnum<'de> {
    fn variant(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<(), Mistake>;
    fn unit(&mut self) -> Result<(), Mistake>;
    fn newtype(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<(), Mistake>;
    fn tuple(&mut self, len: usize, visitor: &mut dyn AnyVisitor<'de>) -> Result<(), Mistake>;
    fn fields(&mut self, names: &'static [&'static str], visitor: &mut dyn AnyVisitor<'de>) -> Result<(), Mistake>;
}

/// A seed as the format sees it.
struct Sown<'a, 'de>(&'a mut dyn AnySeed<'de>);

impl<'de> DeserializeSeed<'de> for Sown<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut format = Format::new(deserializer);
        self.0.sow(&mut format as &mut dyn AnyFormat<'de>).map_err(|mistake| mistake.settle(format.failed))
    }
}

pub(super) struct SeqParts<A, E> {
    pub(super) seq: A,
    pub(super) failed: Option<E>,
}

impl<'de, A: SeqAccess<'de>> AnySeq<'de> for SeqParts<A, A::Error> {
    fn next(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<bool, Mistake> {
        let next = self.seq.next_element_seed(Sown(seed));
        next.map(|next| next.is_some()).map_err(|failed| Mistake::keep(failed, &mut self.failed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.seq.size_hint()
    }
}

impl<'de> SeqAccess<'de> for &mut dyn AnySeq<'de> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        let mut slot = Slot::Waiting(seed);
        if self.next(&mut slot)? { slot.value().map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        AnySeq::size_hint(*self)
    }
}

pub(super) struct MapParts<A, E> {
    pub(super) map: A,
    pub(super) failed: Option<E>,
}

impl<'de, A: MapAccess<'de>> AnyMap<'de> for MapParts<A, A::Error> {
    fn key(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<bool, Mistake> {
        let key = self.map.next_key_seed(Sown(seed));
        key.map(|key| key.is_some()).map_err(|failed| Mistake::keep(failed, &mut self.failed))
    }

    fn value(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<(), Mistake> {
        self.map.next_value_seed(Sown(seed)).map_err(|failed| Mistake::keep(failed, &mut self.failed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

impl<'de> MapAccess<'de> for &mut dyn AnyMap<'de> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        let mut slot = Slot::Waiting(seed);
        if self.key(&mut slot)? { slot.value().map(Some) } else { Ok(None) }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let mut slot = Slot::Waiting(seed);
        self.value(&mut slot)?;
        slot.value()
    }

    fn size_hint(&self) -> Option<usize> {
        AnyMap::size_hint(*self)
    }
}

pub(super) struct EnumParts<A, V, E> {
    access: Option<A>,
    variant: Option<V>,
    pub(super) failed: Option<E>,
}

impl<'de, A: EnumAccess<'de>> EnumParts<A, A::Variant, A::Error> {
    pub(super) const fn new(access: A) -> Self {
        Self { access: Some(access), variant: None, failed: None }
    }

    fn content(&mut self, read: impl FnOnce(A::Variant) -> Result<(), A::Error>) -> Result<(), Mistake> {
        let variant = self.variant.take().ok_or_else(Mistake::again)?;
        read(variant).map_err(|failed| Mistake::keep(failed, &mut self.failed))
    }
}

impl<'de, A: EnumAccess<'de>> AnyEnum<'de> for EnumParts<A, A::Variant, A::Error> {
    fn variant(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<(), Mistake> {
        let access = self.access.take().ok_or_else(Mistake::again)?;
        let ((), variant) =
            access.variant_seed(Sown(seed)).map_err(|failed| Mistake::keep(failed, &mut self.failed))?;
        self.variant = Some(variant);
        Ok(())
    }

    fn unit(&mut self) -> Result<(), Mistake> {
        self.content(VariantAccess::unit_variant)
    }

    fn newtype(&mut self, seed: &mut dyn AnySeed<'de>) -> Result<(), Mistake> {
        self.content(|variant| variant.newtype_variant_seed(Sown(seed)))
    }

    fn tuple(&mut self, len: usize, visitor: &mut dyn AnyVisitor<'de>) -> Result<(), Mistake> {
        self.content(|variant| variant.tuple_variant(len, Answered(visitor)))
    }

    fn fields(&mut self, names: &'static [&'static str], visitor: &mut dyn AnyVisitor<'de>) -> Result<(), Mistake> {
        self.content(|variant| variant.struct_variant(names, Answered(visitor)))
    }
}

impl<'de> EnumAccess<'de> for &mut dyn AnyEnum<'de> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Mistake> {
        let mut slot = Slot::Waiting(seed);
        self.variant(&mut slot)?;
        Ok((slot.value()?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut dyn AnyEnum<'de> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        self.unit()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mistake> {
        let mut slot = Slot::Waiting(seed);
        self.newtype(&mut slot)?;
        slot.value()
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Mistake> {
        let mut slot = Slot::Waiting(visitor);
        self.tuple(len, &mut slot)?;
        slot.value()
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        let mut slot = Slot::Waiting(visitor);
        self.fields(fields, &mut slot)?;
        slot.value()
    }
}
