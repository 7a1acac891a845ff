//! Our entries in a kubeconfig: a cluster, a user that calls `tsh kube credentials`, and a context for each Kubernetes cluster. Owns
//! entries with its own mark; all others are kept as they are, comments aside (I67). Waits for kubectl's own lock.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::{ClusterName, KubeClusterName, TrustBundle, wire};
use serde_json::{Map, Value, json};

use crate::{
    files::{FileError, PATIENCE, Privacy, PrivateDir},
    profile::ProxyAddr,
    store::pem_certificates,
    yaml::{self, YamlError},
};

/// Why the kubeconfig was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// The file or its directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not parse.
    #[error("{} is left alone, {mistake}", .path.display())]
    Mistake {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        mistake: YamlError,
    },
    /// It parses, but is no kubeconfig.
    #[error("{} is left alone: {what} is not as in a kubeconfig", .path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
    },
    /// Somebody else's entry has the name.
    #[error("{} has an entry {name} that is not ours under {section}; rename it and try again", .path.display())]
    NameTaken {
        /// Which file.
        path: PathBuf,
        /// `clusters`, `users` or `contexts`.
        section: &'static str,
        /// The name.
        name: String,
    },
    /// kubectl is writing, or died while it was.
    #[error("{} has been there for {} s: another kubectl is writing; if none is running, remove it", .lock.display(), .waited.as_secs())]
    KubectlLock {
        /// Its lock file.
        lock: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

/// One Kubernetes cluster to be entered.
#[derive(Clone, Debug)]
pub struct KubeEntry<'a> {
    /// Proxy through which it is reached.
    pub proxy: &'a ProxyAddr,
    /// Cluster (of ours) it belongs to.
    pub cluster: &'a ClusterName,
    /// Its name.
    pub kube_cluster: &'a KubeClusterName,
    /// The host authority in here signs the Kubernetes service's certificate.
    pub trust: &'a TrustBundle,
    /// Our own program, called by kubectl.
    pub tsh: &'a Path,
    /// `~/.tsh`, handed to that program as `TSH_HOME`.
    pub home: &'a Path,
}

impl KubeEntry<'_> {
    /// Name of cluster, user and context: `<cluster>-<kube cluster>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.cluster, self.kube_cluster)
    }

    fn cluster_entry(&self) -> Value {
        json!({
            "server": format!("https://{}/v1/kube/{}/{}", self.proxy, self.cluster, wire::segment(self.kube_cluster.as_str())),
            "tls-server-name": self.kube_cluster.server_name(self.cluster),
            "certificate-authority-data": STANDARD.encode(pem_certificates(&self.trust.host.x509)),
            "extensions": mark(self.proxy),
        })
    }

    fn user_entry(&self) -> Value {
        json!({
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1beta1",
                "command": self.tsh.to_string_lossy(),
                "args": ["kube", "credentials", "--cluster", self.cluster, "--kube-cluster", self.kube_cluster],
                "env": [
                    { "name": "TSH_HOME", "value": self.home.to_string_lossy() },
                    { "name": "TSH_PROXY", "value": self.proxy.to_string() },
                ],
                // kubectl before 1.22 does not know it and passes over it; later ones would connect the terminal.
                "interactiveMode": "Never",
                "provideClusterInfo": false,
            },
            "extensions": mark(self.proxy),
        })
    }

    fn context_entry(&self) -> Value {
        json!({ "cluster": self.name(), "user": self.name(), "extensions": mark(self.proxy) })
    }
}

/// A kubeconfig file.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    path: PathBuf,
}

