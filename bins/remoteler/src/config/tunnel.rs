//! Reverse tunnels: how a host behind them reaches the proxies of its cluster, and how many of them; and what this process, at either end, holds
//! for a tunnel that has lost its connection.

use std::{num::NonZeroUsize, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use remoteler_client::WaysFile;
use remoteler_core::parse_duration;
use remoteler_tunnel::{Limits, ProxyDialer, ReplayBudget, Ways};

use super::{
    ConfigError,
    file::Common,
    settings::{Flags, value},
};

/// What the config file and the environment say.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// To how many proxies links are kept at most; absent: to all.
    pub connections: Option<NonZeroUsize>,
    /// What all links of this process may keep for being taken up again.
    pub replay: ReplayBudget,
    /// Whether octets are paid for where this host is.
    pub metered: bool,
    resume_within: Duration,
    dialer: Option<Arc<ProxyDialer>>,
}

impl TunnelSettings {
    pub(super) fn new(common: &Common, flags: &Flags) -> Result<Self, ConfigError> {
        let connections = match common.tunnel_connections {
            None => None,
            Some(count) => Some(NonZeroUsize::new(count).ok_or_else(|| {
                value("tunnel_connections", "0 is no number of links; leave it out for a link to every proxy")
            })?),
        };
        let resume_within = match &common.tunnel_resume_window {
            None => Limits::client().resume_within,
            Some(text) => parse_duration(text).filter(|window| WINDOWS.contains(window)).ok_or_else(|| {
                value("tunnel_resume_window", format!("{text:?} is no duration between 1s and 24h, such as 10m"))
            })?,
        };
        let replay = match common.tunnel_replay_memory_mb {
            None => ReplayBudget::default(),
            Some(size) if MEMORY_MIB.contains(&size) => ReplayBudget::new(size * 1024 * 1024),
            Some(size) => {
                let reason = format!("{size} is not between {} and {}", MEMORY_MIB.start(), MEMORY_MIB.end());
                return Err(value("tunnel_replay_memory_mb", reason));
            }
        };
        let metered = common.tunnel_metered.unwrap_or_default();
        let proxy = flags.https_proxy.as_deref().filter(|proxy| !proxy.is_empty());
        let except = flags.no_proxy.as_deref().unwrap_or_default();
        let dialer = proxy.map(|proxy| ProxyDialer::new(proxy, except)).transpose();
        let dialer = dialer.map_err(|cause| value("HTTPS_PROXY", cause.to_string()))?;
        Ok(Self { connections, replay, metered, resume_within, dialer: dialer.map(Arc::new) })
    }

    /// Bounds of the links that this host makes as an agent.
    #[must_use]
    pub fn of_agent(&self) -> Limits {
        let limits = if self.metered { Limits::metered() } else { Limits::client() };
        Limits { resume_within: self.resume_within, ..limits }
    }

    /// Bounds of the links that agents make with this proxy. Whether they are metered is for the agents to say.
    #[must_use]
    pub fn of_proxy(&self) -> Limits {
        Limits { resume_within: self.resume_within, ..Limits::server() }
    }

    /// Straight or through the HTTP proxy, and over WebSocket where that fails; what worked is remembered in `data_dir`.
    pub(super) fn ways(&self, data_dir: &Path) -> Ways {
        let ways = match &self.dialer {
            Some(dialer) => Ways::through(dialer.clone()),
            None => Ways::default(),
        };
        ways.or_websocket(Arc::new(WaysFile::new(data_dir)))
    }
}

/// A shorter one would end streams at each change of networks; a longer one would keep what was sent to a device that is gone.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// 0 leaves each link the 64 KiB that it may keep in any case.
const MEMORY_MIB: RangeInclusive<usize> = 0..=65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    fn written(line: &str) -> Result<TunnelSettings, String> {
        let file = ConfigFile::parse(&format!("remoteler: {{ {line} }}"))?;
        TunnelSettings::new(&file.remoteler, &Flags::default()).map_err(|cause| cause.to_string())
    }

    #[test]
    fn without_a_word_both_ends_of_a_tunnel_have_the_librarys_bounds() {
        let silent = written("").unwrap();
        assert_eq!((silent.of_agent(), silent.of_proxy()), (Limits::client(), Limits::server()));
        assert_eq!(format!("{:?}", silent.replay), format!("{:?}", ReplayBudget::default()));
    }

    #[test]
    fn the_window_the_profile_and_the_memory_of_tunnels_are_as_written() {
        let said = written("tunnel_resume_window: 1h30m, tunnel_metered: yes, tunnel_replay_memory_mb: 16").unwrap();
        let window = Duration::from_secs(5400);
        assert_eq!(said.of_agent(), Limits { resume_within: window, ..Limits::metered() });
        assert_eq!(said.of_proxy(), Limits { resume_within: window, ..Limits::server() });
        assert_eq!(format!("{:?}", said.replay), format!("{:?}", ReplayBudget::new(16 * 1024 * 1024)));
        for line in ["tunnel_resume_window: 1s", "tunnel_resume_window: 24h", "tunnel_replay_memory_mb: 0"] {
            assert!(written(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_window_or_a_memory_out_of_range_stops_the_start_and_says_what_may_be_there() {
        for (line, expected) in [
            ("tunnel_resume_window: 0s", "tunnel_resume_window: \"0s\" is no duration between 1s and 24h, such as 10m"),
            ("tunnel_resume_window: 25h", "tunnel_resume_window: \"25h\" is no duration between 1s and 24h"),
            ("tunnel_resume_window: soon", "tunnel_resume_window: \"soon\" is no duration"),
            ("tunnel_replay_memory_mb: 65537", "tunnel_replay_memory_mb: 65537 is not between 0 and 65536"),
            ("tunnel_meterd: yes", "did you mean \"tunnel_metered\"?"),
        ] {
            let refused = written(line).unwrap_err();
            assert!(refused.contains(expected), "{line}: {refused}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_and_no_links_at_all_stop_the_start() {
        let flags = |proxy: &str| Flags { https_proxy: Some(proxy.into()), ..Flags::default() };
        assert!(TunnelSettings::new(&Common::default(), &flags("")).unwrap().dialer.is_none());
        assert!(TunnelSettings::new(&Common::default(), &flags("http://p:3128")).unwrap().dialer.is_some());
        let refused =
            TunnelSettings::new(&Common::default(), &flags("socks5://ann:secret@p:1")).unwrap_err().to_string();
        assert!(refused.starts_with("HTTPS_PROXY: ") && !refused.contains("secret"), "{refused}");
        let none = Common { tunnel_connections: Some(0), ..Common::default() };
        assert!(TunnelSettings::new(&none, &Flags::default()).is_err());
    }
}
