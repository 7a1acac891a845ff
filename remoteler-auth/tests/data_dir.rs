//! The data directory: what survives a restart, and the clear refusal of what cannot be used.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails should panic where it is")]

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command, sync::Arc};

use remoteler_auth::{AuthConfig, AuthService, Caller, Database, OpenError, SqliteStorage, StartError};
use remoteler_ca::{CaError, KeyEncryptionKey, KeyRing, StoredAuthority, StoredTokenKey};
use remoteler_core::{ClusterName, Storage, Timestamp};

fn config(dir: &Path) -> AuthConfig {
    AuthConfig::new(dir, ClusterName::new("root").unwrap())
}

#[tokio::test]
async fn authorities_roles_and_records_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = AuthService::open(config(dir.path())).await.unwrap();
    let trust = first.trust_bundle();
    drop(first);

    let second = AuthService::open(config(dir.path())).await.unwrap();

    assert_eq!(second.trust_bundle(), trust);
    let roles = second.as_caller(Caller::LocalAdmin).roles().await.unwrap();
    let names: Vec<_> = roles.iter().map(|role| role.metadata.name.as_str()).collect();
    assert_eq!(names, ["access", "auditor", "editor"]);
}

#[tokio::test]
async fn sealed_authorities_leave_no_private_key_in_any_file_and_open_with_their_key_alone() {
    let ring = |octet: u8| {
        let mut octets = [octet; 32];
        octets[0] = !octet;
        Some(Arc::new(KeyRing::new(KeyEncryptionKey::new(&octets).unwrap())))
    };
    let dir = tempfile::tempdir().unwrap();
    let trust = AuthService::open(config(dir.path())).await.unwrap().trust_bundle();
    let keys = private_keys(dir.path()).await;
    assert_eq!(keys.len(), 5);
    assert!(keys.iter().all(|key| found_in(dir.path(), key)), "the search finds what is in the clear");

    let sealed = AuthService::open(AuthConfig { key_ring: ring(1), ..config(dir.path()) }).await.unwrap();
    assert_eq!(sealed.trust_bundle(), trust);
    // At once, and not only when the database is closed: a power cut leaves its log as it is.
    assert!(keys.iter().all(|key| !found_in(dir.path(), key))); // I8
    drop(sealed);
    assert!(private_keys(dir.path()).await.is_empty());
    for key in &keys {
        assert!(!found_in(dir.path(), key)); // I8
    }
    let again = AuthService::open(AuthConfig { key_ring: ring(1), ..config(dir.path()) }).await.unwrap();
    assert_eq!(again.trust_bundle(), trust);
    drop(again);
    for other in [None, ring(2)] {
        let refused = AuthService::open(AuthConfig { key_ring: other, ..config(dir.path()) }).await.unwrap_err();
        assert!(matches!(refused, StartError::Authority(CaError::Sealed { .. })), "{refused:?}"); // I8
    }

    // Where there is a key from the beginning, nothing was ever in the clear.
    let fresh = tempfile::tempdir().unwrap();
    drop(AuthService::open(AuthConfig { key_ring: ring(1), ..config(fresh.path()) }).await.unwrap());
    assert!(private_keys(fresh.path()).await.is_empty());
    assert!(!found_in(fresh.path(), "PRIVATE KEY")); // I8
}

/// The line of each private key that stands in the clear in the stored authorities.
async fn private_keys(dir: &Path) -> Vec<String> {
    let storage = SqliteStorage::new(Arc::new(Database::open(dir).unwrap()));
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let mut keys = Vec::new();
    for kind in ["user", "host"] {
        let item = storage.get(&format!("authorities/{kind}"), now).await.unwrap().unwrap();
        let set: serde_json::Value = serde_json::from_slice(&item.value).unwrap();
        let stored: StoredAuthority = serde_json::from_value(set["active"].clone()).unwrap();
        let clear = [&stored.ssh_key, &stored.x509_key].into_iter().filter_map(|key| key.clear());
        keys.extend(clear.map(|text| text.reveal().lines().nth(1).unwrap().to_owned()));
    }
    let item = storage.get("authorities/token", now).await.unwrap().unwrap();
    let set: serde_json::Value = serde_json::from_slice(&item.value).unwrap();
    let stored: StoredTokenKey = serde_json::from_value(set["active"].clone()).unwrap();
    keys.extend(stored.key.clear().map(|text| text.reveal().lines().nth(1).unwrap().to_owned()));
    keys
}

