//! The services that one process runs, each started by its own module and stopped by the daemon.

pub(crate) mod agent;
#[cfg(feature = "app")]
pub(crate) mod app;
#[cfg(feature = "server")]
pub(crate) mod apps;
#[cfg(feature = "server")]
pub(crate) mod audit_log;
#[cfg(feature = "server")]
pub(crate) mod auth;
#[cfg(feature = "server")]
pub(crate) mod carrier;
#[cfg(feature = "server")]
pub(crate) mod identity_providers;
#[cfg(feature = "server")]
pub(crate) mod inventory;
#[cfg(feature = "kube")]
pub(crate) mod kube;
pub(crate) mod labels;
pub(crate) mod node;
#[cfg(feature = "server")]
pub(crate) mod proxy;
#[cfg(feature = "server")]
pub(crate) mod web;
#[cfg(feature = "server")]
pub(crate) mod web_certificate;
