//! Taking up a link on a new connection: the one message that each side sends, and the proof in it. Owns keys and layout. Decides nothing
//! about whose link it is.
//!
//! ```text
//! 0          4       5       6              8
//! | "RLNR"   | major | minor | length: u16  | body
//! client's body:  | id: 16 octets | attempt: u32 | received: u64 | proof: 32 octets |
//! server's body:  | 0 | received: u64 | proof: 32 octets |   or   | 1 | why not, UTF-8, at most 1,024 octets |
//! ```
//!
//! `received` is the number of sequenced octets that the sender has. The proof is HMAC-SHA256, with the link's secret, over who speaks, what
//! the new connection alone has (RFC 8446 section 7.5 exporter), and the body before the proof: a proof that was seen is worth nothing
//! anywhere else. Id and secret are exported by the link's first connection and never sent, but for the id here.

use bytes::{Buf, BufMut, BytesMut};
use ring::hmac;

use crate::handshake::{MAJOR, MINOR};

/// First four octets of a resumption.
pub const RESUME_MAGIC: [u8; 4] = *b"RLNR";
/// Label of what a link's first connection exports: id and secret.
pub const EXPORT_KEYS: &[u8] = b"EXPORTER-remoteler-link";
/// Label of what a resuming connection exports: what its proofs are bound to.
pub const EXPORT_CHANNEL: &[u8] = b"EXPORTER-remoteler-resume";
/// Octets of the client's body.
pub const RESUME_BODY_LEN: usize = 16 + 4 + 8 + 32;
/// Most octets of the server's body, reason included.
pub const MAX_RESUME_BODY_LEN: usize = 1 + 1024;

const PREFIX_LEN: usize = 8;
const PROOF_LEN: usize = 32;

/// Names a link that may be taken up again.
pub type LinkId = [u8; 16];
/// What is particular to one TLS connection.
pub type Channel = [u8; 32];

/// Id and secret of a link.
#[derive(Clone)]
pub struct ResumeKeys {
    id: LinkId,
    key: hmac::Key,
}

impl std::fmt::Debug for ResumeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeKeys")
    }
}

