//! Authority keys in a real token, SoftHSM's: made there, used from there, and never anywhere else.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod softhsm;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass},
    session::UserType,
    types::AuthPin,
};
use remoteler_ca::{
    Authority, CaError, KeyHomes, Signer, SignerAlgorithm, SignerError, StoredAuthority, StoredKey, Suite, TokenChoice,
    TokenError, TokenKeyId, TokenKeys,
};
use remoteler_core::{CaKind, ClusterName, KeyPlace, OsEntropy, Timestamp};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};

use crate::softhsm::{LABEL, PIN, SoftHsm, module, with_token};

/// Every algorithm, with what verifies it.
const ALGORITHMS: [(SignerAlgorithm, &dyn VerificationAlgorithm); 4] = [
    (SignerAlgorithm::Ed25519, &ED25519),
    (SignerAlgorithm::EcdsaP256, &ECDSA_P256_SHA256_ASN1),
    (SignerAlgorithm::RsaSha256, &RSA_PKCS1_2048_8192_SHA256),
    (SignerAlgorithm::RsaSha512, &RSA_PKCS1_2048_8192_SHA512),
];

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_772_366_400)
}

fn root() -> ClusterName {
    ClusterName::new("root.example.com").unwrap()
}

fn id() -> TokenKeyId {
    TokenKeyId::random(&OsEntropy)
}

/// Another program's view of the same token: the module itself, in this process.
fn inside<T>(look: impl FnOnce(&cryptoki::session::Session) -> T) -> T {
    let context = Pkcs11::new(module().unwrap()).unwrap();
    // It is initialised already when a token of ours is open.
    let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    let slots = context.get_slots_with_initialized_token().unwrap();
    let slot = slots.into_iter().find(|slot| context.get_token_info(*slot).unwrap().label() == LABEL).unwrap();
    let session = context.open_rw_session(slot).unwrap();
    // Logged in already when a token of ours is open.
    let _ = session.login(UserType::User, Some(&AuthPin::from(PIN)));
    look(&session)
}

fn private_keys(session: &cryptoki::session::Session) -> Vec<cryptoki::object::ObjectHandle> {
    session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()
}

#[test]
fn a_key_in_a_token_signs_and_is_found_again_by_its_record() {
    with_token("a_key_in_a_token_signs_and_is_found_again_by_its_record", |hsm| {
        for (algorithm, verifier) in ALGORITHMS {
            let token = hsm.open();
            let (signer, key) = token.generate(algorithm, id(), "a key").unwrap();
            let public = UnparsedPublicKey::new(verifier, signer.public_key().to_vec());
            public.verify(b"message", &signer.sign(b"message").unwrap()).unwrap();
            assert_eq!((signer.algorithm(), key.label(), key.token()), (algorithm, "a key", LABEL));
            drop((signer, token));

            let again = hsm.open().open(algorithm, &key).unwrap();
            public.verify(b"another", &again.sign(b"another").unwrap()).unwrap();
        }
    });
}

// I8
#[test]
fn a_token_gives_no_private_key_out() {
    with_token("a_token_gives_no_private_key_out", |hsm| {
        let token = hsm.open();
        for (algorithm, _) in ALGORITHMS {
            token.generate(algorithm, id(), "kept").unwrap();
        }
        inside(|session| {
            let keys = private_keys(session);
            assert_eq!(keys.len(), ALGORITHMS.len());
            for key in keys {
                let said = [
                    AttributeType::Sensitive,
                    AttributeType::Extractable,
                    AttributeType::NeverExtractable,
                    AttributeType::AlwaysSensitive,
                    AttributeType::Local,
                    AttributeType::Sign,
                    AttributeType::Derive,
                ];
                let said = session.get_attributes(key, &said).unwrap();
                for wanted in [
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::NeverExtractable(true),
                    Attribute::AlwaysSensitive(true),
                    Attribute::Local(true),
                    Attribute::Sign(true),
                    Attribute::Derive(false),
                ] {
                    assert!(said.contains(&wanted), "{wanted:?} is not among {said:?}");
                }
                for secret in [AttributeType::Value, AttributeType::PrivateExponent, AttributeType::Prime1] {
                    let given = session.get_attributes(key, &[secret]);
                    assert!(!given.is_ok_and(|given| !given.is_empty()), "{secret:?} was given out");
                }
                assert!(session.update_attributes(key, &[Attribute::Extractable(true)]).is_err());
            }
        });
        let seen = hsm.tool(&["--login", "--pin", PIN, "--list-objects", "--type", "privkey"]);
        assert_eq!(seen.matches("sensitive, always sensitive, never extractable, local").count(), 4, "{seen}");
    });
}