impl Kubeconfig {
    /// The file at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `entries`, replacing ours of the same names, and makes `current` the current context if it is given.
    ///
    /// # Errors
    /// [`KubeconfigError`]; the file is as it was then.
    pub fn set(&self, entries: &[KubeEntry<'_>], current: Option<&str>) -> Result<(), KubeconfigError> {
        self.change(true, |document| {
            for entry in entries {
                let name = entry.name();
                self.put(document, "clusters", "cluster", &name, entry.cluster_entry())?;
                self.put(document, "users", "user", &name, entry.user_entry())?;
                self.put(document, "contexts", "context", &name, entry.context_entry())?;
            }
            if let Some(current) = current {
                document.insert("current-context".into(), current.into());
            }
            Ok(())
        })
    }

    /// Removes our entries of `proxy`, and nothing else; also the choice of the current context when that was one of them.
    ///
    /// # Errors
    /// [`KubeconfigError`]; the file is as it was then.
    pub fn remove(&self, proxy: &ProxyAddr) -> Result<(), KubeconfigError> {
        self.change(false, |document| {
            let ours = |body: &Value| marked_proxy(body) == Some(proxy.host());
            let mut contexts = Vec::new();
            for (section, inner) in SECTIONS {
                let Some(list) = self.section(document, section)? else { continue };
                list.retain(|named| {
                    let remove = named.get(inner).is_some_and(ours);
                    if remove && section == "contexts" {
                        contexts.extend(named.get("name").and_then(Value::as_str).map(String::from));
                    }
                    !remove
                });
            }
            let current = document.get("current-context").and_then(Value::as_str);
            if current.is_some_and(|current| contexts.iter().any(|name| name == current)) {
                document.insert("current-context".into(), "".into());
            }
            Ok(())
        })
    }

    /// The current context; `None` when there is no file or no choice.
    ///
    /// # Errors
    /// [`KubeconfigError`]
    pub fn current_context(&self) -> Result<Option<String>, KubeconfigError> {
        let (parent, name) = self.split();
        let Some(dir) = PrivateDir::open(parent, Privacy::Keep)? else { return Ok(None) };
        let Some(document) = self.read(&dir, name)? else { return Ok(None) };
        let current = document.get("current-context").and_then(Value::as_str);
        Ok(current.filter(|current| !current.is_empty()).map(String::from))
    }

    fn put(
        &self,
        document: &mut Map<String, Value>,
        section: &'static str,
        inner: &str,
        name: &str,
        body: Value,
    ) -> Result<(), KubeconfigError> {
        if self.section(document, section)?.is_none() {
            document.insert(section.into(), Value::Array(Vec::new()));
        }
        let Some(list) = self.section(document, section)? else { return Err(self.shape(section)) };
        let mut body = body;
        let Some(there) = list.iter_mut().find(|named| named.get("name").and_then(Value::as_str) == Some(name)) else {
            list.push(json!({ "name": name, inner: body }));
            return Ok(());
        };
        let old = there.get(inner).cloned().unwrap_or_default();
        if marked_proxy(&old).is_none() {
            return Err(KubeconfigError::NameTaken { path: self.path.clone(), section, name: name.into() });
        }
        // What people set in our context with `kubectl config set-context --namespace` stays.
        if let (Some(namespace), Some(fields)) = (old.get("namespace"), body.as_object_mut()) {
            fields.insert("namespace".into(), namespace.clone());
        }
        *there = json!({ "name": name, inner: body });
        Ok(())
    }

    /// A list of the document. kubectl writes `null` for an empty one.
    fn section<'a>(
        &self,
        document: &'a mut Map<String, Value>,
        section: &'static str,
    ) -> Result<Option<&'a mut Vec<Value>>, KubeconfigError> {
        match document.get_mut(section) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => Err(self.shape(section)),
        }
    }

    fn shape(&self, what: &'static str) -> KubeconfigError {
        KubeconfigError::Shape { path: self.path.clone(), what }
    }

    fn split(&self) -> (&Path, &str) {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        (parent, self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default())
    }

    fn read(&self, dir: &PrivateDir, name: &str) -> Result<Option<Map<String, Value>>, KubeconfigError> {
        let Some(content) = dir.read(name, MAX_LEN)? else { return Ok(None) };
        let text = String::from_utf8(content).map_err(|_| self.shape("its text (not UTF-8)"))?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        match yaml::read::<Value>(&text) {
            Ok(Value::Object(document)) => Ok(Some(document)),
            Ok(Value::Null) => Ok(None),
            Ok(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => Err(self.shape("the whole")),
            Err(mistake) => Err(KubeconfigError::Mistake { path: self.path.clone(), mistake }),
        }
    }

    fn change(
        &self,
        create: bool,
        edit: impl FnOnce(&mut Map<String, Value>) -> Result<(), KubeconfigError>,
    ) -> Result<(), KubeconfigError> {
        let (parent, name) = self.split();
        let dir = match (PrivateDir::open(parent, Privacy::Keep)?, create) {
            (Some(dir), _) => dir,
            (None, true) => PrivateDir::create(parent, Privacy::Keep)?,
            (None, false) => return Ok(()),
        };
        // Among ourselves by the directory, which leaves nothing behind; with kubectl by its lock file.
        let _lock = dir.lock(PATIENCE)?;
        let _kubectl = KubectlLock::take(&dir, name)?;
        let before = self.read(&dir, name)?;
        if before.is_none() && !create {
            return Ok(());
        }
        let mut document = before.clone().unwrap_or_default();
        edit(&mut document)?;
        if before.as_ref() == Some(&document) {
            return Ok(());
        }
        for (field, value) in [("apiVersion", "v1"), ("kind", "Config")] {
            document.entry(field).or_insert_with(|| value.into());
        }
        let text =
            yaml::write(&document).map_err(|mistake| KubeconfigError::Mistake { path: self.path.clone(), mistake })?;
        Ok(dir.write(name, text.as_bytes())?)
    }
}

