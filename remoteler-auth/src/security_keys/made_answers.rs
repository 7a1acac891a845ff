//! Answers of an authenticator that says what it is told to: each field of WebAuthn Level 2 sections 7.1 and 7.2 that may be wrong, signed rightly all the same.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::*;

const ORIGIN: &str = "https://proxy.example.com:3080";
const HOST: &str = "proxy.example.com";
/// User present, user verified (WebAuthn Level 2 section 6.1).
const UP: u8 = 0x01;
const UV: u8 = 0x04;
/// What follows holds a key.
const AT: u8 = 0x40;

/// A key and the device that has it.
struct Authenticator {
    id: Vec<u8>,
    pair: EcdsaKeyPair,
}

/// What an authenticator says, and a browser of it.
#[derive(Clone)]
struct Said {
    kind: &'static str,
    challenge: String,
    origin: &'static str,
    cross_origin: bool,
    host: &'static str,
    flags: u8,
    counter: u32,
}

impl Said {
    /// The right answer to a question, by somebody who was verified.
    fn to(options: &str, kind: &'static str) -> Self {
        let options: Value = serde_json::from_str(options).unwrap();
        let challenge = options["publicKey"]["challenge"].as_str().unwrap().to_owned();
        assert_eq!(challenge.len(), 43, "32 octets"); // I48
        let registers = kind == "webauthn.create";
        assert_eq!(options["publicKey"][if registers { "rp" } else { "rpId" }].as_str().unwrap_or(HOST), HOST);
        let flags = if registers { UP | UV | AT } else { UP | UV };
        Self { kind, challenge, origin: ORIGIN, cross_origin: false, host: HOST, flags, counter: 7 }
    }

    fn client_data(&self) -> String {
        json!({
            "type": self.kind, "challenge": self.challenge, "origin": self.origin, "crossOrigin": self.cross_origin,
        })
        .to_string()
    }

    fn authenticator_data(&self) -> Vec<u8> {
        let host = digest(&SHA256, self.host.as_bytes());
        [host.as_ref(), &[self.flags], &self.counter.to_be_bytes()].concat()
    }
}

impl Authenticator {
    fn new() -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let id = digest(&SHA256, pair.public_key().as_ref()).as_ref().to_vec();
        Self { id, pair }
    }

    fn answer(&self, response: &Value) -> Secret {
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        let answer = json!({ "id": id, "rawId": id, "type": "public-key", "extensions": {}, "response": response });
        Secret::new(answer.to_string())
    }

    fn create(&self, said: &Said) -> Secret {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        // CBOR: { 1: 2, 3: -7, -1: 1, -2: x, -3: y }, EC2 on P-256 for ES256 (RFC 9053 section 2.1).
        let key = [&[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20], x, &[0x22, 0x58, 0x20], y].concat();
        let attested = [&[0; 16][..], &[0, 32], &self.id, &key].concat();
        let data = [said.authenticator_data(), if said.flags & AT == 0 { Vec::new() } else { attested }].concat();
        // CBOR: { "fmt": "none", "attStmt": {}, "authData": data }
        let length = u8::try_from(data.len()).unwrap();
        let object = [b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58", &[length][..], &data].concat();
        self.answer(&json!({
            "attestationObject": URL_SAFE_NO_PAD.encode(object),
            "clientDataJSON": URL_SAFE_NO_PAD.encode(said.client_data()),
        }))
    }

    fn get(&self, said: &Said) -> Secret {
        let (data, client) = (said.authenticator_data(), said.client_data());
        let signed = [&data[..], digest(&SHA256, client.as_bytes()).as_ref()].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &signed).unwrap();
        self.answer(&json!({
            "authenticatorData": URL_SAFE_NO_PAD.encode(data),
            "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
            "signature": URL_SAFE_NO_PAD.encode(signature),
        }))
    }

    /// Its key at a site, the person verified or only there.
    fn registered(&self, site: &Site, flags: u8) -> SecurityKey {
        let (options, state) = site.offer("root", "ann", &[]).unwrap();
        let said = Said { flags: flags | AT, ..Said::to(&options, "webauthn.create") };
        site.register(&self.create(&said), &state).unwrap()
    }
}

fn site() -> Site {
    Site::of_origin("root", ORIGIN).unwrap()
}

/// What is wrong with an answer whoever gives it.
fn wrongs(right: &Said, other_kind: &'static str, other_challenge: String) -> Vec<(&'static str, Said)> {
    let right = || right.clone();
    vec![
        ("type", Said { kind: other_kind, ..right() }),
        ("no type", Said { kind: "", ..right() }),
        ("challenge of another question", Said { challenge: other_challenge, ..right() }),
        ("challenge of nobody", Said { challenge: URL_SAFE_NO_PAD.encode([7; 32]), ..right() }),
        ("no challenge", Said { challenge: String::new(), ..right() }),
        ("origin, port", Said { origin: "https://proxy.example.com", ..right() }),
        ("origin, scheme", Said { origin: "http://proxy.example.com:3080", ..right() }),
        ("origin, host", Said { origin: "https://proxy.example.com.evil.example:3080", ..right() }),
        ("origin, host below", Said { origin: "https://a.proxy.example.com:3080", ..right() }),
        ("rpId", Said { host: "evil.example", ..right() }),
        ("rpId, parent", Said { host: "example.com", ..right() }),
        ("nobody there", Said { flags: right().flags & !UP, ..right() }),
        ("nobody there, nobody verified", Said { flags: right().flags & !(UP | UV), ..right() }),
    ]
}