#[test]
fn an_authority_of_each_suite_is_made_in_a_token_and_opened_again() {
    with_token("an_authority_of_each_suite_is_made_in_a_token_and_opened_again", |hsm| {
        let token = hsm.open();
        for suite in [Suite::Balanced, Suite::Token, Suite::Legacy] {
            let made = Authority::generate_in_token(&root(), CaKind::User, suite, now(), &OsEntropy, &token).unwrap();
            assert!(made.is_in_token());
            assert_eq!(made.key_places().ssh, KeyPlace::Token { token: LABEL.into() });
            let record = serde_json::to_string(&made.to_stored()).unwrap();
            assert!(!record.contains("PRIVATE"), "{record}"); // I8
            let stored: StoredAuthority = serde_json::from_str(&record).unwrap();
            let homes = KeyHomes { ring: None, token: Some(&token) };
            let again = Authority::open(&stored, homes).unwrap();
            assert_eq!((again.public(), again.suite()), (made.public(), suite));

            let without = Authority::open(&stored, KeyHomes::default()).unwrap_err();
            assert!(matches!(&without, CaError::NoToken { token, .. } if token == LABEL), "{without}");
        }
        let labels = hsm.tool(&["--login", "--pin", PIN, "--list-objects", "--type", "privkey"]);
        for label in ["root.example.com user ssh", "root.example.com user x509"] {
            assert_eq!(labels.matches(label).count(), 3, "{labels}");
        }
    });
}

#[test]
fn a_key_that_was_put_in_the_place_of_another_is_refused() {
    with_token("a_key_that_was_put_in_the_place_of_another_is_refused", |hsm| {
        let token = hsm.open();
        let make = || {
            Authority::generate_in_token(&root(), CaKind::User, Suite::Balanced, now(), &OsEntropy, &token)
                .unwrap()
                .to_stored()
        };
        let (ours, others) = (make(), make());
        let (StoredKey::Token(ours), StoredKey::Token(others)) = (&ours.ssh_key, &others.ssh_key) else { panic!() };
        inside(|session| {
            let key = |id: TokenKeyId| {
                let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id.octets().to_vec())];
                session.find_objects(&wanted).unwrap()[0]
            };
            session.destroy_object(key(ours.id().unwrap())).unwrap();
            let ours = ours.id().unwrap().octets().to_vec();
            session.update_attributes(key(others.id().unwrap()), &[Attribute::Id(ours)]).unwrap();
        });
        let refused = hsm.open().open(SignerAlgorithm::Ed25519, ours).map(|_| ());
        assert!(matches!(refused, Err(TokenError::OtherKey { .. })), "{refused:?}"); // I1
        let gone = hsm.open().open(SignerAlgorithm::Ed25519, others).map(|_| ());
        assert!(matches!(gone, Err(TokenError::KeyGone { .. })), "{gone:?}");
    });
}

#[test]
fn a_key_that_the_token_would_give_out_is_refused() {
    with_token("a_key_that_the_token_would_give_out_is_refused", |hsm| {
        let token = hsm.open();
        let (_, key) = token.generate(SignerAlgorithm::EcdsaP256, id(), "first").unwrap();
        token.destroy(&key).unwrap();
        let id = key.id().unwrap().to_string();
        let made = hsm.tool(&[
            "--login",
            "--pin",
            PIN,
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--extractable",
            "--id",
            &id,
            "--label",
            "first",
        ]);
        assert!(made.contains("Key pair generated"), "{made}");
        let refused = hsm.open().open(SignerAlgorithm::EcdsaP256, &key).map(|_| ());
        assert!(matches!(&refused, Err(TokenError::GivenOut { what: "extractable", .. })), "{refused:?}"); // I8
    });
}