impl ResumeKeys {
    /// Of what the link's first connection exports under [`EXPORT_KEYS`].
    #[must_use]
    pub fn new(exported: &[u8; 48]) -> Self {
        let (id, secret) = exported.split_at(16);
        let id = id.try_into().expect("the first 16 of 48 octets");
        Self { id, key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The link's name.
    #[must_use]
    pub const fn id(&self) -> LinkId {
        self.id
    }

    /// What the client sends: its `attempt`-th, having received so many octets.
    #[must_use]
    pub fn request(&self, attempt: u32, received: u64, channel: &Channel) -> BytesMut {
        let mut out = prefix(RESUME_BODY_LEN);
        out.put_slice(&self.id);
        out.put_u32(attempt);
        out.put_u64(received);
        let body = out.split_off(PREFIX_LEN);
        let proof = hmac::sign(&self.key, &proven(CLIENT, channel, &body));
        out.unsplit(body);
        out.put_slice(proof.as_ref());
        out
    }

    /// Whether the request was made by who holds the secret, on this connection.
    #[must_use]
    pub fn proves(&self, request: &ResumeRequest, channel: &Channel) -> bool {
        let mut body = BytesMut::with_capacity(RESUME_BODY_LEN);
        body.put_slice(&request.id);
        body.put_u32(request.attempt);
        body.put_u64(request.received);
        hmac::verify(&self.key, &proven(CLIENT, channel, &body), &request.proof).is_ok()
    }

    /// What the server answers that takes the link up, having received so many octets.
    #[must_use]
    pub fn answer(&self, received: u64, channel: &Channel) -> BytesMut {
        let mut out = prefix(1 + 8 + PROOF_LEN);
        out.put_u8(0);
        out.put_u64(received);
        let body = out.split_off(PREFIX_LEN);
        let proof = hmac::sign(&self.key, &proven(SERVER, channel, &body));
        out.unsplit(body);
        out.put_slice(proof.as_ref());
        out
    }

    /// Octets that the server has, if it takes the link up.
    ///
    /// # Errors
    /// [`ResumeError`]: refused, not proven, or not understood.
    pub fn accepted(&self, answer: &[u8], channel: &Channel) -> Result<u64, ResumeError> {
        let mut rest = answer;
        match rest.try_get_u8() {
            Ok(0) => {}
            Ok(1) => {
                let reason = String::from_utf8_lossy(rest).chars().filter(|c| !c.is_control()).collect();
                return Err(ResumeError::Refused { reason });
            }
            Ok(_) | Err(_) => return Err(ResumeError::Malformed),
        }
        if rest.len() != 8 + PROOF_LEN {
            return Err(ResumeError::Malformed);
        }
        let received = rest.get_u64();
        let body = answer.get(..1 + 8).unwrap_or_default();
        let proven = hmac::verify(&self.key, &proven(SERVER, channel, body), rest);
        proven.map(|()| received).map_err(|_| ResumeError::Proof)
    }
}

/// What a client asks, after its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeRequest {
    /// Which link.
    pub id: LinkId,
    /// Which attempt, from 1; each is used once.
    pub attempt: u32,
    /// Sequenced octets the client has.
    pub received: u64,
    /// That it is its link.
    pub proof: [u8; PROOF_LEN],
}

impl ResumeRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ResumeError::Malformed`]
    pub fn parse(mut body: &[u8]) -> Result<Self, ResumeError> {
        if body.len() != RESUME_BODY_LEN {
            return Err(ResumeError::Malformed);
        }
        let mut request = Self { id: LinkId::default(), attempt: 0, received: 0, proof: [0; PROOF_LEN] };
        body.copy_to_slice(&mut request.id);
        request.attempt = body.get_u32();
        request.received = body.get_u64();
        body.copy_to_slice(&mut request.proof);
        Ok(request)
    }
}

/// What the server answers that does not take the link up. A reason for people, cut to what the message holds.
pub(crate) fn refusal(reason: &str) -> BytesMut {
    let end = (0..=reason.len().min(MAX_RESUME_BODY_LEN - 1)).rev().find(|end| reason.is_char_boundary(*end));
    let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
    let mut out = prefix(1 + reason.len());
    out.put_u8(1);
    out.put_slice(reason.as_bytes());
    out
}

/// Octets of the body that follow a prefix.
///
/// # Errors
/// It is no resumption, of another version, or too long.
pub(crate) fn body_length(prefix: &[u8; PREFIX_LEN]) -> Result<usize, ResumeError> {
    let mut rest = prefix.strip_prefix(&RESUME_MAGIC).ok_or(ResumeError::Malformed)?;
    let (major, _minor, length) = (rest.get_u8(), rest.get_u8(), usize::from(rest.get_u16()));
    if major != MAJOR || length == 0 || length > MAX_RESUME_BODY_LEN {
        return Err(ResumeError::Malformed);
    }
    Ok(length)
}

fn prefix(length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(PREFIX_LEN + length);
    out.put_slice(&RESUME_MAGIC);
    out.put_u8(MAJOR);
    out.put_u8(MINOR);
    out.put_u16(u16::try_from(length).expect("bodies have at most MAX_RESUME_BODY_LEN octets"));
    out
}

fn proven(who: &[u8], channel: &Channel, body: &[u8]) -> Vec<u8> {
    [who, channel, body].concat()
}

const CLIENT: &[u8] = b"remoteler link resume: client\0";
const SERVER: &[u8] = b"remoteler link resume: server\0";

/// Why a link is not taken up on this connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The server said no: the link is lost.
    #[error("the proxy does not take the tunnel up again: {reason}")]
    Refused {
        /// As the server says it.
        reason: String,
    },
    /// The server does not hold the secret.
    #[error("the peer could not prove that the tunnel is its own")]
    Proof,
    /// Not such a message.
    #[error("the peer's message about the tunnel was not understood")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(octet: u8) -> ResumeKeys {
        ResumeKeys::new(&[octet; 48])
    }

    fn body(message: &[u8]) -> &[u8] {
        let length = body_length(message[..PREFIX_LEN].try_into().unwrap()).unwrap();
        assert_eq!(message.len(), PREFIX_LEN + length);
        &message[PREFIX_LEN..]
    }

    #[test]
    fn each_side_proves_itself_and_says_what_it_has() {
        let (keys, channel) = (keys(1), [7; 32]);
        let request = ResumeRequest::parse(body(&keys.request(3, u64::MAX, &channel))).unwrap();
        assert_eq!((request.id, request.attempt, request.received), (keys.id(), 3, u64::MAX));
        assert!(keys.proves(&request, &channel));
        assert_eq!(keys.accepted(body(&keys.answer(12, &channel)), &channel), Ok(12));
    }

    // I25
    #[test]
    fn a_proof_counts_for_one_link_one_connection_one_side_and_what_it_says() {
        let (link, channel) = (keys(1), [7; 32]);
        let good = ResumeRequest::parse(body(&link.request(3, 5, &channel))).unwrap();
        assert!(!keys(2).proves(&good, &channel) && !link.proves(&good, &[8; 32]));
        for changed in [
            ResumeRequest { attempt: 4, ..good.clone() },
            ResumeRequest { received: 6, ..good.clone() },
            ResumeRequest { id: [9; 16], ..good.clone() },
        ] {
            assert!(!link.proves(&changed, &channel), "{changed:?}");
        }
        let answer = link.answer(5, &channel);
        assert_eq!(link.accepted(body(&answer), &[8; 32]), Err(ResumeError::Proof));
        assert_eq!(keys(2).accepted(body(&answer), &channel), Err(ResumeError::Proof));
        for at in PREFIX_LEN + 1..answer.len() {
            let mut changed = answer.clone();
            changed[at] ^= 1;
            assert_eq!(link.accepted(body(&changed), &channel), Err(ResumeError::Proof), "octet {at}");
        }
    }

    #[test]
    fn a_refusal_says_why_in_plain_text_of_bounded_length() {
        let said = |reason: &str| keys(1).accepted(body(&refusal(reason)), &[0; 32]);
        let refused = |reason: &str| Err(ResumeError::Refused { reason: reason.into() });
        assert_eq!(said("it was\u{1b}[2J restarted"), refused("it was[2J restarted"));
        assert_eq!(said(&"é".repeat(1000)), refused(&"é".repeat(512)));
    }

    // I25
    #[test]
    fn what_is_no_such_message_is_refused_before_anything_is_held() {
        for prefix in [*b"RLNK\x01\0\0\x20", *b"RLNR\x02\0\0\x20", *b"RLNR\x01\0\0\0", *b"RLNR\x01\0\xff\xff"] {
            assert_eq!(body_length(&prefix), Err(ResumeError::Malformed), "{prefix:?}");
        }
        for length in [0, 1, RESUME_BODY_LEN - 1, RESUME_BODY_LEN + 1] {
            assert_eq!(ResumeRequest::parse(&vec![0; length]), Err(ResumeError::Malformed));
        }
        for answer in [&[][..], &[2], &[0], &[0; 40], &[0; 42]] {
            assert_eq!(keys(1).accepted(answer, &[0; 32]), Err(ResumeError::Malformed));
        }
    }
}