/// kubectl's own lock: `<file>.lock`, made with O_EXCL and removed afterwards (client-go, `tools/clientcmd/config.go`).
struct KubectlLock<'a> {
    dir: &'a PrivateDir,
    name: String,
}

impl<'a> KubectlLock<'a> {
    fn take(dir: &'a PrivateDir, file: &str) -> Result<Self, KubeconfigError> {
        let (name, by) = (format!("{file}.lock"), format!(".{file}.lock.tsh"));
        let started = Instant::now();
        loop {
            // In one piece: one that is empty would be kubectl's, and wait to be removed by hand if this process is killed now.
            match dir.create_whole(&name, &by, OUR_LOCK) {
                Ok(()) => return Ok(Self { dir, name }),
                Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            // Ours, while we hold the directory: left by a process that was killed.
            if dir.read(&name, 64).is_ok_and(|content| content.as_deref() == Some(OUR_LOCK)) {
                dir.remove(&name)?;
                continue;
            }
            if started.elapsed() >= PATIENCE {
                return Err(KubeconfigError::KubectlLock { lock: dir.path().join(&name), waited: PATIENCE });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for KubectlLock<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.dir.remove(&self.name) {
            tracing::warn!(%error, "the lock of the kubeconfig could not be removed");
        }
    }
}

/// The extension by which our entries are known; kubectl keeps extensions, also when an entry is renamed.
fn mark(proxy: &ProxyAddr) -> Value {
    json!([{ "name": EXTENSION, "extension": { "proxy": proxy.host() } }])
}

fn marked_proxy(body: &Value) -> Option<&str> {
    let extensions = body.get("extensions")?.as_array()?;
    let ours = extensions.iter().find(|named| named.get("name").and_then(Value::as_str) == Some(EXTENSION))?;
    ours.get("extension")?.get("proxy")?.as_str()
}

const EXTENSION: &str = "remoteler.dev/kube";
const SECTIONS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];
const OUR_LOCK: &[u8] = b"tsh\n";
const MAX_LEN: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use remoteler_core::CaSet;

    use super::*;

    struct Fixture {
        home: tempfile::TempDir,
        proxy: ProxyAddr,
        cluster: ClusterName,
        trust: TrustBundle,
    }

    impl Fixture {
        fn new() -> Self {
            let cluster = ClusterName::new("root.example.com").unwrap();
            let empty = CaSet { ssh: Vec::new(), x509: Vec::new() };
            let host = CaSet { ssh: Vec::new(), x509: vec![vec![0x30; 200]] };
            let trust = TrustBundle::new(cluster.clone(), empty, host);
            Self { home: tempfile::tempdir().unwrap(), proxy: "proxy.example.com:443".parse().unwrap(), cluster, trust }
        }

        fn file(&self) -> Kubeconfig {
            Kubeconfig::new(self.home.path().join(".kube/config"))
        }

        fn set(&self, kube: &str, proxy: &ProxyAddr, current: bool) -> Result<(), KubeconfigError> {
            let entry = KubeEntry {
                proxy,
                cluster: &self.cluster,
                kube_cluster: &KubeClusterName::new(kube).unwrap(),
                trust: &self.trust,
                tsh: Path::new("/usr/bin/tsh"),
                home: Path::new("/home/ann/.tsh"),
            };
            let name = entry.name();
            self.file().set(&[entry], current.then_some(&name))
        }

        fn document(&self) -> Value {
            yaml::read(&std::fs::read_to_string(self.file().path()).unwrap()).unwrap()
        }
    }

    const FOREIGN: &str = "\
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: mine
  cluster: {server: 'https://10.0.0.1:6443', insecure-skip-tls-verify: true, odd-new-field: [1, 2.5, null]}
users:
- name: mine
  user: {token: \"012\", password: 'yes', username: ann}
contexts:
- name: mine
  context: {cluster: mine, user: mine, namespace: dev}
current-context: mine
some-extension: {a: b}
";

    #[test]
    fn foreign_entries_stay_as_they_are_when_ours_come_and_go() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.home.path().join(".kube")).unwrap();
        std::fs::write(fixture.file().path(), FOREIGN).unwrap();
        let before = fixture.document();

        fixture.set("staging", &fixture.proxy, true).unwrap();
        let other: ProxyAddr = "other.example.com".parse().unwrap();
        fixture.set("prod", &other, false).unwrap();
        let with = fixture.document();
        assert_eq!(with["clusters"].as_array().unwrap().len(), 3);
        assert_eq!(with["clusters"][0], before["clusters"][0]); // I67
        assert_eq!(with["current-context"], "root.example.com-staging");
        assert_eq!(
            with["clusters"][1]["cluster"]["server"],
            "https://proxy.example.com:443/v1/kube/root.example.com/staging"
        );

        fixture.file().remove(&fixture.proxy).unwrap();
        fixture.file().remove(&other).unwrap();
        let mut after = fixture.document();
        assert_eq!(after["current-context"], "");
        after["current-context"] = "mine".into();
        assert_eq!(after, before); // I67
    }

