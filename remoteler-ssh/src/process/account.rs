//! Accounts of the operating system: who may be logged in as (I20), and with which ids.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User};
use remoteler_core::Login;

/// An account that exists and that this process can become.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: PathBuf,
    shell: PathBuf,
}

/// Why nobody can be logged in as an account. The text is for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("this machine has no account {0}; choose another login")]
    Unknown(Login),
    #[error("this node runs as {own} and cannot log in as {login}; log in as {own}, or run the node as root")]
    NotThisProcess { login: Login, own: String },
    #[error("the account database did not answer for {login}")]
    Lookup {
        login: Login,
        #[source]
        source: nix::Error,
    },
    #[error("the account database did not answer")]
    Interrupted,
}

impl Account {
    /// Looks `login` up. Never blocks the caller's thread: directories can be slow.
    pub(crate) async fn find(login: &Login) -> Result<Self, AccountError> {
        let login = login.clone();
        tokio::task::spawn_blocking(move || Self::lookup(&login)).await.unwrap_or(Err(AccountError::Interrupted))
    }

    fn lookup(login: &Login) -> Result<Self, AccountError> {
        let failed = |source| AccountError::Lookup { login: login.clone(), source };
        let user = User::from_name(login.as_str()).map_err(failed)?;
        let user = user.ok_or_else(|| AccountError::Unknown(login.clone()))?;
        let own = Uid::effective();
        if !own.is_root() && user.uid != own {
            let own = User::from_uid(own).ok().flatten().map_or_else(|| format!("user {own}"), |user| user.name);
            return Err(AccountError::NotThisProcess { login: login.clone(), own });
        }
        let name = CString::new(user.name.as_str()).map_err(|_| AccountError::Unknown(login.clone()))?;
        let groups = nix::unistd::getgrouplist(&name, user.gid).map_err(failed)?;
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Ok(Self { name: user.name, uid: user.uid, gid: user.gid, groups, home: user.dir, shell })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn uid(&self) -> Uid {
        self.uid
    }

    pub(crate) const fn gid(&self) -> Gid {
        self.gid
    }

    pub(crate) fn groups(&self) -> &[Gid] {
        &self.groups
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn shell(&self) -> &Path {
        &self.shell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_that_does_not_exist_is_refused_by_name() {
        let login = Login::new("no-such-account-here").unwrap();
        let error = Account::find(&login).await.unwrap_err(); // I20
        assert!(error.to_string().contains("no-such-account-here"), "{error}");
    }

    #[tokio::test]
    async fn the_account_of_this_process_is_found_with_home_and_shell() {
        let own = User::from_uid(Uid::effective()).unwrap().unwrap();
        let account = Account::find(&Login::new(&own.name).unwrap()).await.unwrap();
        assert_eq!(account.uid(), Uid::effective());
        assert!(account.home().is_absolute());
        assert!(account.groups().contains(&account.gid()));
    }
}
