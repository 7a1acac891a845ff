//! The programs of other projects that tests drive: which there must be, and how a Debian machine gets them.
//! Installs only what is missing, only as root, and leaves no service running that did not run before.

use std::{
    env, fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};

use crate::{project::Project, step};

/// Each program and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("ssh", "openssh-client"),
    ("scp", "openssh-client"),
    ("sftp", "openssh-client"),
    ("ssh-agent", "openssh-client"),
    ("ssh-add", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("rsync", "rsync"),
    ("git", "git"),
    ("kubectl", "kubernetes-client"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("tmux", "tmux"),
    ("bash", "bash"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
    ("softhsm2-util", "softhsm2"),
    ("faketime", "faketime"),
    ("strace", "strace"),
    ("pkcs11-tool", "opensc"),
    ("psql", "postgresql-client"),
    ("initdb", "postgresql"),
    ("postgres", "postgresql"),
    ("chromium", "chromium"),
    ("xmlsec1", "xmlsec1"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
    // Libraries, by a file of theirs: PyJWT, and what it needs for ES256.
    ("/usr/lib/python3/dist-packages/jwt/__init__.py", "python3-jwt"),
    ("/usr/lib/python3/dist-packages/cryptography/__init__.py", "python3-cryptography"),
];

/// Where system administrators' programs are, which `PATH` of other users leaves out.
const SYSTEM_DIRS: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/lib/openssh"];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    complete: bool,
    old_kubectl: Option<PathBuf>,
}

impl Clients {
    /// Tells the tests what there is: `REMOTELER_FULL_CHECK` when nothing may be skipped for want of a client, and
    /// `REMOTELER_TEST_KUBECTL_OLD`, a kubectl of before 1.29, which upgrades connections by SPDY.
    pub(crate) fn describe<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if self.complete {
            command.env("REMOTELER_FULL_CHECK", "1");
        }
        if let Some(kubectl) = &self.old_kubectl {
            command.env("REMOTELER_TEST_KUBECTL_OLD", kubectl);
        }
        command
    }
}

/// Finds the clients and installs what is missing, if that is possible; else says what is missing, and fails if `strict`.
pub(crate) fn provide(project: &Project, strict: bool) -> anyhow::Result<Clients> {
    let wanted = missing();
    if !wanted.is_empty() && may_install() {
        install(&packages(&wanted))?;
    }
    let left = missing();
    if !left.is_empty() {
        let said = format!("missing: {}; install {}", left.join(", "), packages(&left).join(" "));
        ensure!(!strict, "{said}");
        eprintln!("WARNING: {said}; tests that need them will be skipped");
    }
    let old_kubectl = old_kubectl(project);
    if let Err(cause) = &old_kubectl {
        ensure!(!strict, "no kubectl that speaks SPDY: {cause:#}");
        eprintln!("WARNING: no kubectl that speaks SPDY: {cause:#}");
    }
    let oidc_provider = oidc_provider(project);
    if let Err(cause) = &oidc_provider {
        ensure!(!strict, "no OpenID provider: {cause:#}");
        eprintln!("WARNING: no OpenID provider: {cause:#}");
    }
    let pages = crate::pages_clients::install(project);
    if let Err(cause) = &pages {
        ensure!(!strict, "no driver for the browser: {cause:#}");
        eprintln!("WARNING: no driver for the browser: {cause:#}; tests of the pages will be skipped");
    }
    let saml = crate::saml_clients::install(project);
    if let Err(cause) = &saml {
        ensure!(!strict, "no identity providers for SAML: {cause:#}");
        eprintln!("WARNING: no identity providers for SAML: {cause:#}");
    }
    let providers = oidc_provider.is_ok() && saml.is_ok();
    let complete = strict || left.is_empty() && old_kubectl.is_ok() && providers && pages.is_ok();
    eprintln!("{}", if complete { "all there" } else { "not all there: this is no full check" });
    Ok(Clients { complete, old_kubectl: old_kubectl.ok() })
}

fn missing() -> Vec<&'static str> {
    PROGRAMS.iter().map(|(program, _)| *program).filter(|program| find(program).is_none()).collect()
}

