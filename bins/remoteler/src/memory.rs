//! What the system may do with this process's memory, and what the allocator keeps of it. Owns the switch that keeps keys out of core files and
//! away from other programs of the same user (I8), and the only unsafe code of the daemon: the allocator's setting has no safe form.
#![cfg_attr(all(target_os = "linux", target_env = "gnu"), expect(unsafe_code, reason = "mallopt has no safe form"))]

/// Makes the allocator give memory back when a burst is over. Left alone, glibc raises its own limit with each large buffer that is
/// freed, so that after one bulk transfer every thread keeps megabytes for good. To be called before the first thread starts.
pub(crate) fn give_back_what_is_free() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the call takes two integers and sets a number in the allocator; it is made before other threads exist.
        let set = unsafe { nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT) };
        if set == 0 {
            tracing::debug!("the allocator keeps its own limit for free memory");
        }
    }
}

/// Free octets at the end of a thread's heap that may stay; enough for the buffers of a transfer that goes on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: nix::libc::c_int = 256 * 1024;

/// From now on the process leaves no core file, whatever limits and handlers say, and nobody but root can look into its memory.
///
/// # Errors
/// The system refused.
#[cfg(all(feature = "server", target_os = "linux"))]
pub(crate) fn keep_to_ourselves() -> std::io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// The same as far as other systems have it: no core file.
///
/// # Errors
/// The system refused.
#[cfg(all(feature = "server", not(target_os = "linux")))]
pub(crate) fn keep_to_ourselves() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
