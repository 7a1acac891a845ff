//! Letting a host in is one transaction: its names, its record, its standing and its use of the token stand in the database together or not at all,
//! after the event and before the host has its certificates. Owns that write; what lets a host in is decided before.

use remoteler_core::{
    ApiError, ApiErrorKind, AuditKind, HostCerts, HostId, HostIdentity, NodeName, Revision, SystemRole, random_uuid,
};

use crate::{
    copies::Standing,
    failure::{ApiResult, bad_request, conflict},
    issue::{HostIssue, SubjectKeys},
    join::{Admission, HostRecord, LocalHost, issued_serials},
    records::{Batch, key},
    service::Inner,
    tokens::{TokenRecord, used_up},
};

/// Most Kubernetes clusters of one host.
const MAX_KUBE_CLUSTERS: usize = 64;
/// Most web applications of one host.
const MAX_APPS: usize = 64;
/// How often a write is made anew because something that it stands on has changed at the same moment.
const ATTEMPTS: usize = 4;

/// A host as it will be let in.
struct Entry {
    record: HostRecord,
    keys: SubjectKeys,
    /// Key of the record, what it is, and how it is named to `tctl rm`.
    claims: Vec<(String, String, String)>,
    again: bool,
}

/// What is written when it is let in, and what it is given then.
struct Plan {
    batch: Batch,
    issue: HostIssue,
}

impl Inner {
    pub(crate) async fn admit_new(
        &self,
        admission: Admission,
        event: &(dyn Fn(Option<HostId>, Option<String>) -> AuditKind + Send + Sync),
    ) -> ApiResult<HostCerts> {
        let entry = self.entry(admission)?;
        let id = entry.record.identity.id;
        let _turn = self.changes.write().await; // what one join finds free, no other takes
        let mut plan = self.plan(&entry).await?;
        self.record(event(Some(id), None)).await?;
        for _ in 0..ATTEMPTS {
            // Signed before it is written: what fails here leaves nothing behind, and nobody has the certificates before that.
            let issued = self.issuer.issue_host(plan.issue).await?;
            match self.records.commit(plan.batch).await {
                Ok(()) => return Ok(self.host_certs(id, issued)),
                Err(cause) if cause.is_conflict() => plan = self.plan(&entry).await?,
                Err(cause) => return Err(cause.into()),
            }
        }
        Err(conflict(format!("what is known of host {id} changes too often at this moment; try again")))
    }

    /// Everything about the host that can be checked without looking at others.
    fn entry(&self, admission: Admission) -> ApiResult<Entry> {
        let Admission { host, labels, pass, again } = admission;
        let LocalHost { name, roles, kube_clusters, apps, ssh_public_key, tls_public_key, host_id } = host;
        self.check_node_name(&name)?;
        if kube_clusters.len() > MAX_KUBE_CLUSTERS {
            return Err(bad_request(format!("a host announces at most {MAX_KUBE_CLUSTERS} Kubernetes clusters")));
        }
        if !kube_clusters.is_empty() && !roles.contains(&SystemRole::Kube) {
            return Err(bad_request("a host that announces Kubernetes clusters joins with the service kube"));
        }
        if apps.len() > MAX_APPS {
            return Err(bad_request(format!("a host announces at most {MAX_APPS} applications")));
        }
        if !apps.is_empty() && !roles.contains(&SystemRole::App) {
            return Err(bad_request("a host that announces applications joins with the service app"));
        }
        let id = host_id.unwrap_or_else(|| HostId::from_uuid(random_uuid(self.entropy.as_ref())));
        let keys = SubjectKeys::parse(&ssh_public_key, &tls_public_key)?;
        let mut claims = vec![(key::of(key::NODE_OWNERS, &name), format!("node {name}"), format!("node/{name}"))];
        claims.extend(kube_clusters.iter().map(|kube| {
            let what = format!("Kubernetes cluster {kube}");
            (key::of(key::KUBE_OWNERS, kube), what, format!("kube_cluster/{kube}"))
        }));
        claims.extend(
            apps.iter().map(|app| (key::of(key::APP_OWNERS, app), format!("application {app}"), format!("app/{app}"))),
        );
        let cluster = self.cluster.clone();
        let identity = HostIdentity { id, name, cluster, roles, kube_clusters, apps, labels, generation: 0 };
        let joined_with = pass.and_then(|pass| pass.hash);
        let record = HostRecord { identity, ssh_public_key, tls_public_key, joined_with };
        Ok(Entry { record, keys, claims, again })
    }

