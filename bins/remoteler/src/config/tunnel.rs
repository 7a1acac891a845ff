//! How a host behind reverse tunnels reaches the proxies of its cluster, and how many of them.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use remoteler_client::WaysFile;
use remoteler_tunnel::{ProxyDialer, Ways};

use super::{
    ConfigError,
    file::Common,
    settings::{Flags, value},
};

/// What the config file and the environment say.
#[derive(Clone, Debug, Default)]
pub struct TunnelSettings {
    /// To how many proxies links are kept at most; absent: to all.
    pub connections: Option<NonZeroUsize>,
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
        let proxy = flags.https_proxy.as_deref().filter(|proxy| !proxy.is_empty());
        let except = flags.no_proxy.as_deref().unwrap_or_default();
        let dialer = proxy.map(|proxy| ProxyDialer::new(proxy, except)).transpose();
        let dialer = dialer.map_err(|cause| value("HTTPS_PROXY", cause.to_string()))?;
        Ok(Self { connections, dialer: dialer.map(Arc::new) })
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

#[cfg(test)]
mod tests {
    use super::*;

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
