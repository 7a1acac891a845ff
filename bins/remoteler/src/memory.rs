//! What the allocator keeps of freed memory. The only unsafe code of the daemon: the setting has no safe form.
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
