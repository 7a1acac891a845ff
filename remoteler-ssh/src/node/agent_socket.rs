//! Where programs of a session find the forwarded agent: a Unix socket in a directory of its own that only the session's account can enter. Owns those
//! directories from their making to their end, also those that a daemon left which was killed. Never accepts a connection.

use std::{
    fs::DirBuilder,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use remoteler_core::{Entropy, fill_random};
use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, fchown, fstat, mkdirat, openat},
    io::Errno,
};
use tokio::net::UnixListener;

use crate::process::Account;

/// All agent sockets of one node: `<dir>/remoteler-agents-<random>/<random>/agent`. The first directory is the daemon's own, so that no account can rename
/// what is in it; the second is the account's.
pub(super) struct AgentSockets {
    dir: PathBuf,
    /// Holds one empty file, named as the daemon's directory: the next start removes what this one left.
    notes: PathBuf,
    own: Mutex<Option<Own>>,
}

/// The daemon's directory. It lies where others may make one of the same name once it was removed, so what matters is the open directory and not the name.
#[derive(Debug)]
struct Own {
    path: PathBuf,
    dir: OwnedFd,
}

impl AgentSockets {
    /// `dir`: where everybody may pass. `notes`: private to the daemon, made when it is needed.
    pub(super) fn new(dir: PathBuf, notes: PathBuf) -> Self {
        Self { dir, notes, own: Mutex::new(None) }
    }

    /// Removes what daemons before left, in the background: how much that is, their users decided.
    pub(super) fn sweep(&self) {
        let Ok(notes) = std::fs::read_dir(&self.notes) else { return };
        let notes: Vec<_> = notes.filter_map(Result::ok).map(|note| note.file_name()).collect();
        let left: Vec<_> = notes
            .into_iter()
            .filter(|name| name.to_str().is_some_and(is_own_name))
            .map(|name| (self.dir.join(&name), self.notes.join(&name)))
            .collect();
        if left.is_empty() {
            return;
        }
        let sweeping = std::thread::Builder::new().name("agent-sockets".into()).spawn(move || {
            for (left, note) in left {
                if let Err(error) = remove_own(&left) {
                    tracing::warn!(%error, path = %left.display(), "sockets of forwarded agents that an earlier run left stay");
                } else {
                    let _removed = std::fs::remove_file(note);
                }
            }
        });
        if let Err(error) = sweeping {
            tracing::warn!(%error, "sockets of forwarded agents that an earlier run left are not looked for");
        }
    }

    /// A listening socket that only `account` can reach.
    ///
    /// # Errors
    /// As the operating system says; nothing is left then.
    pub(super) fn open(&self, account: &Account, entropy: &dyn Entropy) -> io::Result<(AgentSocket, UnixListener)> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let name = random_name(entropy);
        if let Some(known) = own.as_ref() {
            match mkdirat(&known.dir, &name, Mode::RWXU) {
                Ok(()) => return known.socket(&name, account),
                // Somebody cleaned up while no agent was forwarded.
                Err(Errno::NOENT) => *own = None,
                Err(other) => return Err(other.into()),
            }
        }
        let known = own.insert(self.make_own(entropy)?);
        mkdirat(&known.dir, &name, Mode::RWXU)?;
        known.socket(&name, account)
    }

    fn make_own(&self, entropy: &dyn Entropy) -> io::Result<Own> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.notes)?;
        let name = format!("{PREFIX}{}", random_name(entropy));
        // Noted first: what is made and not noted would stay for ever.
        std::fs::OpenOptions::new().write(true).create_new(true).open(self.notes.join(&name))?;
        let path = self.dir.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let dir = open_dir(CWD, &path)?;
        let found = fstat(&dir)?;
        if found.st_uid != rustix::process::geteuid().as_raw() || found.st_mode & 0o077 != 0 {
            return Err(io::Error::other(format!("{} is not the directory that was made there", path.display())));
        }
        // Others may pass, and neither look nor write.
        fchmod(&dir, Mode::from_raw_mode(0o711))?;
        Ok(Own { path, dir })
    }
}

