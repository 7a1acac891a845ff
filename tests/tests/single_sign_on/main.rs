//! Single sign-on as a person sees it: `tsh login`, a browser, a real identity provider, and then SSH.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod ends;
mod files;
mod four_ways;
mod local;
mod oidc;
mod saml;
mod second_factors;
mod ways_in;
mod world;
