//! A service's view of the rules: fetched, kept on disk, and in force while the auth service is away.

use std::sync::{Arc, Mutex};

use remoteler_client::{PolicyError, PolicyRefresher, RemoteAuth};
use remoteler_core::{PolicySource, Resource, RoleName, RoleSpec, TrustBundle};
use tokio::task::JoinHandle;

use crate::{
    cluster::Cluster,
    service::{self, Answer, ok},
};

struct Rules {
    trust: TrustBundle,
    roles: Vec<Resource>,
}

fn serve(dir: &tempfile::TempDir, rules: Arc<Mutex<Rules>>) -> (RemoteAuth, JoinHandle<()>) {
    let answer = move |what: &str, _: &[u8]| -> Answer {
        let rules = rules.lock().unwrap();
        match what {
            "GET /v1/trust" => ok(&rules.trust),
            "GET /v1/roles" => ok(&rules.roles),
            other => panic!("{other}"),
        }
    };
    let (socket, task) = service::unix(&dir.path().join("auth.sock"), Arc::new(answer));
    (RemoteAuth::unix(&socket), task)
}

fn role(name: &str) -> Resource {
    Resource::role(&RoleName::new(name).unwrap(), &RoleSpec::default())
}

fn names(source: &dyn PolicySource) -> Vec<String> {
    source.policy().roles.keys().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_last_known_rules_hold_while_auth_is_away_and_after_a_restart() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Arc::new(Mutex::new(Rules { trust: cluster.trust(), roles: vec![role("a")] }));
    let (remote, task) = serve(&dir, rules.clone());
    let mut refresher = PolicyRefresher::load(&dir.path().join("data"), cluster.trust()).unwrap();
    let source = refresher.shared();
    assert!(names(&*source).is_empty());

    assert!(refresher.refresh(&remote).await.unwrap());
    assert!(!refresher.refresh(&remote).await.unwrap());
    rules.lock().unwrap().roles.push(role("b"));
    assert!(refresher.refresh(&remote).await.unwrap());
    assert_eq!(names(&*source), ["a", "b"]);

    task.abort();
    assert!(task.await.is_err());
    assert!(matches!(refresher.refresh(&remote).await, Err(PolicyError::Auth(_))));
    assert_eq!(names(&*source), ["a", "b"]);
    drop(refresher);
    let again = PolicyRefresher::load(&dir.path().join("data"), cluster.trust()).unwrap();
    assert_eq!(names(&*again.shared()), ["a", "b"]);
}

#[tokio::test]
async fn a_role_that_cannot_be_read_is_nobodys_and_the_others_hold() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let mut strange = role("strange");
    strange.spec["allow"]["from_the_future"] = true.into();
    let (remote, task) =
        serve(&dir, Arc::new(Mutex::new(Rules { trust: cluster.trust(), roles: vec![role("a"), strange] })));
    let mut refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    refresher.refresh(&remote).await.unwrap();
    assert_eq!(names(&*refresher.shared()), ["a"]);
    task.abort();
}

#[tokio::test]
async fn the_authorities_of_another_cluster_or_none_at_all_are_not_taken() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    let rules = Arc::new(Mutex::new(Rules { trust: Cluster::new("other").trust(), roles: Vec::new() }));
    let (remote, task) = serve(&dir, rules.clone());
    let mut refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    assert!(matches!(refresher.refresh(&remote).await, Err(PolicyError::OtherCluster { .. }))); // I12
    let mut empty = cluster.trust();
    empty.user.x509.clear();
    rules.lock().unwrap().trust = empty;
    assert!(matches!(refresher.refresh(&remote).await, Err(PolicyError::NoAuthority)));
    assert_eq!(refresher.shared().policy().trust, cluster.trust());
    task.abort();
}

#[test]
fn a_damaged_copy_is_passed_over_and_grants_nothing() {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::new("root"));
    std::fs::write(dir.path().join("policy.json"), "{").unwrap();
    let refresher = PolicyRefresher::load(dir.path(), cluster.trust()).unwrap();
    assert!(names(&*refresher.shared()).is_empty());
    assert_eq!(refresher.shared().policy().trust, cluster.trust());
}