/// Whether any file of the directory holds 16 characters of the text in a row that begin at a multiple of 16: of a whole line some do, also
/// where the database has split it over two pages.
fn found_in(dir: &Path, text: &str) -> bool {
    let parts: Vec<&[u8]> = text.as_bytes().chunks(16).filter(|part| part.len() >= 11).collect();
    let holds = |file: &[u8]| parts.iter().any(|part| file.windows(part.len()).any(|window| window == *part));
    fs::read_dir(dir)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_file() && entry.file_name() != "auth.reserve") // which is 8 MiB of nothing
        .any(|entry| holds(&fs::read(entry.path()).unwrap()))
}

#[tokio::test]
async fn everything_in_the_directory_is_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let _service = AuthService::open(config(&data)).await.unwrap();
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700); // I67
    let mut files = 0;
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let expected = if entry.metadata().unwrap().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, expected, "{:?}", entry.path());
        files += 1;
    }
    assert!(files >= 3);
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(AuthService::open(config(dir.path())).await.unwrap());
    let database = dir.path().join("auth.sqlite");
    let mut octets = fs::read(&database).unwrap();
    octets[60..64].copy_from_slice(&7_u32.to_be_bytes()); // user_version in the header
    fs::write(&database, &octets).unwrap();
    let before = listing(dir.path());

    let refused = AuthService::open(config(dir.path())).await.unwrap_err();

    assert!(matches!(refused, StartError::Open(OpenError::Newer { found: 7, .. })), "{refused}");
    assert!(refused.to_string().contains("newer version"), "{refused}");
    assert_eq!(listing(dir.path()), before);
}

#[tokio::test]
async fn an_open_database_keeps_a_log_of_what_is_written_before_it_is_in_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStorage::new(Arc::new(Database::open(dir.path()).unwrap()));
    store.put("key", b"value", None).await.unwrap();
    let other = rusqlite::Connection::open(dir.path().join("auth.sqlite")).unwrap();
    let mode: String = other.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    assert!(fs::metadata(dir.path().join("auth.sqlite-wal")).unwrap().len() > 0, "the write is in the log");
}

#[tokio::test]
async fn a_damaged_page_stops_the_start_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStorage::new(Arc::new(Database::open(dir.path()).unwrap()));
    for number in 0..200 {
        store.put(&format!("key/{number:04}"), &[7; 800], None).await.unwrap();
    }
    drop(store);
    let database = dir.path().join("auth.sqlite");
    // Into the pages, all of it: a close may leave some in the log.
    let other = rusqlite::Connection::open(&database).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(other);
    let whole = fs::read(&database).unwrap();
    assert!(whole.len() > 40 * 4096, "{} octets", whole.len());
    let page = whole.len() / 4096 / 2 * 4096;
    let mut damaged = whole.clone();
    damaged[page..page + 4096].fill(0xa5);
    fs::write(&database, &damaged).unwrap();

    let refused = open_when_free(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("auth.sqlite") && said.contains("backup") && !said.contains('\n'), "{said}");
    assert!(fs::read(&database).unwrap() == damaged, "nothing was written into it");

    fs::write(&database, &whole).unwrap();
    let store = SqliteStorage::new(Arc::new(open_when_free(dir.path()).unwrap()));
    assert_eq!(store.range("key/", None, 10_000, Timestamp::default()).await.unwrap().items.len(), 200);
}