impl Own {
    /// The socket in the directory `name`, which was just made. Everything that gives things away goes by the open directories: a name could lead elsewhere.
    fn socket(&self, name: &str, account: &Account) -> io::Result<(AgentSocket, UnixListener)> {
        let dir = self.path.join(name);
        // From here on dropping it removes it.
        let socket = AgentSocket { path: dir.join(SOCKET), dir };
        let open = open_dir(&self.dir, name)?;
        let listener = UnixListener::bind(&socket.path)?;
        chmodat(&open, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        if rustix::process::geteuid().is_root() {
            // The directory last: until then nobody else can put another thing where the socket is.
            let (uid, gid) = (account.uid().as_raw(), account.gid().as_raw());
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(&open, SOCKET, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            fchown(&open, uid, gid)?;
        }
        Ok((socket, listener))
    }
}

fn open_dir(base: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(openat(base, name, flags, Mode::empty())?)
}

impl Drop for AgentSockets {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Own { path, dir: _ }) = own
            && std::fs::remove_dir(&path).is_ok()
            && let Some(name) = path.file_name()
        {
            let _removed = std::fs::remove_file(self.notes.join(name));
        }
    }
}

/// One socket and its directory, which go when this is dropped.
#[derive(Debug)]
pub(super) struct AgentSocket {
    path: PathBuf,
    dir: PathBuf,
}

impl AgentSocket {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.dir) {
            tracing::debug!(%error, path = %self.dir.display(), "the directory of a forwarded agent stays");
        }
    }
}

/// Removes a session's directory. The account may have put things of its own beside the socket, as many and as deep as it likes: a few on one level are removed with
/// it, and with more it stays. Names alone are removed, in a directory that lies in the daemon's own.
fn clear(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)?.take(MOST_CLEARED) {
        let entry = entry?.path();
        let _removed = std::fs::remove_file(&entry).or_else(|_| std::fs::remove_dir(&entry));
    }
    std::fs::remove_dir(dir)
}

/// Removes a directory that a run before made. It lies where others write, too: another's is not touched.
fn remove_own(dir: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let mut failed = Ok(());
    for entry in std::fs::read_dir(dir)? {
        if let Err(error) = clear(&entry?.path()) {
            failed = Err(error);
        }
    }
    failed.and_then(|()| std::fs::remove_dir(dir))
}

/// 64 random bits, as 16 digits.
fn random_name(entropy: &dyn Entropy) -> String {
    format!("{:016x}", u64::from_be_bytes(fill_random(entropy)))
}

