//! Plays recorded sessions. Owns the reading of recordings, the clockwork of a replay and the filtering of remote text. Never
//! touches a terminal or a clock.

mod cast;
mod clockwork;
mod text;

pub use cast::{CastError, CastEvent, CastHeader, CastReader, TimedEvent};
pub use clockwork::{Clockwork, Speed, SpeedError};
pub use remoteler_core::printable;
pub use text::PlainText;