fn packages(programs: &[&str]) -> Vec<&'static str> {
    let of = |program: &&str| PROGRAMS.iter().find(|(name, _)| name == program).map(|(_, package)| *package);
    let mut packages: Vec<_> = programs.iter().filter_map(of).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    // Debian keeps the server's programs of each version of PostgreSQL apart.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let dirs = dirs.chain(versions.map(|version| version.path().join("bin")));
    dirs.map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

fn may_install() -> bool {
    // The owner of a process's own directory in /proc is its effective user.
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    root && find("apt-get").is_some()
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let _no_services = PolicyRc::forbid_starting()?;
    let mut simulated = apt_get();
    let known = simulated.args(["install", "--simulate"]).args(packages).stdout(Stdio::null()).stderr(Stdio::null());
    if !known.status().is_ok_and(|status| status.success()) {
        step::run(apt_get().args(["update", "-qq"]))?;
    }
    if step::run(apt_get().args(["install", "-qq", "-y", "--no-install-recommends"]).args(packages)).is_ok() {
        return Ok(());
    }
    // The lists may name versions that the mirror no longer has.
    step::run(apt_get().args(["update", "-qq"]))?;
    step::run(apt_get().args(["install", "-qq", "-y", "--no-install-recommends"]).args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1").stdin(Stdio::null());
    command.arg("-o=Dpkg::Use-Pty=0");
    command
}

/// While this lives, packages start no service (Debian's `policy-rc.d`: exit code 101 is "forbidden").
/// A policy that the machine has already is left as it is.
struct PolicyRc {
    ours: bool,
}

impl PolicyRc {
    const PATH: &str = "/usr/sbin/policy-rc.d";

    fn forbid_starting() -> anyhow::Result<Self> {
        let file = fs::File::options().write(true).create_new(true).mode(0o755).open(Self::PATH);
        match file {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")?;
                Ok(Self { ours: true })
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(cause) => Err(cause).with_context(|| format!("{} cannot be written", Self::PATH)),
        }
    }
}

impl Drop for PolicyRc {
    fn drop(&mut self) {
        if self.ours
            && let Err(cause) = fs::remove_file(Self::PATH)
        {
            eprintln!("WARNING: {} is left behind, remove it: {cause}", Self::PATH);
        }
    }
}

/// The OpenID provider that tests log in by: installed from npm, in the versions of its lock file, beside the build.
fn oidc_provider(project: &Project) -> anyhow::Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/providers/oidc");
    let directory = project.target().join("clients/oidc");
    fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let mut changed = !directory.join("node_modules/oidc-provider").is_dir();
    for name in ["package.json", "package-lock.json", "provider.mjs"] {
        let (wanted, there) = (fs::read(from.join(name))?, fs::read(directory.join(name)).ok());
        changed |= name == "package-lock.json" && there.as_ref() != Some(&wanted);
        if there.as_ref() != Some(&wanted) {
            fs::write(directory.join(name), wanted)?;
        }
    }
    if !changed {
        return Ok(());
    }
    let npm = find("npm").context("npm is not here to install it")?;
    step::run(Command::new(npm).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&directory))
}

/// A kubectl that upgrades by SPDY: the one in `REMOTELER_TEST_KUBECTL_OLD`, else the installed one if it is old enough, else
/// that of Debian's package, unpacked beside the build.
fn old_kubectl(project: &Project) -> anyhow::Result<PathBuf> {
    let given = env::var_os("REMOTELER_TEST_KUBECTL_OLD").map(PathBuf::from);
    let directory = project.target().join("clients");
    let unpacked = directory.join("kubernetes-client/usr/bin/kubectl");
    for kubectl in given.into_iter().chain(find("kubectl")).chain([unpacked.clone()]) {
        if speaks_spdy(&kubectl) {
            return Ok(kubectl);
        }
    }
    for tool in ["apt-get", "dpkg"] {
        ensure!(find(tool).is_some(), "{tool} is not here to fetch one; name one in REMOTELER_TEST_KUBECTL_OLD");
    }
    fetch_old_kubectl(&directory)?;
    ensure!(
        speaks_spdy(&unpacked),
        "this release's package kubernetes-client is too new or has no {}",
        unpacked.display()
    );
    Ok(unpacked)
}