fn is_own_name(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

const PREFIX: &str = "remoteler-agents-";
const SOCKET: &str = "agent";
/// Things beside a socket that are removed with it.
const MOST_CLEARED: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use remoteler_core::{Login, OsEntropy};

    use super::*;

    async fn own_account() -> Account {
        let own = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap();
        Account::find(&Login::new(&own.name).unwrap()).await.unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    // I74
    #[tokio::test]
    async fn a_socket_is_its_accounts_alone_and_leaves_nothing() {
        let (temp, account) = (tempfile::tempdir().unwrap(), own_account().await);
        let (dir, notes) = (temp.path().join("pass"), temp.path().join("notes"));
        std::fs::create_dir(&dir).unwrap();
        let sockets = AgentSockets::new(dir.clone(), notes.clone());
        let (socket, listener) = sockets.open(&account, &OsEntropy).unwrap();
        let (other, _listening) = sockets.open(&account, &OsEntropy).unwrap();
        assert_ne!(socket.path(), other.path());
        assert_eq!((mode(socket.path()), mode(&socket.dir), mode(socket.dir.parent().unwrap())), (0o600, 0o700, 0o711));
        assert_eq!(names(&notes), names(&dir));
        let kept = socket.dir.clone();
        drop((socket, listener));
        assert!(!kept.exists() && other.path().exists());
        drop(other);
        drop(sockets);
        assert!(names(&dir).is_empty() && names(&notes).is_empty());
    }

    // I74
    #[tokio::test]
    async fn a_root_nodes_socket_and_its_directory_belong_to_the_account_and_their_place_does_not() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: only root can give files away");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let account = Account::find(&Login::new("daemon").unwrap()).await.unwrap();
        let sockets = AgentSockets::new(temp.path().into(), temp.path().join("notes"));
        let (socket, _listener) = sockets.open(&account, &OsEntropy).unwrap();
        let owners = |path: &Path| (std::fs::metadata(path).unwrap().uid(), std::fs::metadata(path).unwrap().gid());
        let theirs = (account.uid().as_raw(), account.gid().as_raw());
        assert_ne!(theirs.0, 0);
        assert_eq!((owners(socket.path()), owners(&socket.dir)), (theirs, theirs));
        assert_eq!(owners(socket.dir.parent().unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_is_gone_after_the_next_start_and_nothing_else_is() {
        let (temp, account) = (tempfile::tempdir().unwrap(), own_account().await);
        let (dir, notes) = (temp.path().join("pass"), temp.path().join("notes"));
        std::fs::create_dir(&dir).unwrap();
        let killed = AgentSockets::new(dir.clone(), notes.clone());
        let (socket, listener) = killed.open(&account, &OsEntropy).unwrap();
        std::fs::write(socket.dir.join("of the account"), "").unwrap();
        std::mem::forget((killed, socket, listener));
        let elsewhere = temp.path().join("elsewhere");
        std::fs::create_dir_all(elsewhere.join("x")).unwrap();
        let (link, other) = (format!("{PREFIX}0123456789abcdef"), format!("{PREFIX}not-ours"));
        std::os::unix::fs::symlink(&elsewhere, dir.join(&link)).unwrap();
        std::fs::create_dir(dir.join(&other)).unwrap();
        for note in [link.as_str(), other.as_str(), ".."] {
            let _made = std::fs::write(notes.join(note), "");
        }

        let next = AgentSockets::new(dir.clone(), notes.clone());
        next.sweep();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while names(&dir).len() > 2 || notes.join(&link).exists() {
            assert!(std::time::Instant::now() < deadline, "{:?} {:?}", names(&dir), names(&notes));
            tokio::task::yield_now().await;
        }
        assert!(dir.join(link).is_symlink() && dir.join(other).exists() && elsewhere.join("x").exists());
    }

    #[tokio::test]
    async fn things_that_the_account_put_beside_its_socket_go_with_it() {
        let (temp, account) = (tempfile::tempdir().unwrap(), own_account().await);
        let sockets = AgentSockets::new(temp.path().into(), temp.path().join("notes"));
        let (socket, _listener) = sockets.open(&account, &OsEntropy).unwrap();
        let dir = socket.dir.clone();
        std::fs::write(dir.join("of the account"), "").unwrap();
        drop(socket);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while dir.exists() {
            assert!(std::time::Instant::now() < deadline, "{} stays", dir.display());
            tokio::task::yield_now().await;
        }
    }

    // I25
    #[tokio::test]
    async fn a_tree_that_the_account_left_is_not_walked() {
        let (temp, account) = (tempfile::tempdir().unwrap(), own_account().await);
        let sockets = AgentSockets::new(temp.path().into(), temp.path().join("notes"));
        let (socket, _listener) = sockets.open(&account, &OsEntropy).unwrap();
        let dir = socket.dir.clone();
        std::fs::create_dir_all(dir.join("deep/er")).unwrap();
        drop(socket);
        assert!(dir.join("deep/er").exists() && !dir.join(SOCKET).exists());
        assert!(remove_own(dir.parent().unwrap()).is_err());
        std::fs::remove_dir(dir.join("deep/er")).unwrap();
        remove_own(dir.parent().unwrap()).unwrap();
        assert!(!dir.exists());
    }

    // I64
    #[tokio::test]
    async fn a_directory_that_somebody_else_made_under_the_name_is_not_used() {
        let (temp, account) = (tempfile::tempdir().unwrap(), own_account().await);
        let (dir, theirs) = (temp.path().join("pass"), temp.path().join("theirs"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir(&theirs).unwrap();
        let sockets = AgentSockets::new(dir.clone(), temp.path().join("notes"));
        drop(sockets.open(&account, &OsEntropy).unwrap());
        let name = dir.join(&names(&dir)[0]);
        std::fs::remove_dir(&name).unwrap();
        std::os::unix::fs::symlink(&theirs, &name).unwrap();
        let (socket, _listener) = sockets.open(&account, &OsEntropy).unwrap();
        assert!(!socket.path().starts_with(&name) && names(&theirs).is_empty());
    }

    #[tokio::test]
    async fn a_directory_that_somebody_cleaned_away_is_made_anew() {
        let (temp, account) = (tempfile::tempdir().unwrap(), own_account().await);
        let dir = temp.path().join("pass");
        std::fs::create_dir(&dir).unwrap();
        let sockets = AgentSockets::new(dir.clone(), temp.path().join("notes"));
        drop(sockets.open(&account, &OsEntropy).unwrap());
        std::fs::remove_dir(dir.join(&names(&dir)[0])).unwrap();
        let (socket, _listener) = sockets.open(&account, &OsEntropy).unwrap();
        assert!(socket.path().exists());
    }
}
