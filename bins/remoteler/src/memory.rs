//! What the system may do with this process's memory. Owns the switch that keeps keys out of core files and away from other programs of the
//! same user (I8).

/// From now on the process leaves no core file, whatever limits and handlers say, and nobody but root can look into its memory.
///
/// # Errors
/// The system refused.
#[cfg(target_os = "linux")]
pub(crate) fn keep_to_ourselves() -> std::io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// The same as far as other systems have it: no core file.
///
/// # Errors
/// The system refused.
#[cfg(not(target_os = "linux"))]
pub(crate) fn keep_to_ourselves() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
