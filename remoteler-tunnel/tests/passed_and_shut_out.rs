//! A host that is locked, or whose certificate is revoked, while a later process passes its connection back to the one that has its link: each of the
//! two ends it by its own rules.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use remoteler_core::{Lock, LockTarget, Policy, PolicySource, Revocations, spki_pin};
use remoteler_tunnel::BoxedStream;
use support::Proxy;
use support::earlier::{Passed, SOON, says_again, until};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

fn lock_edge(proxy: &Proxy) {
    let rules = Policy::clone(&proxy.policy.policy());
    let target = LockTarget { node: Some("edge".parse().unwrap()), ..LockTarget::default() };
    let lock = Lock { name: "x".into(), target, message: "stolen".into(), expires: None };
    proxy.policy.replace(Policy { locks: [lock].into_iter().collect(), ..rules });
}

/// What the process has heard of refusals, all in one.
fn refusals(proxy: &Proxy) -> String {
    proxy.heard.0.lock().unwrap().iter().filter(|heard| heard.starts_with("refused")).cloned().collect()
}

/// Waits for it, while time goes by for certificates and locks: who is shut out has a second for telling its users.
async fn later(proxy: &Proxy, is: impl Future<Output = ()>) {
    let time_goes_by = async {
        loop {
            proxy.clock.advance(Duration::from_millis(200));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = time_goes_by => {}
        done = timeout(SOON, is) => done.expect("nothing was cut"),
    }
}

async fn ends(mut stream: BoxedStream) {
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).await.is_err());
    assert!(rest.is_empty());
}

// I79
#[tokio::test]
async fn a_lock_at_the_process_that_has_the_link_ends_it_and_what_is_passed_for_it() {
    let Passed { first, second, before, stream, agent: _agent, relay: _relay, .. } = Passed::by_the_second().await;
    lock_edge(&first);
    later(&first, ends(stream)).await;
    before.passes(0).await;
    until(|| Arc::strong_count(&before.far) == 1).await;
    // The later one knows of no lock, and still does not bring the link back.
    until(|| second.heard.0.lock().unwrap().iter().any(|heard| heard.starts_with("connected"))).await;
    before.passes(0).await;
    assert!(first.dial("edge").await.is_err());
}

// I79
#[tokio::test]
async fn a_lock_at_the_process_that_passes_ends_the_connection_and_none_is_passed_again() {
    let Passed { first: _first, second, before, mut stream, agent, relay: _relay, .. } = Passed::by_the_second().await;
    lock_edge(&second);
    says_again(&mut stream, b"the host has a second").await;
    later(&second, before.passes(0)).await;
    until(|| Arc::strong_count(&before.far) == 1).await;
    until(|| {
        refusals(&second)
            .contains("refused edge: this host is shut out: locked by an administrator (node edge): stolen")
    })
    .await;
    before.passes(0).await;
    // The agent has given the link up, since it was told why.
    let mut state = agent.state();
    let told = state.wait_for(|state| format!("{state:?}").contains("stolen"));
    timeout(SOON, told).await.expect("the agent learns why").unwrap();
}

// I79
#[tokio::test]
async fn a_certificate_that_is_revoked_ends_a_passed_connection_at_either_process() {
    for at_the_first in [true, false] {
        let passed = Passed::by_the_second().await;
        let Passed { first, second, before, stream, agent: _agent, relay: _relay, certificate } = passed;
        let judge = if at_the_first { &*first } else { &second };
        let rules = Policy::clone(&judge.policy.policy());
        let mut trust = rules.trust.clone();
        let key = spki_pin(&certificate).unwrap().replace("sha256:", "key-tls-");
        trust.revoked = [key.parse().unwrap()].into_iter().collect::<Revocations>();
        judge.policy.replace(Policy { trust, ..rules });
        if at_the_first {
            later(judge, ends(stream)).await;
        }
        later(judge, before.passes(0)).await;
        until(|| Arc::strong_count(&before.far) == 1).await;
    }
}
