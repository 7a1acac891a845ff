//! One module for each command.

pub(crate) mod apps;
pub(crate) mod browser_login;
pub(crate) mod clusters;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod explain;
pub(crate) mod kube;
pub(crate) mod login;
mod login_files;
pub(crate) mod logout;
pub(crate) mod ls;
pub(crate) mod mfa;
pub(crate) mod play;
pub(crate) mod proxy;
pub(crate) mod recordings;
pub(crate) mod scp;
pub(crate) mod signup;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod version;
