//! The node against a client that knows the protocol too well: certificates in place of keys, signatures of another key than was shown, and
//! requests that no role allows.

use remoteler_core::CaKind;
use remoteler_tests::{Cluster, User, eventually, os_login};
use russh::{Channel, ChannelMsg, client::Msg, keys::agent::AgentIdentity};
use ssh_key::{Certificate, HashAlg, PrivateKey, encoding::Encode};

use crate::{
    bearer::{Bearer, Window, authority, forge, user_identity},
    door::{log_in, ssh},
    with_room,
};

/// A cluster and a user who may log in to its node.
fn set_up() -> (Cluster, Bearer) {
    let cluster = Cluster::start();
    let eve = User::create(&cluster, "eve", "access");
    (cluster, Bearer::of_login(&eve))
}

fn nothing_ran(cluster: &Cluster) {
    assert!(cluster.events("session.start").is_empty() && cluster.events("exec").is_empty());
}

// I2
#[test]
fn a_certificate_signed_by_a_certificate_is_refused_at_any_depth_and_the_node_lives_on() {
    with_room(async {
        let (mut cluster, right) = set_up();
        let pid = cluster.daemon().id();
        let own_key = right.ssh_key.public_key().key_data().encode_vec().unwrap();
        let once = signed_by(&right, &right.ssh_certificate.to_bytes().unwrap());
        let twice = signed_by(&right, &once.to_bytes().unwrap());
        let cases = [
            // Shows that the signature is good; the others differ in the key only.
            ("not at all", signed_by(&right, &own_key), "was not signed by the user authority"),
            ("once", once, "no acceptable certificate"),
            ("twice", twice, "no acceptable certificate"),
            ("as deep as a packet", deep(240 * 1024), "no acceptable certificate"),
        ];
        for (what, certificate, reason) in cases {
            let (mut client, from) = ssh(&cluster).await;
            let shown = Bearer { ssh_certificate: certificate, ..right.clone() };
            assert!(!log_in(&mut client, &shown).await, "nested {what}");
            assert!(client.channel_open_session().await.is_err(), "nested {what}");
            let event = cluster.event("auth", |event| event["addr.remote"] == from.to_string());
            assert!(event["service"] == "node" && event["error"].as_str().unwrap().contains(reason), "{event}");
        }
        nothing_ran(&cluster);
        let (mut client, _) = ssh(&cluster).await;
        assert!(log_in(&mut client, &right).await && client.channel_open_session().await.is_ok());
        assert!(cluster.daemon().runs() && cluster.daemon().id() == pid);
    });
}

/// The holder's certificate with `key` in the place of the authority's, and the holder's own signature. Whoever takes a certificate of the
/// holder for a key finds it good.
fn signed_by(holder: &Bearer, key: &[u8]) -> Certificate {
    let plain = holder.ssh_certificate.to_bytes().unwrap();
    let authority = holder.ssh_certificate.signature_key().encode_vec().unwrap();
    let at = plain.windows(authority.len()).rposition(|window| window == authority).unwrap();
    let signed = [&plain[..at - 4], &string(key)].concat();
    let signature: ssh_key::Signature = signature::Signer::try_sign(&holder.ssh_key, &signed).unwrap();
    Certificate::from_bytes(&[signed, string(&signature.encode_vec().unwrap())].concat()).unwrap()
}

/// Certificates in certificates, each the smallest that a parser follows, `len` octets in all.
fn deep(len: usize) -> Certificate {
    let mut nested = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
    while nested.len() < len {
        let head = [string(b"ssh-ed25519-cert-v01@openssh.com"), string(b""), string(&[7; 32])].concat();
        let middle = [[0; 8].as_slice(), &[0, 0, 0, 1], &[0; 8], &[0; 8], &[0xff; 8], &[0; 12]].concat();
        let signature = string(&[string(b"x@y"), string(b"1")].concat());
        nested = [head, middle, string(&nested), signature].concat();
    }
    Certificate::from_bytes(&nested).unwrap()
}

