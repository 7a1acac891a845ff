//! A proxy makes way for its next process while the connections under its agents' links are lost: the links go on in the process that has them.

use std::time::Duration;

use remoteler_tests::{Cluster, ClusterOptions, EchoSession, Edge, Path, Proxy, User, eventually_within, need};

const SECONDS: Duration = Duration::from_secs(60);

#[test]
fn sessions_in_a_process_that_makes_way_live_through_the_loss_of_their_links_connection() {
    if !need(&["ssh"]) {
        return;
    }
    let cluster = Cluster::start_with(ClusterOptions { roles: "auth,node".into(), ..ClusterOptions::default() });
    let mut proxy = Proxy::join(&cluster, "proxy-1");
    let path = Path::to(proxy.address());
    let edge = Edge::launch(&cluster, "edge-1", &path.address().to_string(), &[], &[]);
    edge.wait_connected();
    let ann = User::create_at(&cluster, "ann", "access", proxy.address());
    eventually_within(SECONDS, "the edge node is known", || {
        let out = remoteler_tests::run(ann.openssh("ssh").args(["-o", "BatchMode=yes", "edge-1", "true"]));
        if out.code == Some(0) { Ok(()) } else { Err(out.stderr) }
    });
    let mut session = EchoSession::open(&ann, "edge-1");
    assert!(path.lose() > 0);
    session.says_again("after a loss");

    proxy.make_way();
    assert!(path.lose() > 0);
    session.says_again("after a loss while the next process serves");

    // The process that has the session is two before the one that serves now.
    proxy.make_way();
    assert!(path.lose() > 0);
    session.says_again("after a loss while the one after that serves");

    session.end();
    assert_eq!(proxy.process().wait(2 * SECONDS), Some(0), "the process before has ended in order");
}