/// Opens it once nobody else has it: a process that another test is just starting holds a copy of the lock until it runs its own program.
fn open_when_free(dir: &Path) -> Result<Database, OpenError> {
    let began = std::time::Instant::now();
    loop {
        match Database::open(dir) {
            Err(OpenError::InUse { .. }) if began.elapsed().as_secs() < 60 => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Database::open(dir.path()).unwrap();
    let refused = Database::open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(first);
    // A process that another test is just starting holds a copy of the lock until it runs its own program.
    let began = std::time::Instant::now();
    while let Err(cause) = Database::open(dir.path()) {
        assert!(matches!(cause, OpenError::InUse { .. }) && began.elapsed().as_secs() < 10, "{cause}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_no_directory_or_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    let refused = Database::open(&file.join("data")).unwrap_err();
    assert!(matches!(refused, OpenError::Unusable { .. }), "{refused}");
    assert!(refused.to_string().contains("file"), "{refused}");

    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for content in [vec![b'x'; 10], vec![b'x'; 4096]] {
        fs::write(other.join("auth.sqlite"), &content).unwrap();
        let refused = Database::open(&other).unwrap_err();
        assert!(matches!(refused, OpenError::NotADatabase { .. }), "{refused}");
        assert_eq!(fs::read(other.join("auth.sqlite")).unwrap(), content);
    }
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(AuthService::open(config(dir.path())).await.unwrap());
    let other = AuthConfig::new(dir.path(), ClusterName::new("leaf").unwrap());
    let refused = AuthService::open(other).await.unwrap_err();
    assert!(matches!(refused, StartError::OtherCluster { .. }), "{refused}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: a small tmpfs cannot be mounted here (needs root)");
        return;
    };
    let database = Arc::new(Database::open(&disk.0.path().join("data")).unwrap());
    let store = SqliteStorage::new(database);
    let now = Timestamp::from_unix_seconds(1);
    let mut kept = 0;
    let refused = loop {
        match store.put(&format!("key/{kept:06}"), &[7; 20_000], None).await {
            Ok(_) => kept += 1,
            Err(cause) => break cause,
        }
        assert!(kept < 10_000, "the disk never fills");
    };
    assert!(refused.to_string().contains("full"), "{refused}");
    assert!(store.put("more", &[7; 20_000], None).await.is_err());
    assert_eq!(store.range("key/", None, 10_000, now).await.unwrap().items.len(), kept);
    drop(store);

    let fresh = disk.0.path().join("fresh");
    let refused = Database::open(&fresh).unwrap_err();
    assert!(matches!(refused, OpenError::Full { .. }), "{refused}");
    assert!(refused.to_string().contains("free some space"), "{refused}");

    let again = SqliteStorage::new(Arc::new(Database::open(&disk.0.path().join("data")).unwrap()));
    assert_eq!(again.range("key/", None, 10_000, now).await.unwrap().items.len(), kept);
    again.delete("key/000000", now).await.unwrap_err(); // no room for the journal either
    drop(again);
    disk.grow();
    let again = SqliteStorage::new(Arc::new(Database::open(&disk.0.path().join("data")).unwrap()));
    assert!(again.delete("key/000000", now).await.unwrap());
    Database::open(&fresh).unwrap();
}

#[test]
fn the_same_store_answers_after_the_process_was_killed() {
    // The child writes and tells each write that returned; then it is killed, and every one it told must be there.
    if let Some(dir) = std::env::var_os("REMOTELER_TEST_WRITER_DIR") {
        write_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_same_store_answers_after_the_process_was_killed", "--nocapture"])
        .env("REMOTELER_TEST_WRITER_DIR", dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = 0_usize;
    {
        use std::io::BufRead;
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        for line in output.lines() {
            told += usize::from(line.unwrap().contains("written"));
            if told >= 50 {
                break;
            }
        }
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(async {
        let store = SqliteStorage::new(Arc::new(Database::open(dir.path()).unwrap()));
        store.range("key/", None, 10_000, Timestamp::default()).await.unwrap().items.len()
    });
    assert!(found >= told, "{told} writes were acknowledged, {found} are there"); // I75
}

fn write_for_ever(dir: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStorage::new(Arc::new(Database::open(dir).unwrap()));
        for number in 0.. {
            store.put(&format!("key/{number:06}"), b"value", None).await.unwrap();
            println!("written {number}");
        }
        unreachable!("the numbers do not end");
    })
}

fn listing(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let content = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push((path, content));
    }
    found.sort();
    found
}

/// A file system of 2 MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }

    fn grow(&self) {
        let status = Command::new("mount").args(["-o", "remount,size=8m"]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