    #[test]
    fn an_entry_of_somebody_else_is_not_taken_over() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.home.path().join(".kube")).unwrap();
        let text = FOREIGN.replace("name: mine", "name: root.example.com-staging");
        std::fs::write(fixture.file().path(), &text).unwrap();
        assert!(matches!(fixture.set("staging", &fixture.proxy, true), Err(KubeconfigError::NameTaken { .. })));
        assert_eq!(std::fs::read_to_string(fixture.file().path()).unwrap(), text);
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.home.path().join(".kube")).unwrap();
        for text in ["clusters: [", "- a\n", "clusters: {a: b}\n", "a: 1\na: 2\n"] {
            std::fs::write(fixture.file().path(), text).unwrap();
            let error = fixture.set("staging", &fixture.proxy, true).unwrap_err();
            assert!(error.to_string().contains("left alone"), "{error}");
            assert_eq!(std::fs::read_to_string(fixture.file().path()).unwrap(), text);
            assert!(!fixture.home.path().join(".kube/config.lock").exists());
        }
    }

    #[test]
    fn a_namespace_set_in_our_context_survives_the_next_login() {
        let fixture = Fixture::new();
        fixture.set("staging", &fixture.proxy, true).unwrap();
        let text = std::fs::read_to_string(fixture.file().path()).unwrap();
        let text = text.replace("context:\n", "context:\n    namespace: dev\n");
        std::fs::write(fixture.file().path(), text).unwrap();
        fixture.set("staging", &fixture.proxy, true).unwrap();
        assert_eq!(fixture.document()["contexts"][0]["context"]["namespace"], "dev");
    }

    #[test]
    fn many_processes_at_once_lose_none_of_each_others_entries() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.home.path().join(".kube")).unwrap();
        std::fs::write(fixture.file().path(), FOREIGN).unwrap();
        std::thread::scope(|scope| {
            for i in 0..50 {
                let fixture = &fixture;
                scope.spawn(move || fixture.set(&format!("k{i}"), &fixture.proxy, false).unwrap());
            }
        });
        let document = fixture.document(); // I67
        assert_eq!(document["clusters"].as_array().unwrap().len(), 51);
        assert_eq!(document["users"].as_array().unwrap().len(), 51);
        assert_eq!(document["current-context"], "mine");
    }

    #[test]
    fn a_lock_left_by_a_killed_process_of_ours_does_not_block() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.home.path().join(".kube")).unwrap();
        std::fs::write(fixture.home.path().join(".kube/config.lock"), OUR_LOCK).unwrap();
        fixture.set("staging", &fixture.proxy, true).unwrap();
        assert!(!fixture.home.path().join(".kube/config.lock").exists());
    }

    #[test]
    fn an_attempt_that_was_killed_before_it_had_the_lock_does_not_block_and_leaves_nothing() {
        let fixture = Fixture::new();
        let dir = fixture.home.path().join(".kube");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(".config.lock.tsh"), "").unwrap();
        fixture.set("staging", &fixture.proxy, true).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.retain(|name| name.to_string_lossy().contains("config.lock"));
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn kubectl_reads_the_file_as_it_was_meant_and_keeps_our_mark() {
        let fixture = Fixture::new();
        fixture.set("arn:aws:eks:cluster", &fixture.proxy, true).unwrap();
        let kubectl =
            |args: &[&str]| Command::new("kubectl").arg("--kubeconfig").arg(fixture.file().path()).args(args).output();
        let Ok(current) = kubectl(&["config", "current-context"]) else {
            eprintln!("SKIPPED: no kubectl on this machine");
            return;
        };
        assert_eq!(String::from_utf8(current.stdout).unwrap().trim(), "root.example.com-arn:aws:eks:cluster");
        let view = kubectl(&["config", "view", "--raw", "-o", "json"]).unwrap();
        let view: Value = serde_json::from_slice(&view.stdout).unwrap();
        let exec = &view["users"][0]["user"]["exec"];
        assert_eq!(exec["command"], "/usr/bin/tsh");
        assert_eq!(exec["args"][5], "arn:aws:eks:cluster");
        assert_eq!(
            view["clusters"][0]["cluster"]["tls-server-name"].as_str().unwrap().split('.').next().unwrap().len(),
            33
        );

        assert!(
            kubectl(&["config", "rename-context", "root.example.com-arn:aws:eks:cluster", "mine"])
                .unwrap()
                .status
                .success()
        );
        fixture.file().remove(&fixture.proxy).unwrap();
        let left = fixture.document();
        assert_eq!(left["contexts"].as_array().map_or(0, Vec::len), 0); // I67
    }
}
