//! Other times for programs under test, by libfaketime. Its library is preloaded without the wrapper program, which gives up where a killed process of the same id has left a semaphore; the library goes on.

use std::path::PathBuf;

use crate::need;

/// The library for programs of several threads; `None`, said aloud, where it is missing.
///
/// # Panics
/// When the program is there and its library is not.
#[must_use]
pub fn faketime_library() -> Option<PathBuf> {
    if !need(&["faketime"]) {
        return None;
    }
    let places = ["/usr/lib", "/usr"].into_iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    let mut named = places.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    Some(named.find(|path| path.exists()).expect("faketime has its library"))
}
