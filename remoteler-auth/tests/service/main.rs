//! The auth service as its callers see it, in process and over HTTP.

mod audit;
mod http;
mod inventory;
mod join;
mod login;
mod recordings;
mod resources;
mod support;
mod users;
mod web;
