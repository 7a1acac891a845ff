//! The link that is taken up again, with one input: what both targets have in common.

mod path;
mod peer;

use std::io::IoSlice;
use std::time::Instant;

use remoteler_tunnel::{Limits, Mux, Outbox, ReplayBudget, Side};

pub use path::link_path;
pub use peer::link_peer;

const LINK_WINDOW: u32 = 60_000;

fn limits(side: Side) -> Limits {
    let usual = if side == Side::Client { Limits::client() } else { Limits::server() };
    Limits { link_window: LINK_WINDOW, stream_window: 5000, max_streams: 20, max_backlog: 8, ..usual }
}

fn resumable(side: Side, now: Instant) -> (Mux, ReplayBudget) {
    let (mut mux, budget) = (Mux::new(side, limits(side), now), ReplayBudget::new(100_000));
    mux.make_resumable(budget.clone());
    (mux, budget)
}

/// All that one batch has.
fn transmit(mux: &mut Mux, now: Instant) -> Vec<u8> {
    let (mut out, mut octets) = (Outbox::default(), Vec::new());
    mux.poll_transmit(&mut out, 10_000, now);
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); 64];
        let used = out.fill(&mut slices);
        let before = octets.len();
        slices[..used].iter().for_each(|slice| octets.extend_from_slice(slice));
        out.advance(octets.len() - before);
    }
    octets
}
