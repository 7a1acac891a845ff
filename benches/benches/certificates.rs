//! What a login and a connection cost in certificates: issuing one alone, both of a user's and both of a host's, verifying the user's at a
//! node, and the decision. Beside each stands the bare signature operation of ring, in the same run.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use remoteler_benches::Cluster;
use remoteler_core::{OsEntropy, SshCertificatePurpose, Verified, VerifiedUser, authorize_ssh, verify_ssh_certificate};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use ssh_key::Certificate;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    issue(&mut criterion);
    verify(&mut criterion);
    criterion.final_summary();
}

/// One SSH and one X.509 certificate each, from the profile to the text that is sent. Beside them: one signature of each authority's key.
fn issue(criterion: &mut Criterion) {
    let cluster = Cluster::new();
    let mut group = criterion.benchmark_group("issue");
    group.throughput(Throughput::Elements(1));
    group.bench_function("issue_user_certificate", |bencher| {
        bencher.iter_batched(
            || cluster.user_profile(),
            |profile| {
                let prepared =
                    profile.prepare(&cluster.user_authority, cluster.now, &OsEntropy).expect("the profile is good");
                cluster.user_authority.issue_user(prepared).expect("the authority signs")
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("issue_host_certificate", |bencher| {
        bencher.iter_batched(
            || cluster.host_profile(),
            |profile| {
                let prepared =
                    profile.prepare(&cluster.host_authority, cluster.now, &OsEntropy).expect("the profile is good");
                cluster.host_authority.issue_host(prepared).expect("the authority signs")
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("issue_ssh_certificate", |bencher| {
        bencher.iter_batched(
            || cluster.openssh_profile(),
            |profile| {
                let prepared =
                    profile.prepare(&cluster.user_authority, cluster.now, &OsEntropy).expect("the profile is good");
                cluster.user_authority.issue_ssh(prepared).expect("the authority signs")
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("issue_x509_certificate", |bencher| {
        bencher.iter_batched(
            || cluster.kube_profile(),
            |profile| {
                let prepared =
                    profile.prepare(&cluster.user_authority, cluster.now, &OsEntropy).expect("the profile is good");
                cluster.user_authority.issue_x509(prepared).expect("the authority signs")
            },
            BatchSize::SmallInput,
        );
    });
    let (ed25519, p256, random) = (key_pair(), p256_key_pair(), SystemRandom::new());
    group.bench_function("ring_ed25519_signature", |bencher| bencher.iter(|| ed25519.sign(black_box(&[7; 600]))));
    group.bench_function("ring_p256_signature", |bencher| {
        bencher.iter(|| p256.sign(&random, black_box(&[7; 600])).expect("the key signs"));
    });
    group.bench_function("ring_both_signatures", |bencher| {
        bencher.iter(|| {
            let message = black_box(&[7; 600]);
            (ed25519.sign(message), p256.sign(&random, message).expect("the key signs"))
        });
    });
    group.finish();
}

/// What a node does with a certificate before it opens a session.
fn verify(criterion: &mut Criterion) {
    let cluster = Cluster::new();
    let (node, login) = (cluster.node(), cluster.login());
    let prepared =
        cluster.user_profile().prepare(&cluster.user_authority, cluster.now, &OsEntropy).expect("the profile is good");
    let issued = cluster.user_authority.issue_user(prepared).expect("the authority signs");
    let certificate = Certificate::from_openssh(&issued.ssh_certificate).expect("the certificate was written by us");
    let verified = || {
        verify_ssh_certificate(black_box(&certificate), &cluster.policy.trust, SshCertificatePurpose::User, cluster.now)
            .ok()
            .and_then(Verified::user)
            .expect("the certificate is good")
    };
    let decide = |user: &VerifiedUser| authorize_ssh(user, &cluster.policy, &node, &login).expect("the role allows it");
    let user = verified();

    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    group.bench_function("verify_user_certificate", |bencher| bencher.iter(verified));
    group.bench_function("decide_ssh_access", |bencher| bencher.iter(|| decide(black_box(&user))));
    group.bench_function("verify_and_decide", |bencher| bencher.iter(|| decide(&verified())));
    let key = key_pair();
    let (message, public) = ([7; 600], UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec()));
    let signature = key.sign(&message);
    group.bench_function("ring_ed25519_verify", |bencher| {
        bencher.iter(|| public.verify(black_box(&message), signature.as_ref()).expect("the signature is good"));
    });
    group.finish();
}

fn key_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).expect("any seed makes a key")
}

fn p256_key_pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key is made");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).expect("ring made the key")
}
