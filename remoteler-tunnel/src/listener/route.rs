//! Which service of the one port a ClientHello is for. A pure function of ALPN (RFC 7301), SNI (RFC 6066 section 3) and the
//! cluster's name. Chooses a protocol handler and nothing else: no right comes from here (I13).

use remoteler_core::ClusterName;
pub use remoteler_core::wire::ALPN_AUTH;

/// ALPN of a dial for SSH: dial header, reply, then the bytes of an SSH connection.
pub const ALPN_SSH: &str = "remoteler-ssh";
/// ALPN of an agent's link.
pub const ALPN_TUNNEL: &str = "remoteler-tunnel";

/// ALPN of a proxy at the auth service's own port: origin header, then the bytes of a client's connection with [`ALPN_AUTH`]. Not spoken
/// at the one port.
pub const ALPN_AUTH_RELAY: &str = "remoteler-auth-relay";

/// Who serves a connection to the one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The relay for SSH: TLS ends here, mutual.
    Ssh,
    /// The server of agents' links: TLS ends here, mutual.
    Tunnel,
    /// The auth service: passed on without decrypting.
    Auth,
    /// The Kubernetes service with this server name: passed on without decrypting.
    Kube {
        /// The SNI, in lower case.
        server_name: String,
    },
    /// The app service with this server name: passed on without decrypting. Browsers come by [`Self::Web`].
    App {
        /// The SNI, in lower case.
        server_name: String,
    },
    /// The web API: TLS ends here, no client certificate.
    Web,
}

/// Why nobody serves a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// None of the protocols is spoken here.
    #[error("no protocol of {offered} is spoken here")]
    Protocol {
        /// What the client offers, made readable.
        offered: String,
    },
    /// A protocol of ours beside others: an honest client knows what it wants, and a confused one must not be served
    /// something else than it thinks.
    #[error("{own} must be offered alone, not among {offered}")]
    Mixed {
        /// Ours.
        own: &'static str,
        /// What the client offers, made readable.
        offered: String,
    },
}

/// Decides. `alpn` is what the client offers, empty when it sent no such extension.
///
/// # Errors
/// [`RouteError`] when nobody here speaks what the client wants.
pub fn route(alpn: &[Vec<u8>], server_name: Option<&str>, cluster: &ClusterName) -> Result<Route, RouteError> {
    for (own, route) in [(ALPN_SSH, Route::Ssh), (ALPN_TUNNEL, Route::Tunnel), (ALPN_AUTH, Route::Auth)] {
        if alpn.iter().any(|offered| offered == own.as_bytes()) {
            return if alpn.len() == 1 { Ok(route) } else { Err(RouteError::Mixed { own, offered: readable(alpn) }) };
        }
    }
    let http = alpn.is_empty() || alpn.iter().any(|offered| HTTP.contains(&offered.as_slice()));
    if !http {
        return Err(RouteError::Protocol { offered: readable(alpn) });
    }
    let server_name = server_name.map(str::to_ascii_lowercase);
    Ok(match server_name {
        Some(server_name) if is_below(&server_name, 'k', &cluster.kube_suffix()) => Route::Kube { server_name },
        Some(server_name) if is_below(&server_name, 'a', &cluster.app_suffix()) => Route::App { server_name },
        Some(_) | None => Route::Web,
    })
}

const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// `k<32 hex digits>.kube.<cluster>`, see [`remoteler_core::KubeClusterName::server_name`]; `a<32 hex digits>.app.<cluster>`, see
/// [`remoteler_core::AppName::server_name`].
fn is_below(name: &str, first: char, suffix: &str) -> bool {
    let Some((label, rest)) = name.split_once('.') else { return false };
    let Some(digits) = label.strip_prefix(first) else { return false };
    rest == suffix && digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn readable(alpn: &[Vec<u8>]) -> String {
    let names: Vec<String> = alpn.iter().take(8).map(|name| name.escape_ascii().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(alpn: &[&str], server_name: Option<&str>) -> Result<Route, RouteError> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        route(&alpn, server_name, &ClusterName::new("root.example.com").unwrap())
    }

    const APP: &str = "a0123456789abcdef0123456789abcdef.app.root.example.com";
    const KUBE: &str = "k0123456789abcdef0123456789abcdef.kube.root.example.com";

    // I13
    #[test]
    fn every_client_hello_has_one_route_or_a_reason() {
        let kube = Route::Kube { server_name: KUBE.to_owned() };
        let app = Route::App { server_name: APP.to_owned() };
        for (alpn, server_name, expected) in [
            (&["remoteler-ssh"][..], None, Route::Ssh),
            (&["remoteler-ssh"], Some(KUBE), Route::Ssh),
            (&["remoteler-tunnel"], Some("root.example.com"), Route::Tunnel),
            (&["remoteler-auth"], None, Route::Auth),
            (&["h2", "http/1.1"], Some("proxy.example.com"), Route::Web),
            (&["http/1.1"], None, Route::Web),
            (&[], None, Route::Web),
            (&["h2"], Some(KUBE), kube.clone()),
            (&["http/1.1"], Some(APP), app.clone()),
            (&[], Some("A0123456789abcdef0123456789abcdef.APP.root.example.com"), app),
            (&["h2"], Some("a0123456789abcdef0123456789abcdef.kube.root.example.com"), Route::Web),
            (&["h2"], Some("k0123456789abcdef0123456789abcdef.app.root.example.com"), Route::Web),
            (&["h2"], Some("a.app.root.example.com"), Route::Web),
            (&[], Some(KUBE), kube.clone()),
            (&["http/1.1"], Some("K0123456789ABCDEF0123456789abcdef.Kube.root.example.com"), kube),
            (&["h2"], Some("k0123456789abcdef0123456789abcdef.kube.other.example.com"), Route::Web),
            (&["h2"], Some("k0123.kube.root.example.com"), Route::Web),
            (&["h2"], Some("x.k0123456789abcdef0123456789abcdef.kube.root.example.com"), Route::Web),
        ] {
            assert_eq!(decide(alpn, server_name), Ok(expected), "{alpn:?} {server_name:?}");
        }
    }

    // I13
    #[test]
    fn other_protocols_are_refused_by_name() {
        assert!(matches!(decide(&["ssh\n"], None), Err(RouteError::Protocol { offered }) if offered == "ssh\\n"));
        assert!(matches!(decide(&["imap"], Some(KUBE)), Err(RouteError::Protocol { .. })));
        assert!(matches!(decide(&["h2", "remoteler-ssh"], None), Err(RouteError::Mixed { own: "remoteler-ssh", .. })));
        assert!(matches!(decide(&["remoteler-ssh", "remoteler-auth"], None), Err(RouteError::Mixed { .. })));
    }
}
