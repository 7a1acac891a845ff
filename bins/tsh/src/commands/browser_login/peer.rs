//! Whose process is at the other end of a connection from this machine, as the kernel lists it (`/proc/net/tcp`, proc(5)). Owns what follows when it is not listed;
//! other users of the machine reach a listener on a loopback address as well as its owner does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a list of connections says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It is this user's.
    Of(u32),
    /// The listener is listed and the peer is not, or is gone already: then a socket shows no owner.
    Unknown,
    /// Nothing is listed that we know of, as where the kernel keeps no such list.
    NoList,
}

/// State of a connection whose socket still has its owner.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Whether who is at `peer` may talk to the listener of this user at `own`: processes of the same user and of root may. Where there is no list, everybody may, as
/// the path that they have to know says.
pub(super) async fn is_own(peer: SocketAddr, own: SocketAddr) -> bool {
    let user = rustix::process::getuid().as_raw();
    // The lists are read in parts and are none of one moment: a line may be missed, and is there the next time.
    let found = tokio::task::spawn_blocking(move || {
        let mut looks = (0..LOOKS).map(|_| listed(peer, own));
        looks.find(|found| *found != Peer::Unknown).unwrap_or(Peer::Unknown)
    });
    match found.await {
        Ok(Peer::Of(owner)) => owner == user || owner == 0,
        Ok(Peer::Unknown) => false,
        Ok(Peer::NoList) => true,
        Err(_) => false,
    }
}

/// How often a list is read for a peer that is not in it.
const LOOKS: usize = 3;

/// What both lists say: programs that speak both protocols over one kind of socket are in that of IPv6, also for 127.0.0.1.
fn listed(peer: SocketAddr, own: SocketAddr) -> Peer {
    let look = |name: &str| match std::fs::read_to_string(name) {
        Ok(list) => find(&list, peer, own),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Peer::NoList,
        Err(_) => Peer::Unknown,
    };
    match (look("/proc/net/tcp"), look("/proc/net/tcp6")) {
        (Peer::Of(owner), _) | (_, Peer::Of(owner)) => Peer::Of(owner),
        (Peer::NoList, Peer::NoList) => Peer::NoList,
        (Peer::Unknown, _) | (_, Peer::Unknown) => Peer::Unknown,
    }
}

fn find(list: &str, peer: SocketAddr, own: SocketAddr) -> Peer {
    let mut is_listed = false;
    for line in list.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, remote, state, _, _, _, owner, ..] = fields.as_slice() else { continue };
        let (local, remote) = (address(local), address(remote));
        is_listed |= local == Some(own) && *state == LISTEN;
        if local == Some(peer) && remote == Some(own) {
            let owner = owner.parse().ok().filter(|_| *state == ESTABLISHED);
            return owner.map_or(Peer::Unknown, Peer::Of);
        }
    }
    if is_listed { Peer::Unknown } else { Peer::NoList }
}

/// `0100007F:1F90`: words of 32 bits as this machine has them in memory, and the port as people read it.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.as_flattened().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, remote: &str, state: &str, owner: u32) -> String {
        format!("   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {owner}        0 1234 1 0 20\n")
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_peer_is_who_the_kernel_says_while_its_connection_stands() {
        let (peer, own) = ("127.0.0.1:41000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        let listener = line("0100007F:1F90", "00000000:0000", LISTEN, 1000);
        let listed = |state: &str| format!("{HEAD}{listener}{}", line("0100007F:A028", "0100007F:1F90", state, 1001));
        assert_eq!(find(&listed(ESTABLISHED), peer, own), Peer::Of(1001));
        // Closed at once by who sent it, it would be shown as root's.
        for state in ["04", "05", "06"] {
            assert_eq!(find(&listed(state), peer, own), Peer::Unknown);
        }
        // Our own end of the connection has our owner, and is another line.
        let ours = format!("{HEAD}{listener}{}", line("0100007F:1F90", "0100007F:A028", ESTABLISHED, 1000));
        assert_eq!(find(&ours, peer, own), Peer::Unknown);
        for none in [HEAD, "", "x\ny\n"] {
            assert_eq!(find(none, peer, own), Peer::NoList);
        }
        let mapped = format!(
            "{HEAD}{}",
            line("0000000000000000FFFF00000100007F:A028", "0000000000000000FFFF00000100007F:1F90", ESTABLISHED, 7)
        );
        assert_eq!(find(&mapped, peer, own), Peer::Of(7));
        let six: SocketAddr = "[::1]:8080".parse().unwrap();
        assert_eq!(address("00000000000000000000000001000000:1F90"), Some(six));
        for wrong in ["", "0100007F", "0100007:1F90", "é100007F:1F90", "0100007F:1F9000", "0100007é:1F90"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_connection_of_this_process_is_its_own_users() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let client = tokio::net::TcpStream::connect(own).await.unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert!(is_own(peer, own).await);
        drop(client);
    }
}
