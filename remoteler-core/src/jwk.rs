//! The public halves of the keys that sign identity tokens, in the form that every JWT library reads (RFC 7517). Owns the form and the
//! name of a key, which is its thumbprint (RFC 7638). Verifies nothing: who is shown a token does that, with a library of their own.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// A public key for ES256 (RFC 7518 section 3.4): ECDSA on P-256 with SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: String,
    #[serde(rename = "use")]
    usage: String,
    alg: String,
    kid: String,
    x: String,
    y: String,
}

/// Keys as they are published: the one that signs first, then one that is already or still believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

impl Jwk {
    /// Of the uncompressed point of a P-256 key (SEC 1 section 2.3.3), 65 octets; `None` for anything else.
    #[must_use]
    pub fn es256(point: &[u8]) -> Option<Self> {
        let [4, coordinates @ ..] = point else { return None };
        if coordinates.len() != 64 {
            return None;
        }
        let (x, y) = coordinates.split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // The required members in order of their names, without white space (RFC 7638 section 3.2).
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
        Some(Self { kty: "EC".into(), crv: "P-256".into(), usage: "sig".into(), alg: "ES256".into(), kid, x, y })
    }

    /// The key's name: its RFC 7638 thumbprint with SHA-256.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.kid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7515 appendix A.3.1.
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn point() -> Vec<u8> {
        [vec![4], URL_SAFE_NO_PAD.decode(X).unwrap(), URL_SAFE_NO_PAD.decode(Y).unwrap()].concat()
    }

    #[test]
    fn a_key_has_the_form_of_rfc_7517_and_its_thumbprint_for_a_name() {
        let jwk = Jwk::es256(&point()).unwrap();
        let value = serde_json::to_value(&jwk).unwrap();
        for (member, expected) in
            [("kty", "EC"), ("crv", "P-256"), ("use", "sig"), ("alg", "ES256"), ("x", X), ("y", Y)]
        {
            assert_eq!(value[member], expected);
        }
        // As hashlib of Python computes it of the members in RFC 7638 form.
        assert_eq!(jwk.key_id(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        let read: Jwk = serde_json::from_value(value).unwrap();
        assert_eq!(read, jwk);
    }

    #[test]
    fn what_is_no_uncompressed_point_is_no_key() {
        let point = point();
        assert!(Jwk::es256(&point[..64]).is_none() && Jwk::es256(&[]).is_none());
        let compressed = [&[2], &point[1..]].concat();
        assert!(Jwk::es256(&compressed).is_none() && Jwk::es256(&[&point[..], &[0]].concat()).is_none());
    }
}
