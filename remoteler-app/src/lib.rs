//! Web apps behind the access plane: browser session, signed identity, HTTP forwarding.
//!
//! The crate holds the place of that protocol in the map of crates; it exports nothing yet.
