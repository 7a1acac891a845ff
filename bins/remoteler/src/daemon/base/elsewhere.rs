//! The ground of a process whose auth service is elsewhere: joined once, then by its certificates.

use std::sync::Arc;

use anyhow::Context;
use remoteler_client::{
    AuthTrust, HostClock, HostKeeper, HostState, LateLinks, LeaseKeeper, Peer, PolicyRefresher, RemoteAuth,
    align_clock, probe_by,
};
use remoteler_core::{BoundedRefusals, Clock, Entropy, LiveWork, OsEntropy};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Api, Base, Place,
    loan::{LentSpool, SpoolPlace},
};
use crate::{
    config::{JoinSettings, Settings},
    handover::Predecessor,
    host::{self, HostKeys},
    paths::DataDir,
};

/// Joins if that was not done yet, and starts what keeps rules and events moving.
pub(super) async fn base(
    settings: &Settings,
    join: &JoinSettings,
    data_dir: &DataDir,
    (stop, senders): (&CancellationToken, &TaskTracker),
    before: Option<&Predecessor>,
) -> anyhow::Result<Base> {
    // A device without a battery may wake up in 1970: no earlier than it last wrote its state, and then as the cluster says.
    let host_clock = HostClock::not_before(HostState::load(data_dir.path())?.and_then(|state| state.written()));
    let clock: Arc<dyn Clock> = Arc::new(host_clock.clone());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let state = host::joined(settings, join, data_dir, &host_clock).await?;
    let mut refresher = PolicyRefresher::load(data_dir.path(), state.trust().clone())?;
    let policy = refresher.source();
    let links = LateLinks::default();
    let mut keeper = HostKeeper::new(state.clone(), data_dir.path().to_owned(), policy.clone(), clock.clone())?
        .with_auth_at(&join.addr, refresher.shared())
        .by_clock(host_clock.clone())
        .by_ways(&settings.ways())
        .seldom(&links, settings.tunnel.metered);
    if let Some(before) = before {
        keeper = keeper.continuing(before.instance());
    }
    refresher = refresher.resting_while(keeper.standing());
    let keys = HostKeys::new(&state, keeper.identities())?;
    let trust = AuthTrust::Policy(policy.clone());
    let client = Some(keys.shown.client.clone());
    let ways = settings.ways();
    let remote = RemoteAuth::tls_by_clock(&join.addr, client, trust.clone(), clock.clone())?;
    let remote = remote.by(&ways).or_through(&links);
    if let Err(cause) = align_clock(&host_clock, &remote, &join.addr, trust.clone()).await {
        tracing::debug!(%cause, "this machine's clock was not compared with the cluster's");
    }
    let api: Arc<Api> = Arc::new(remote);
    let place = SpoolPlace {
        data_dir: data_dir.path().to_owned(),
        host: state.host_id(),
        cluster: state.cluster_name().clone(),
        clock: clock.clone(),
        limits: settings.spool,
    };
    let spool = LentSpool::open(place, api.clone(), stop.clone(), senders.clone()).await;
    let spool = spool.context("the audit spool cannot be opened")?;
    // A host that just joined knows no roles yet; one that starts while auth is away goes by those it knew last.
    if let Err(cause) = refresher.refresh(&*api).await {
        tracing::warn!(%cause, "the cluster's rules were not fetched; the last known ones are in force");
    }
    tokio::spawn(refresher.run(api.clone(), stop.clone()));
    let place = match known_place(data_dir) {
        Some(place) if place.0 == join.addr => place.1,
        _ => {
            let peer = probe_by(&join.addr, Some(keys.shown.client.clone()), trust, clock.clone(), &ways).await?;
            remember_place(data_dir, &join.addr, peer)?;
            peer
        }
    };
    let place = match place {
        Peer::Auth => Place::Direct(join.addr.clone()),
        Peer::Proxy => Place::ThroughProxy(join.addr.clone()),
    };
    let audit = Arc::new(BoundedRefusals::new(spool.clone(), clock.clone()));
    let leases = LeaseKeeper::new(api.clone());
    senders.spawn(leases.clone().run(stop.clone()));
    let live = LiveWork::counted_by(policy.clone(), clock.clone(), leases);
    let (keeper, spool) = (Some(keeper), Some(spool));
    Ok(Base { keys, policy, live, audit, api, clock, entropy, place, keeper, links, spool })
}

/// What answered at the address when this host was started before: a restart must work while nobody answers.
fn known_place(data_dir: &DataDir) -> Option<(String, Peer)> {
    let text = std::fs::read_to_string(data_dir.peer_file()).ok()?;
    let (kind, addr) = text.trim().split_once(' ')?;
    let peer = match kind {
        "auth" => Peer::Auth,
        "proxy" => Peer::Proxy,
        _ => return None,
    };
    Some((addr.to_owned(), peer))
}

fn remember_place(data_dir: &DataDir, addr: &str, peer: Peer) -> anyhow::Result<()> {
    let kind = match peer {
        Peer::Auth => "auth",
        Peer::Proxy => "proxy",
    };
    data_dir.write(&data_dir.peer_file(), &format!("{kind} {addr}\n"))
}