fn fetch_old_kubectl(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let download = || {
        // apt's own user could not write here, and says so; nothing needs that user's protection.
        step::run(
            apt_get()
                .args(["download", "-qq", "-o", "APT::Sandbox::User=root", "kubernetes-client"])
                .current_dir(directory),
        )
    };
    if let Err(cause) = download() {
        if !may_install() {
            return Err(cause);
        }
        step::run(apt_get().args(["update", "-qq"]))?;
        download()?;
    }
    let is_package = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("kubernetes-client_") && name.ends_with(".deb")
    };
    let packages = fs::read_dir(directory)?.filter_map(Result::ok).map(|entry| entry.path());
    let Some(package) = packages.filter(is_package).max() else { bail!("apt-get fetched no package") };
    step::run(Command::new("dpkg").arg("-x").arg(&package).arg(directory.join("kubernetes-client")))?;
    fs::remove_file(&package).with_context(|| format!("{} cannot be removed", package.display()))
}

fn speaks_spdy(kubectl: &Path) -> bool {
    let output = Command::new(kubectl).args(["version", "--client", "--output=json"]).stderr(Stdio::null()).output();
    let Ok(output) = output else { return false };
    minor_version(&output.stdout).is_some_and(|minor| minor < FIRST_WITH_WEBSOCKET)
}

/// Minor version of a kubectl 1.x by what `kubectl version --client --output=json` prints.
fn minor_version(printed: &[u8]) -> Option<u32> {
    let version: serde_json::Value = serde_json::from_slice(printed).ok()?;
    let version = version.get("clientVersion")?;
    // Distributions and clouds write such as "20+".
    let minor: String = version.get("minor")?.as_str()?.chars().take_while(char::is_ascii_digit).collect();
    (version.get("major")?.as_str()? == "1").then(|| minor.parse().ok())?
}

/// kubectl 1.29 was the first that could exec over WebSocket (KEP 4006).
const FIRST_WITH_WEBSOCKET: u32 = 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once() {
        assert_eq!(packages(&["scp", "ssh", "git"]), ["git", "openssh-client"]);
    }

    #[test]
    fn every_program_that_whole_cluster_tests_need_is_provided() {
        let known: Vec<_> = PROGRAMS.iter().map(|(program, _)| *program).collect();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tests");
        for entry in fs::read_dir(tests).unwrap() {
            let path = entry.unwrap().path();
            let source = if path.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            for list in source.split("need(&[").skip(1).filter_map(|rest| rest.split(']').next()) {
                for program in list.split('"').skip(1).step_by(2) {
                    assert!(known.contains(&program), "{} needs {program}", path.display());
                }
            }
        }
    }

    #[test]
    fn programs_are_found_outside_of_path_too_and_others_are_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn the_minor_version_of_a_kubectl_is_read() {
        let old = br#"{"clientVersion": {"major": "1", "minor": "20+", "gitVersion": "v1.20.2"}}"#;
        assert_eq!(minor_version(old), Some(20));
        assert_eq!(minor_version(b"{}"), None);
        assert_eq!(minor_version(b"error"), None);
    }

    #[test]
    fn tests_are_told_what_there_is() {
        let clients = Clients { complete: true, old_kubectl: Some("/k".into()) };
        let mut command = Command::new("true");
        clients.describe(&mut command);
        let set: Vec<_> = command.get_envs().filter_map(|(key, _)| key.to_str()).collect();
        assert_eq!(set, ["REMOTELER_FULL_CHECK", "REMOTELER_TEST_KUBECTL_OLD"]);
    }
}
