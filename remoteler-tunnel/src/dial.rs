//! The dial header: what a client asks a proxy for, and a proxy an agent, before the bytes of the target's own protocol. And
//! its reply. Owns their wire form: two octets of length, then JSON of at most 4 KiB. Never decides whether a dial is allowed.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use remoteler_core::ClusterName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most octets of a header or reply.
pub const MAX_DIAL_LEN: usize = 4096;
/// Version written, and the newest that is read.
pub const DIAL_VERSION: u32 = 1;

/// The protocol of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// An SSH server.
    Ssh,
    /// A Kubernetes service.
    Kube,
    /// The service of a web application.
    App,
    /// A named service of an agent: `service@host`.
    Service,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "node",
            Self::Kube => "Kubernetes cluster",
            Self::App => "application",
            Self::Service => "service",
        })
    }
}

/// What is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// Its protocol.
    pub kind: TargetKind,
    /// Its name in the cluster: of a node or its host id, of a Kubernetes cluster, of a web application.
    pub name: TargetName,
    /// The port that the user gave, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, kind, name, port } = self;
        write!(f, "{kind} {name}")?;
        if let Some(port) = port {
            write!(f, ":{port}")?;
        }
        write!(f, " of cluster {cluster}")
    }
}

/// A target's name: 1 to 200 visible ASCII characters. What it has to be beyond that, the lookup decides.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(Box<str>);

/// A target's name is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a target's name has 1 to 200 visible ASCII characters")]
pub struct TargetNameError;

impl TargetName {
    /// Checks `name`.
    ///
    /// # Errors
    /// It is empty, too long, or has other characters than visible ASCII.
    pub fn new(name: impl Into<String>) -> Result<Self, TargetNameError> {
        let name = name.into();
        let good = (1..=200).contains(&name.len()) && name.bytes().all(|octet| octet.is_ascii_graphic());
        if good { Ok(Self(name.into())) } else { Err(TargetNameError) }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TargetName {
    type Error = TargetNameError;
    fn try_from(name: String) -> Result<Self, TargetNameError> {
        Self::new(name)
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Asks for a byte stream to a target. Fields that a reader does not know are skipped; a newer version is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialHeader {
    v: u32,
    /// What is dialled.
    pub target: Target,
    /// Where the user's connection comes from, said by the proxy to an agent. A claim, for the audit log only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<SocketAddr>,
}

impl DialHeader {
    /// A header of the present version.
    #[must_use]
    pub fn new(target: Target, client_addr: Option<SocketAddr>) -> Self {
        Self { v: DIAL_VERSION, target, client_addr }
    }

    /// The JSON, as it stands in the metadata of a stream.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers always serialise")
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// [`DialHeaderError`] when it is no header of a version that is known.
    pub fn from_json(octets: &[u8]) -> Result<Self, DialHeaderError> {
        decode(octets)
    }
}

/// What a dial was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialReply {
    /// The bytes of the target follow.
    Connected,
    /// The connection ends here.
    Refused {
        /// For programs.
        code: DialCode,
        /// For people.
        message: String,
    },
}

/// Why a dial was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DialCode {
    /// The header was not understood.
    BadRequest,
    /// The caller may not.
    Denied,
    /// No such target is known.
    NotFound,
    /// The target is known and cannot be reached now.
    Unreachable,
    /// The target did not answer in time.
    Timeout,
    /// Too much is going on; try again.
    Busy,
    /// A fault of ours.
    Internal,
    /// A code of a newer version.
    #[serde(other)]
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct ReplyBody {
    v: u32,
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<DialCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// To a registration: whether streams to the auth service are taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    auth: bool,
}

/// Why a header or reply could not be exchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialHeaderError {
    /// The stream broke.
    #[error("the stream ended in the middle of a dial")]
    Io(#[from] io::Error),
    /// The length is not possible.
    #[error("a dial header or reply of {length} octets was announced, 1 to {MAX_DIAL_LEN} are possible")]
    Length {
        /// Announced octets.
        length: usize,
    },
    /// Not the JSON that it should be.
    #[error("the dial header or reply is malformed: {0}")]
    Malformed(String),
    /// A newer version.
    #[error("the dial header or reply has version {version}, this program reads {DIAL_VERSION}; upgrade it")]
    Version {
        /// What was found.
        version: u32,
    },
}

/// Writes a header to a stream.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks or the header is too long.
pub async fn write_dial<S: AsyncWrite + Unpin>(stream: &mut S, header: &DialHeader) -> Result<(), DialHeaderError> {
    write_message(stream, &header.to_json(), MAX_DIAL_LEN).await
}

/// Reads a header off a stream.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks or what it says is no header.
pub async fn read_dial<S: AsyncRead + Unpin>(stream: &mut S) -> Result<DialHeader, DialHeaderError> {
    decode(&read_message(stream, MAX_DIAL_LEN).await?)
}

/// Writes a reply to a stream.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks.
pub async fn write_dial_reply<S: AsyncWrite + Unpin>(stream: &mut S, reply: &DialReply) -> Result<(), DialHeaderError> {
    write_registration_reply(stream, reply, false).await
}

/// The same to a registration; `auth` says whether streams to the auth service are taken.
pub(crate) async fn write_registration_reply<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: &DialReply,
    auth: bool,
) -> Result<(), DialHeaderError> {
    let body = match reply {
        DialReply::Connected => ReplyBody { v: DIAL_VERSION, ok: true, code: None, message: None, auth },
        DialReply::Refused { code, message } => ReplyBody {
            v: DIAL_VERSION,
            ok: false,
            code: Some(*code),
            message: Some(message.chars().take(MAX_MESSAGE).collect()),
            auth: false,
        },
    };
    let octets = serde_json::to_vec(&body).map_err(|cause| DialHeaderError::Malformed(cause.to_string()))?;
    write_message(stream, &octets, MAX_DIAL_LEN).await
}

/// Reads a reply off a stream.
///
/// # Errors
/// [`DialHeaderError`] when the stream breaks or what it says is no reply.
pub async fn read_dial_reply<S: AsyncRead + Unpin>(stream: &mut S) -> Result<DialReply, DialHeaderError> {
    Ok(read_registration_reply(stream).await?.0)
}

/// The same to a registration, and whether streams to the auth service are taken.
pub(crate) async fn read_registration_reply<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<(DialReply, bool), DialHeaderError> {
    let body: ReplyBody = decode(&read_message(stream, MAX_DIAL_LEN).await?)?;
    let reply = if body.ok {
        DialReply::Connected
    } else {
        // The text is shown on terminals: no control characters of a stranger's.
        let message = body.message.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        DialReply::Refused { code: body.code.unwrap_or(DialCode::Unknown), message }
    };
    Ok((reply, body.auth))
}

/// Writes two octets of length and the message.
pub(crate) async fn write_message<S: AsyncWrite + Unpin>(
    stream: &mut S,
    octets: &[u8],
    most: usize,
) -> Result<(), DialHeaderError> {
    let length = u16::try_from(octets.len()).ok().filter(|length| (1..=most).contains(&usize::from(*length)));
    let length = length.ok_or(DialHeaderError::Length { length: octets.len() })?;
    let mut message = Vec::with_capacity(2 + octets.len());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(octets);
    stream.write_all(&message).await?;
    Ok(stream.flush().await?)
}

/// Reads two octets of length and a message of 1 to `most` octets.
pub(crate) async fn read_message<S: AsyncRead + Unpin>(
    stream: &mut S,
    most: usize,
) -> Result<Vec<u8>, DialHeaderError> {
    let length = usize::from(stream.read_u16().await?);
    if !(1..=most).contains(&length) {
        return Err(DialHeaderError::Length { length });
    }
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets).await?;
    Ok(octets)
}

/// Reads JSON that has a version: a newer one is named as such, whatever else it holds.
pub(crate) fn decode<T: DeserializeOwned>(octets: &[u8]) -> Result<T, DialHeaderError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let malformed = |cause: serde_json::Error| DialHeaderError::Malformed(cause.to_string());
    let Version { v: version } = serde_json::from_slice(octets).map_err(malformed)?;
    if version != DIAL_VERSION {
        return Err(DialHeaderError::Version { version });
    }
    serde_json::from_slice(octets).map_err(malformed)
}