fn string(octets: &[u8]) -> Vec<u8> {
    [&u32::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat()
}

/// Signs with another key than the one that was shown, or not at all.
struct Other(Option<PrivateKey>);

#[derive(Debug)]
struct NotSigned;

impl From<russh::SendError> for NotSigned {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

impl russh::Signer for Other {
    type Error = NotSigned;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        let key = self.0.as_ref().ok_or(NotSigned)?;
        let signature: ssh_key::Signature = signature::Signer::try_sign(key, &to_sign).map_err(|_| NotSigned)?;
        let signature = signature.encode_vec().map_err(|_| NotSigned)?;
        Ok([to_sign, string(&signature)].concat())
    }
}

// I16
#[test]
fn a_probe_with_one_key_and_a_signature_of_another_is_no_login_and_leaves_no_state() {
    with_room(async {
        let (cluster, right) = set_up();
        let thief = forge(&authority(Cluster::NAME, CaKind::User), &user_identity("eve", Cluster::NAME), Window::Hour);
        let shown = || right.ssh_certificate.clone();
        let signed = |key: &PrivateKey| Other(Some(key.clone()));

        // The node says yes to the probe of the right certificate; the signature is the thief's.
        let (mut client, from) = ssh(&cluster).await;
        let login = client.authenticate_certificate_with(os_login(), shown(), None, &mut signed(&thief.ssh_key)).await;
        assert!(!login.is_ok_and(|result| result.success()));
        assert!(client.channel_open_session().await.is_err());
        drop(client);
        cluster.event("auth", |event| event["service"] == "node" && event["addr.remote"] == from.to_string());

        // A probe that is never signed, then the thief's own certificate and key, each properly signed, on the same connection.
        let (mut client, from) = ssh(&cluster).await;
        let probe = client.authenticate_certificate_with(os_login(), shown(), None, &mut Other(None)).await;
        assert!(probe.is_err(), "the node asks for a signature");
        assert!(!log_in(&mut client, &thief).await);
        let key = thief.ssh_key.public_key().clone();
        let plain = client.authenticate_publickey_with(os_login(), key, None, &mut signed(&thief.ssh_key)).await;
        assert!(!plain.is_ok_and(|result| result.success()));
        assert!(!client.authenticate_none(os_login()).await.is_ok_and(|result| result.success()));
        assert!(client.channel_open_session().await.is_err());
        drop(client);
        cluster.event("auth", |event| {
            event["addr.remote"] == from.to_string() && event["error"].as_str().unwrap().contains("was not signed by")
        });
        nothing_ran(&cluster);

        // A probe alone is no obstacle for who has the key.
        let (mut client, _) = ssh(&cluster).await;
        let probe = client.authenticate_certificate_with(os_login(), shown(), None, &mut Other(None)).await;
        assert!(probe.is_err());
        let login = client.authenticate_certificate_with(os_login(), shown(), None, &mut signed(&right.ssh_key)).await;
        assert!(login.unwrap().success() && client.channel_open_session().await.is_ok());
    });
}

/// The answer to the request made last in `channel`.
async fn answer(channel: &mut Channel<Msg>) -> bool {
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return true,
            Some(ChannelMsg::Failure) | None => return false,
            Some(_) => {}
        }
    }
}

// I19
#[test]
fn what_is_not_allowed_to_a_logged_in_user_is_refused_request_by_request() {
    with_room(async {
        let (cluster, right) = set_up();
        let (mut client, from) = ssh(&cluster).await;
        assert!(log_in(&mut client, &right).await);
        let mut channel = client.channel_open_session().await.unwrap();

        channel.set_env(true, "LANG", "C.UTF-8").await.unwrap();
        assert!(answer(&mut channel).await, "LANG");
        for name in ["LD_PRELOAD", "BASH_ENV", "PATH", "SSH_AUTH_SOCK", "REMOTELER_SESSION_ID"] {
            channel.set_env(true, name, "/tmp/x").await.unwrap();
            assert!(!answer(&mut channel).await, "{name}");
        }
        channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
        assert!(!answer(&mut channel).await, "X11");
        channel.agent_forward(true).await.unwrap();
        assert!(!answer(&mut channel).await, "an agent");
        for name in ["netconf", "SFTP", "sftp\0", "proxy:", ""] {
            channel.request_subsystem(true, name).await.unwrap();
            assert!(!answer(&mut channel).await, "subsystem {name:?}");
        }
        let socket = cluster.dir().join("socket").display().to_string();
        assert!(client.tcpip_forward("127.0.0.1", 65536).await.is_err());
        assert!(client.cancel_tcpip_forward("127.0.0.1", 22).await.is_err());
        assert!(client.streamlocal_forward(&socket).await.is_err());
        assert!(client.channel_open_direct_streamlocal(&socket).await.is_err());
        assert!(client.channel_open_x11("127.0.0.1", 6000).await.is_err());
        nothing_ran(&cluster);
        assert!(!std::path::Path::new(&socket).exists());

        eventually("each refusal is in the audit log", || {
            let events = cluster.events("auth");
            let theirs =
                events.iter().filter(|event| event["user"] == "eve" && event["addr.remote"] == from.to_string());
            let said: Vec<_> = theirs.filter_map(|event| event["error"].as_str()).collect();
            let wanted = ["X11 forwarding", "subsystem \"netconf\"", "Unix sockets"];
            let missing: Vec<_> = wanted.iter().filter(|part| !said.iter().any(|said| said.contains(**part))).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} is not in {said:?}")) }
        });
        eventually("what was not forwarded is in the audit log", || {
            let ports = cluster.events("port");
            let said: Vec<_> = ports
                .iter()
                .filter(|event| event["user"] == "eve")
                .filter_map(|event| event["error"].as_str())
                .collect();
            let found =
                ["allows agent forwarding", "no port 65536"].map(|part| said.iter().any(|said| said.contains(part)));
            if found == [true; 2] { Ok(()) } else { Err(format!("{said:?}")) }
        });

        // The session is as usable as before.
        channel.exec(true, "exit 7").await.unwrap();
        assert!(answer(&mut channel).await);
        let mut status = None;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                status = Some(exit_status);
            }
        }
        assert_eq!(status, Some(7));
    });
}