    /// What letting it in writes, as things stand now. Nothing is changed.
    async fn plan(&self, entry: &Entry) -> ApiResult<Plan> {
        let Entry { record, keys, claims, again } = entry;
        let id = record.identity.id;
        let mut batch = Batch::new().write(&key::of(key::HOSTS, id), record, None)?;
        if let Some(hash) = &record.joined_with {
            batch = self.use_token(batch, hash, id).await?;
        }
        for (key, what, resource) in claims {
            if self.is_free(key, id, what, resource).await? {
                batch = batch.create(key, &id, None)?;
            }
        }
        let key = key::of(key::STANDINGS, id);
        let found: Option<(Standing, Revision)> = self.records.read_at(&key).await?;
        let (mut standing, revision) = found.map_or_else(Default::default, |(found, at)| (found, Some(at)));
        let now = self.clock.now();
        // Of its present generation, or of a new one when it was in before.
        let generation = if *again { standing.readmit(now) } else { standing.admit(now) };
        let issue = self.issuer.prepare_host(record.identity.of_generation(generation), keys.clone())?;
        standing.issued(issued_serials(generation, &issue));
        let batch = match revision {
            Some(revision) => batch.replace(&key, revision, &standing)?,
            None => batch.create(&key, &standing, None)?,
        };
        Ok(Plan { batch, issue })
    }

    /// Counts a host as one that joined with the token of this hash: once, however often it asks, and never more hosts than the token is for.
    async fn use_token(&self, batch: Batch, hash: &str, host: HostId) -> ApiResult<Batch> {
        let key = key::of(key::TOKENS, hash);
        let Some((mut token, revision)) = self.records.read_at::<TokenRecord>(&key).await? else {
            return Err(ApiError::new(ApiErrorKind::Denied, "the join token was removed at this moment"));
        };
        if !token.is_open_to(host) {
            return Err(used_up());
        }
        if token.uses.is_none() || !token.used_by.insert(host) {
            return Ok(batch);
        }
        Ok(batch.replace_until(&key, revision, &token, token.expires)?)
    }

    /// Whether a name belongs to nobody (I28); `false` when it is this host's already.
    async fn is_free(&self, key: &str, host: HostId, what: &str, resource: &str) -> ApiResult<bool> {
        match self.records.read::<HostId>(key).await? {
            None => Ok(true),
            Some(owner) if owner == host => Ok(false),
            Some(owner) => Err(conflict(format!(
                "{what} belongs to host {owner}; on that host run remoteler rejoin, else choose another name, or free it with \
                 tctl rm {resource}"
            ))),
        }
    }

    /// A host certificate is valid for its id and for `name.cluster`, and for names below `kube.cluster` and `app.cluster`: no node may be
    /// called so that these are another's.
    fn check_node_name(&self, name: &NodeName) -> ApiResult<()> {
        let text = name.as_str();
        let refuse = |why: &str| Err(bad_request(format!("node name {text} is refused: {why}; choose another")));
        if text == "kube" || text.ends_with(".kube") {
            return refuse("names below kube stand for Kubernetes clusters");
        }
        if text.strip_suffix(".app").is_some_and(|label| label.starts_with('a') && label.len() == 33) {
            return refuse("such names below app stand for applications");
        }
        if text.parse::<HostId>().is_ok() {
            return refuse("it looks like a host id");
        }
        if text == self.cluster.as_str() || text.ends_with(&format!(".{}", self.cluster)) {
            return refuse("it ends with the cluster's name, which is added by itself");
        }
        Ok(())
    }
}