#[test]
fn a_key_is_registered_by_the_answer_to_this_question_here_by_somebody_who_is_there_and_by_no_other() {
    // I48
    let (site, key) = (site(), Authenticator::new());
    let (options, state) = site.offer("root", "ann", &[]).unwrap();
    let other = Said::to(&site.offer("root", "ann", &[]).unwrap().0, "webauthn.create").challenge;
    let right = Said::to(&options, "webauthn.create");
    let more = [
        ("in a frame of others", Said { cross_origin: true, ..right.clone() }),
        ("no key", Said { flags: UP | UV, ..right.clone() }),
    ];
    for (what, said) in wrongs(&right, "webauthn.get", other).into_iter().chain(more) {
        assert_eq!(site.register(&key.create(&said), &state).unwrap_err(), KeyFault::Wrong, "{what}");
    }
    site.register(&key.create(&right), &state).unwrap();
    // Preferred, not required: a key without a PIN is a second factor too.
    site.register(&key.create(&Said { flags: UP | AT, ..right }), &state).unwrap();
}

#[test]
fn a_key_proves_by_the_answer_to_this_question_here_by_its_owner_and_by_no_other() {
    // I48
    let (site, key, eve) = (site(), Authenticator::new(), Authenticator::new());
    let registered = key.registered(&site, UP | UV);
    let (options, state) = site.ask(std::slice::from_ref(&registered)).unwrap();
    let other = Said::to(&site.ask(std::slice::from_ref(&registered)).unwrap().0, "webauthn.get").challenge;
    let right = Said { counter: 8, ..Said::to(&options, "webauthn.get") };
    for (what, said) in wrongs(&right, "webauthn.create", other) {
        assert_eq!(site.judge(&key.get(&said), &state).unwrap_err(), KeyFault::Wrong, "{what}");
    }
    // Another key, and another key under this one's name.
    assert_eq!(site.judge(&eve.get(&right), &state).unwrap_err(), KeyFault::Wrong);
    let copied = Authenticator { id: key.id.clone(), pair: eve.pair };
    assert_eq!(site.judge(&copied.get(&right), &state).unwrap_err(), KeyFault::Wrong);
    // What was signed and what was sent are two things: the flags, the counter, the browser's words.
    let sent: Value = serde_json::from_str(key.get(&Said { flags: UP, ..right.clone() }).reveal()).unwrap();
    for (field, octets) in [
        ("authenticatorData", right.authenticator_data()),
        ("authenticatorData", Said { counter: 9, ..right.clone() }.authenticator_data()),
        ("clientDataJSON", format!("{} ", right.client_data()).into_bytes()),
        ("signature", Vec::new()),
    ] {
        let mut changed = sent.clone();
        changed["response"]["authenticatorData"] = URL_SAFE_NO_PAD.encode(right.authenticator_data()).into();
        changed["response"][field] = URL_SAFE_NO_PAD.encode(octets).into();
        assert_eq!(site.judge(&Secret::new(changed.to_string()), &state).unwrap_err(), KeyFault::Wrong, "{field}");
    }
    site.judge(&key.get(&right), &state).unwrap();
}

#[test]
fn who_was_verified_when_the_key_was_registered_is_verified_at_each_use_and_others_need_not_be() {
    // I48: the policy of UV is "preferred".
    let site = site();
    for (at_first, now, outcome) in
        [(UP | UV, UP | UV, Ok(())), (UP | UV, UP, Err(KeyFault::NotVerified)), (UP, UP, Ok(())), (UP, UP | UV, Ok(()))]
    {
        let key = Authenticator::new();
        let registered = key.registered(&site, at_first);
        let (options, state) = site.ask(&[registered]).unwrap();
        let asked: Value = serde_json::from_str(&options).unwrap();
        assert_eq!(asked["publicKey"]["userVerification"], "preferred", "{options}");
        let said = Said { flags: now, counter: 8, ..Said::to(&options, "webauthn.get") };
        assert_eq!(site.judge(&key.get(&said), &state).map(drop), outcome, "{at_first:#x} then {now:#x}");
    }
}

#[test]
fn a_counter_only_goes_forward_unless_the_key_has_none() {
    // I48
    let site = site();
    for (known, now, outcome) in [
        (7, 8, Ok(())),
        (7, u32::MAX, Ok(())),
        (7, 7, Err(KeyFault::Cloned)),
        (7, 6, Err(KeyFault::Cloned)),
        (7, 0, Err(KeyFault::Cloned)),
        (0, 1, Ok(())),
        (0, 0, Ok(())),
    ] {
        let key = Authenticator::new();
        let (options, state) = site.offer("root", "ann", &[]).unwrap();
        let said = Said { counter: known, ..Said::to(&options, "webauthn.create") };
        let mut registered = site.register(&key.create(&said), &state).unwrap();
        let (options, state) = site.ask(std::slice::from_ref(&registered)).unwrap();
        let said = Said { counter: now, ..Said::to(&options, "webauthn.get") };
        let judged = site.judge(&key.get(&said), &state).and_then(|used| counted(&mut registered, &used));
        assert_eq!(judged, outcome, "{known} then {now}");
    }
}