#[test]
fn a_key_that_the_token_could_once_give_out_is_refused() {
    with_token("a_key_that_the_token_could_once_give_out_is_refused", |hsm| {
        let token = hsm.open();
        for (was, kept, is, what) in [
            (
                Attribute::Sensitive(false),
                Attribute::Extractable(false),
                Attribute::Sensitive(true),
                "not sensitive from its making on",
            ),
            (
                Attribute::Extractable(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                "not made unextractable in the token",
            ),
        ] {
            let (_, key) = token.generate(SignerAlgorithm::EcdsaP256, id(), "first").unwrap();
            token.destroy(&key).unwrap();
            let number = key.id().unwrap().octets().to_vec();
            inside(|session| {
                let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07].to_vec(); // prime256v1
                let public = [Attribute::Token(true), Attribute::EcParams(curve)];
                let private = [Attribute::Token(true), Attribute::Sign(true), Attribute::Id(number), was, kept];
                let (_, made) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
                session.update_attributes(made, &[is]).unwrap();
            });
            let refused = hsm.open().open(SignerAlgorithm::EcdsaP256, &key).map(|_| ());
            let Err(TokenError::GivenOut { what: said, .. }) = &refused else { panic!("{refused:?}") };
            assert_eq!(*said, what); // I8
        }
    });
}

#[test]
fn a_destroyed_key_signs_no_more_and_leaves_nothing_behind() {
    with_token("a_destroyed_key_signs_no_more_and_leaves_nothing_behind", |hsm| {
        let token = hsm.open();
        let (signer, key) = token.generate(SignerAlgorithm::Ed25519, id(), "gone soon").unwrap();
        signer.sign(b"message").unwrap();
        token.destroy(&key).unwrap();
        let gone = signer.sign(b"message");
        assert!(matches!(&gone, Err(SignerError::Token(TokenError::KeyGone { label, .. })) if label == "gone soon"));
        inside(|session| assert_eq!(session.find_objects(&[]).unwrap().len(), 0));
        token.destroy(&key).unwrap(); // there is none to destroy
    });
}

#[test]
fn a_session_that_is_lost_is_opened_anew() {
    with_token("a_session_that_is_lost_is_opened_anew", |hsm| {
        let token = hsm.open();
        let (signer, key) = token.generate(SignerAlgorithm::EcdsaP256, id(), "a key").unwrap();
        for _ in 0..3 {
            // Logging out makes every session of the process forget its login and its private keys.
            inside(|session| session.logout().unwrap());
            for _ in 0..8 {
                signer.sign(b"message").unwrap();
            }
        }
        inside(|session| session.logout().unwrap());
        token.destroy(&key).unwrap(); // and not "there is none", which is what who is not logged in sees
        inside(|session| assert_eq!(session.find_objects(&[]).unwrap().len(), 0));
    });
}

