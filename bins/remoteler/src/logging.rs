//! The log: events with fields on standard error, as text or JSON.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, LogSettings};

/// Starts logging for this process. A second call does nothing.
pub(crate) fn init(settings: LogSettings) {
    let default = format!("{},russh=warn,rustls=warn,hyper=warn,h2=warn", settings.level);
    let filter = EnvFilter::try_from_env("REMOTELER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process (tests, the demo) keeps the first subscriber.
    let _ = match settings.format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
}