/// Characters of a message; four octets each and escaping still fit.
const MAX_MESSAGE: usize = 600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    fn header() -> DialHeader {
        let target = Target {
            cluster: ClusterName::new("root").unwrap(),
            kind: TargetKind::Ssh,
            name: TargetName::new("node-a").unwrap(),
            port: Some(22),
        };
        DialHeader::new(target, Some("192.0.2.1:5000".parse().unwrap()))
    }

    #[tokio::test]
    async fn header_and_reply_arrive_as_they_were_sent() {
        let (mut near, mut far) = duplex(64);
        let refused = DialReply::Refused { code: DialCode::Unreachable, message: "its tunnel is down".into() };
        let replies = [DialReply::Connected, refused];
        let sent = replies.clone();
        let asking = tokio::spawn(async move {
            write_dial(&mut near, &header()).await.unwrap();
            [read_dial_reply(&mut near).await.unwrap(), read_dial_reply(&mut near).await.unwrap()]
        });

        assert_eq!(read_dial(&mut far).await.unwrap(), header());
        for reply in &sent {
            write_dial_reply(&mut far, reply).await.unwrap();
        }
        assert_eq!(asking.await.unwrap(), replies);
    }

    #[test]
    fn the_json_is_the_one_that_the_protocol_document_shows() {
        let json = String::from_utf8(header().to_json()).unwrap();

        assert_eq!(
            json,
            r#"{"v":1,"target":{"cluster":"root","kind":"ssh","name":"node-a","port":22},"client_addr":"192.0.2.1:5000"}"#
        );
    }

    #[test]
    fn a_newer_version_is_refused_by_number_and_unknown_fields_are_skipped() {
        let newer = DialHeader::from_json(br#"{"v":2,"anything":true}"#).unwrap_err();
        assert!(matches!(newer, DialHeaderError::Version { version: 2 }), "{newer}");
        let more = br#"{"v":1,"later":1,"target":{"cluster":"root","kind":"kube","name":"a","more":[]}}"#;
        assert_eq!(DialHeader::from_json(more).unwrap().target.name.as_str(), "a");
    }

    // I25
    #[tokio::test]
    async fn a_length_beyond_the_bound_is_refused_before_it_is_waited_for() {
        let (mut near, mut far) = duplex(64);
        near.write_all(&[0xff, 0xff]).await.unwrap();

        assert!(matches!(read_dial(&mut far).await, Err(DialHeaderError::Length { length: 0xffff })));
    }

    proptest! {
        // I25
        #[test]
        fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = DialHeader::from_json(&octets);
        }
    }
}