#[test]
fn many_threads_sign_at_once() {
    with_token("many_threads_sign_at_once", |hsm| {
        let token = hsm.open();
        let (signer, _) = token.generate(SignerAlgorithm::EcdsaP256, id(), "a key").unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, signer.public_key().to_vec());
        std::thread::scope(|threads| {
            for number in 0..8_u8 {
                let (signer, public) = (&signer, &public);
                threads.spawn(move || {
                    for turn in 0..20_u8 {
                        let message = [number, turn];
                        public.verify(&message, &signer.sign(&message).unwrap()).unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn a_wrong_pin_is_shown_to_the_token_once() {
    with_token("a_wrong_pin_is_shown_to_the_token_once", |hsm| {
        let choice = || TokenChoice::Label(LABEL.into());
        let refused = hsm.open_as(choice(), "999999").map(|_| ()).unwrap_err();
        assert!(matches!(refused, TokenError::Pin { .. }), "{refused}");
        assert!(!format!("{refused} {refused:?}").contains("999999")); // I76
        // Whoever starts us again does not make it worse: the token says that it counts.
        for pin in ["999999", PIN] {
            let refused = hsm.open_as(choice(), pin).map(|_| ()).unwrap_err();
            assert!(matches!(refused, TokenError::PinCounted { .. }), "{refused}");
        }
        // The way out that the message names.
        let seen = hsm.tool(&["--login", "--pin", PIN, "--list-objects"]);
        assert!(!seen.contains("error"), "{seen}");
        hsm.open_as(choice(), PIN).unwrap();
    });
}

#[test]
fn a_token_or_module_that_is_not_there_is_named_with_what_is() {
    with_token("a_token_or_module_that_is_not_there_is_named_with_what_is", |hsm| {
        let wanted = |choice| hsm.open_as(choice, PIN).map(|_| ()).unwrap_err().to_string();
        let said = wanted(TokenChoice::Label("other".into()));
        assert!(said.contains("no token with label \"other\", but \"ca of test\" in slot "), "{said}");
        assert!(wanted(TokenChoice::Slot(77)).contains("no token with slot number 77, but \"ca of test\""));
        let number: u64 = {
            let after = said.split("in slot ").nth(1).unwrap();
            after.split(';').next().unwrap().parse().unwrap()
        };
        hsm.open_as(TokenChoice::Slot(number), PIN).unwrap();

        for (module, reason) in
            [("/nowhere/module.so", "/nowhere/module.so"), ("module.so", "not absolute"), ("/bin/sh", "/bin/sh")]
        {
            let config = remoteler_ca::Pkcs11Config {
                module: module.into(),
                token: TokenChoice::Label(LABEL.into()),
                pin: remoteler_core::Secret::new(PIN),
            };
            let refused = remoteler_ca::Pkcs11Token::open(config).map(|_| ()).unwrap_err();
            assert!(matches!(refused, TokenError::Module { .. }), "{refused}");
            let said = remoteler_core::with_causes(&refused);
            assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
        }
    });
}

#[test]
fn an_authority_that_cannot_be_made_leaves_no_key_in_the_token() {
    /// A token that makes one key and is full then.
    struct Full<'a>(&'a dyn TokenKeys, std::sync::atomic::AtomicUsize);

    impl TokenKeys for Full<'_> {
        fn token(&self) -> &str {
            self.0.token()
        }

        fn generate(
            &self,
            algorithm: SignerAlgorithm,
            id: TokenKeyId,
            label: &str,
        ) -> Result<(Box<dyn Signer>, remoteler_ca::TokenKey), TokenError> {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 {
                return Err(TokenError::Busy { token: self.token().to_owned() });
            }
            self.0.generate(algorithm, id, label)
        }

        fn open(
            &self,
            algorithm: SignerAlgorithm,
            key: &remoteler_ca::TokenKey,
        ) -> Result<Box<dyn Signer>, TokenError> {
            self.0.open(algorithm, key)
        }

        fn destroy(&self, key: &remoteler_ca::TokenKey) -> Result<(), TokenError> {
            self.0.destroy(key)
        }
    }

    with_token("an_authority_that_cannot_be_made_leaves_no_key_in_the_token", |hsm: &SoftHsm| {
        let token = hsm.open();
        let full = Full(&token, Default::default());
        let refused = Authority::generate_in_token(&root(), CaKind::User, Suite::Token, now(), &OsEntropy, &full);
        assert!(matches!(refused, Err(CaError::Token { source: TokenError::Busy { .. }, .. })));
        inside(|session| assert_eq!(session.find_objects(&[]).unwrap().len(), 0));
        assert!(std::fs::read_dir(hsm.objects()).unwrap().count() > 0);
    });
}
