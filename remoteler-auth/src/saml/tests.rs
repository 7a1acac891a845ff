//! Responses that are made here, signed here, and changed in every way that is known to have fooled somebody.

mod attacks;
mod canonical;
mod encryption;
pub(crate) mod maker;
mod matrix;
mod replay;
pub(crate) mod sealing;
mod sending;
mod xml;
