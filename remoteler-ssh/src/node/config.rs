//! What a node is made with, and the SSH transport that follows from it: algorithms, limits, host key and certificate.

use std::{borrow::Cow, ffi::OsString, path::PathBuf, time::Duration};

use remoteler_core::{ClusterName, NodeRecord};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac, server};
use ssh_key::{Algorithm, Certificate, EcdsaCurve, PrivateKey};

/// Everything a node needs to know. All of it is checked by [`crate::Node::new`].
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Name, host id and labels: what roles are matched against.
    pub record: NodeRecord,
    /// The cluster, for recordings.
    pub cluster: ClusterName,
    /// Host key: Ed25519 or ECDSA P-256/P-384.
    pub host_key: PrivateKey,
    /// Certificate of the host authority for that key.
    pub host_certificate: Certificate,
    /// Where recordings of sessions with a terminal are kept until they are uploaded. Made with mode 0700. Whether they are recorded is a
    /// setting of the cluster; a session that is to be and cannot does not start. Sessions without a terminal (commands, file transfer,
    /// forwarding) leave events only.
    pub recordings_dir: PathBuf,
    /// Program and arguments that speak SFTP on standard input and output ([`crate::sftp_serve_stdio`]); run as the user.
    /// Empty: no file subsystem.
    pub sftp_command: Vec<OsString>,
    /// Where every account may pass, as `/tmp`: sockets of forwarded agents are made there, each in a directory that its account alone may enter.
    pub agent_sockets_dir: PathBuf,
    /// Made with mode 0700 when it is needed; remembers which of those are this node's, so that its next start removes what a killed one left.
    pub agent_notes_dir: PathBuf,
    /// Limits.
    pub limits: NodeLimits,
}

/// Limits of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Connections at once. Default 4096.
    pub max_connections: usize,
    /// Connections at once that have not logged in. Default 1024.
    pub max_unauthenticated: usize,
    /// The same for one source address, where it is known. Default 256.
    pub max_unauthenticated_per_source: usize,
    /// Channels at once in one connection that the client opened; as many may be open to it, for its forwarded agent and ports. Default 64.
    pub max_channels_per_connection: usize,
    /// Time for a login. Default 30 s.
    pub login_grace: Duration,
    /// How long a channel whose buffer is full may make no progress before it is closed. Meanwhile other channels of the same
    /// connection may wait. Default 30 s.
    pub stall_limit: Duration,
    /// Silence after which the client is asked whether it is there; after three questions without answer it is gone. Default 30 s.
    pub keepalive: Duration,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_unauthenticated: 1024,
            max_unauthenticated_per_source: 256,
            max_channels_per_connection: 64,
            login_grace: Duration::from_secs(30),
            stall_limit: Duration::from_secs(30),
            keepalive: Duration::from_secs(30),
        }
    }
}

/// Why a node cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The certificate is for another key.
    #[error("the host certificate {0:?} is not for the host key that was given; join again")]
    CertificateOfAnotherKey(String),
    /// A key that is not accepted as host key.
    #[error("host keys of type {0} are not served; use Ed25519 or ECDSA P-256")]
    HostKeyType(String),
    /// Recordings cannot be kept.
    #[error("recordings cannot be kept in {}", .dir.display())]
    RecordingsDir {
        /// Which directory.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl NodeConfig {
    /// The SSH transport: see `docs/protocol.md` for the lists.
    pub(super) fn transport(&self, key: &PrivateKey, certificate: &Certificate) -> Result<server::Config, NodeError> {
        if key.public_key().key_data() != certificate.public_key() {
            return Err(NodeError::CertificateOfAnotherKey(certificate.key_id().to_owned()));
        }
        if !HOST_KEYS.contains(&key.algorithm()) {
            return Err(NodeError::HostKeyType(key.algorithm().to_string()));
        }
        Ok(server::Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Remoteler_", env!("CARGO_PKG_VERSION")))),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: Duration::from_millis(20),
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![key.clone()],
            certificates: vec![certificate.clone()],
            window_size: WINDOW,
            maximum_packet_size: PACKET,
            channel_buffer_size: CHANNEL_MESSAGES,
            event_buffer_size: 16,
            preferred: Preferred {
                kex: Cow::Borrowed(KEY_EXCHANGES),
                key: Cow::Borrowed(HOST_KEYS),
                host_key_certificates: Cow::Borrowed(&[]),
                cipher: Cow::Borrowed(CIPHERS),
                mac: Cow::Borrowed(MACS),
                compression: Cow::Borrowed(&[compression::NONE]),
            },
            max_auth_attempts: MAX_OFFERS,
            inactivity_timeout: None,
            keepalive_interval: Some(self.limits.keepalive),
            keepalive_max: 3,
            nodelay: true,
            ..server::Config::default()
        })
    }
}

/// Keys and certificates that one connection may offer, as in OpenSSH's `MaxAuthTries`.
pub(super) const MAX_OFFERS: usize = 6;

/// Octets a client may send on a channel before it is given more room.
const WINDOW: u32 = 2 * 1024 * 1024;
const PACKET: u32 = 32 * 1024;
/// Messages the transport holds for a channel beyond those in the channel's own buffer.
const CHANNEL_MESSAGES: usize = 64;

const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
];
const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305];
const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];
