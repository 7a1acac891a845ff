//! The services that one process runs, each started by its own module and stopped by the daemon.

pub(crate) mod agent;
pub(crate) mod auth;
pub(crate) mod inventory;
pub(crate) mod kube;
pub(crate) mod labels;
pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod web;
pub(crate) mod web_certificate;
