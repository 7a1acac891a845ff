//! The log: events with fields on standard error, as text or JSON.

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogSettings};

/// Starts logging for this process. A second call does nothing.
pub(crate) fn init(settings: LogSettings) {
    // `level` or `target=level`, separated by commas.
    let chosen = std::env::var("REMOTELER_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = chosen.unwrap_or_else(|| QUIETER.into_iter().fold(Targets::new().with_default(settings.level), less));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process (tests, the demo) keeps the first subscriber.
    let _ = match settings.format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
}

fn less(filter: Targets, crate_name: &str) -> Targets {
    filter.with_target(crate_name, LevelFilter::WARN)
}

/// Others' crates whose `info` and `debug` tell of each packet or connection.
const QUIETER: [&str; 4] = ["russh", "rustls", "hyper", "h2"];
