//! The network and the proxy's health, day and night. Owns every connection that stands, and when there can be none.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::dice::Dice;
use super::wire::{End, Fate, Wire};
use crate::resume::Channel;

/// A connection as the proxy gets it: with what its TLS session would export.
pub(super) struct Arrival {
    pub io: End,
    pub channel: Channel,
    /// Keys of a link that begins on it.
    pub keys: [u8; 48],
}

/// The network between one agent and its proxy.
#[derive(Clone)]
pub(super) struct Network {
    inner: Arc<Mutex<Inner>>,
    arrivals: mpsc::UnboundedSender<Arrival>,
}

struct Inner {
    dice: Dice,
    delay: Duration,
    /// Until when nobody connects; whether who tries is told so.
    closed: Option<(Instant, bool)>,
    standing: Vec<Wire>,
    outages: Vec<(Instant, Instant)>,
    /// Changes when the agent's system says that its network is another one.
    told: watch::Sender<u64>,
}

/// What happens once in a while.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Fate(Fate),
    /// The agent has another address: its connections hear nothing any more. Its system says so, if `told`.
    Address {
        told: bool,
    },
    /// Nobody gets through for so long.
    Outage(Duration),
    /// Octets take longer or shorter from now on.
    Delay(Duration),
    /// The proxy is started anew and knows nothing of before.
    Restart,
}

impl Event {
    pub(super) fn any(dice: &mut Dice) -> Self {
        match dice.below(20) {
            0..=4 => Self::Fate(Fate::Reset),
            5..=7 => Self::Fate(Fate::HalfOpen { client: dice.one_in(2) }),
            8..=9 => Self::Fate(Fate::BlackHole),
            10..=11 => Self::Address { told: dice.one_in(2) },
            12..=14 => Self::Outage(dice.between(Duration::from_millis(300), Duration::from_secs(1200))),
            15..=18 => Self::Delay(dice.between(Duration::from_micros(50), Duration::from_millis(900))),
            _ => Self::Restart,
        }
    }
}

impl Network {
    pub(super) fn new(dice: Dice) -> (Self, mpsc::UnboundedReceiver<Arrival>) {
        let (arrivals, arriving) = mpsc::unbounded_channel();
        let delay = Duration::from_millis(20);
        let told = watch::Sender::default();
        let inner = Inner { dice, delay, closed: None, standing: Vec::new(), outages: Vec::new(), told };
        (Self { inner: Arc::new(Mutex::new(inner)), arrivals }, arriving)
    }

    /// Connects, as far as the network lets it. May take very long.
    pub(super) async fn connect(&self) -> io::Result<(End, Channel, [u8; 48])> {
        let (delay, hurdle, way_there) = {
            let mut inner = self.inner.lock().unwrap();
            let delay = inner.delay;
            let closed = inner.closed.filter(|(until, _)| *until > Instant::now());
            // Now and then one connection takes much longer than one that is made later.
            let detour = if inner.dice.one_in(4) { Duration::from_millis(inner.dice.below(15_000)) } else { delay };
            (delay, closed, detour)
        };
        if let Some((until, told)) = hurdle {
            if told {
                sleep(delay).await;
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            sleep_until(until).await;
        }
        sleep(way_there * 2).await;
        let (wire, [client, server]) = Wire::new(delay);
        let mut inner = self.inner.lock().unwrap();
        let (mut channel, mut keys) = ([0; 32], [0; 48]);
        channel.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&inner.dice.next().to_be_bytes()));
        keys.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&inner.dice.next().to_be_bytes()));
        inner.standing.push(wire);
        let surplus = inner.standing.len().saturating_sub(50);
        inner.standing.drain(..surplus);
        drop(inner);
        self.arrivals.send(Arrival { io: server, channel, keys }).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok((client, channel, keys))
    }

    /// Where the agent hears of another network.
    pub(super) fn told(&self) -> watch::Receiver<u64> {
        self.inner.lock().unwrap().told.subscribe()
    }

    pub(super) fn happen(&self, event: Event) {
        let mut inner = self.inner.lock().unwrap();
        let now = Instant::now();
        match event {
            Event::Fate(fate) => std::mem::take(&mut inner.standing).iter().for_each(|wire| wire.suffer(fate)),
            Event::Address { told } => {
                std::mem::take(&mut inner.standing).iter().for_each(|wire| wire.suffer(Fate::BlackHole));
                if told {
                    inner.told.send_modify(|changes| *changes += 1);
                }
            }
            Event::Outage(length) => {
                let told = inner.dice.one_in(2);
                inner.closed = Some((now + length, told));
                if let Some((_, until)) = inner.outages.last_mut() {
                    *until = now.min(*until); // this one takes its place
                }
                inner.outages.push((now, now + length));
                let fate = if told { Fate::Reset } else { Fate::BlackHole };
                std::mem::take(&mut inner.standing).iter().for_each(|wire| wire.suffer(fate));
            }
            Event::Delay(delay) => {
                inner.delay = delay;
                inner.standing.iter().for_each(|wire| wire.slow_down(delay));
            }
            Event::Restart => std::mem::take(&mut inner.standing).iter().for_each(|wire| wire.suffer(Fate::Reset)),
        }
    }

    /// The longest time without an outage within the last of this length.
    pub(super) fn longest_calm(&self, within: Duration) -> Duration {
        let inner = self.inner.lock().unwrap();
        let now = Instant::now();
        let mut open_since = now - within;
        let mut longest = Duration::ZERO;
        for (from, until) in inner.outages.iter().filter(|(_, until)| *until > now - within) {
            longest = longest.max(from.saturating_duration_since(open_since));
            open_since = open_since.max(*until);
        }
        longest.max(now.saturating_duration_since(open_since))
    }
}
