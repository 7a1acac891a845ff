//! `cargo xtask dist`: static programs for Linux in archives with checksums, of each architecture agents run on. Owns what goes into an archive
//! and the directory `target/dist`; where it is published is nobody's business here.

mod elf;
mod triple;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use clap::Args;

use crate::{
    project::Project,
    step::{self, Steps},
};

pub(crate) use self::triple::Arch;

/// Flags of `dist`.
#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// Architectures; all when none is named
    #[arg(long, value_enum)]
    arch: Vec<Arch>,
    /// Only the agent, without tsh and tctl
    #[arg(long)]
    agent_only: bool,
    /// Lets the agent that was built for arm64 take part in a cluster of this machine's programs, under qemu-user
    #[arg(long)]
    test: bool,
}

/// Builds, packs, and tries.
pub(crate) fn dist(args: &DistArgs) -> anyhow::Result<()> {
    let project = Project::load()?;
    let mut steps = Steps::default();
    let archs = if args.arch.is_empty() { vec![Arch::X86_64, Arch::Aarch64] } else { args.arch.clone() };
    ensure!(!args.test || archs.contains(&Arch::Aarch64), "--test runs the agent for aarch64: name it with --arch too");
    let out = project.target().join("dist");
    fs::create_dir_all(&out).with_context(|| format!("{} cannot be made", out.display()))?;
    let mut archives = Vec::new();
    for arch in archs {
        steps.run(&format!("programs for {arch}"), || {
            arch.provide()?;
            let agent = build_agent(&project, arch)?;
            archives.push(pack(&project, &out, "remoteler-agent", arch, &[agent])?);
            if !args.agent_only {
                let tools = build_tools(&project, arch)?;
                archives.push(pack(&project, &out, "remoteler-tools", arch, &tools)?);
            }
            Ok(())
        })?;
    }
    steps.run("checksums", || checksums(&out, &archives))?;
    if args.test {
        if !args.agent_only {
            let build = ["build", "--workspace", "--release", "--bins"];
            steps.command("release build", &mut project.cargo(&build))?;
        }
        let mut test = project.cargo(&["test", "--workspace", "--test", "packaged_agent", "--", "--nocapture"]);
        test.env("REMOTELER_BIN_DIR", project.bin_dir());
        test.env("REMOTELER_AARCH64_AGENT", program(&project, Arch::Aarch64, "remoteler"));
        steps.command("the arm64 agent in a cluster", &mut test)?;
    }
    steps.report();
    for archive in archives {
        println!("{}", archive.display());
    }
    Ok(())
}

/// The daemon as an agent: a node, a Kubernetes service and an app service, without auth service, proxy and database.
fn build_agent(project: &Project, arch: Arch) -> anyhow::Result<PathBuf> {
    build(project, arch, &["-p", "remoteler", "--no-default-features", "--features", "kube,app"])?;
    static_program(project, arch, "remoteler")
}

fn build_tools(project: &Project, arch: Arch) -> anyhow::Result<[PathBuf; 2]> {
    build(project, arch, &["-p", "tsh", "-p", "tctl"])?;
    Ok([static_program(project, arch, "tsh")?, static_program(project, arch, "tctl")?])
}

/// In a target directory of its own, so that no program takes the place of one that was built otherwise.
fn build(project: &Project, arch: Arch, what: &[&str]) -> anyhow::Result<()> {
    let mut command = project.cargo(&["build", "--profile", "dist", "--locked", "--target", arch.triple()]);
    command.args(what).arg("--target-dir").arg(project.packages());
    for (name, value) in arch.environment() {
        command.env(name, value);
    }
    step::run(&mut command)
}

fn program(project: &Project, arch: Arch, name: &str) -> PathBuf {
    project.packages().join(arch.triple()).join("dist").join(name)
}

/// The program, which must need nothing of the system that it will run on.
fn static_program(project: &Project, arch: Arch, name: &str) -> anyhow::Result<PathBuf> {
    let path = program(project, arch, name);
    let content = fs::read(&path).with_context(|| format!("{} was not built", path.display()))?;
    let found = elf::examine(&content).with_context(|| format!("{} is no program for Linux", path.display()))?;
    ensure!(found.machine == arch.machine(), "{} is for machine {}, not for {arch}", path.display(), found.machine);
    ensure!(!found.interpreted, "{} is not static: it asks for a loader of the system", path.display());
    Ok(path)
}

/// Programs and licences in `NAME-VERSION-linux-ARCH.tar.gz`. The same programs make the same archive, octet for octet.
fn pack(project: &Project, out: &Path, name: &str, arch: Arch, programs: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let top = format!("{name}-{}-linux-{arch}", env!("CARGO_PKG_VERSION"));
    let stage = out.join(&top);
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("{} cannot be emptied", stage.display()))?;
    }
    fs::create_dir_all(&stage)?;
    let others = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"].map(|file| project.root().join(file));
    for file in programs.iter().chain(&others) {
        let name = file.file_name().unwrap_or(OsStr::new("file"));
        fs::copy(file, stage.join(name)).with_context(|| format!("{} cannot be copied", file.display()))?;
    }
    let archive = out.join(format!("{top}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=go-w"]);
    // Without its own time and name, gzip's output too is what went in and nothing else.
    tar.args(["--use-compress-program", "gzip -9n", "-cf"]).arg(&archive).arg("-C").arg(out).arg(&top);
    step::run(&mut tar)?;
    fs::remove_dir_all(&stage)?;
    Ok(archive)
}

/// `SHA256SUMS`, as sha256sum writes and checks it.
fn checksums(out: &Path, archives: &[PathBuf]) -> anyhow::Result<()> {
    let names: Vec<_> = archives.iter().filter_map(|archive| archive.file_name()).collect();
    let summed =
        Command::new("sha256sum").args(&names).current_dir(out).output().context("sha256sum does not start")?;
    ensure!(summed.status.success(), "sha256sum failed: {}", String::from_utf8_lossy(&summed.stderr).trim());
    fs::write(out.join(SUMS), summed.stdout)?;
    step::run(Command::new("sha256sum").args(["--check", "--strict", SUMS]).current_dir(out))
}

const SUMS: &str = "SHA256SUMS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_programs_make_the_same_archive_and_its_checksum_is_that_of_sha256sum() {
        let out = std::env::temp_dir().join(format!("remoteler-dist-{}", std::process::id()));
        let project = Project::load().unwrap();
        let program = std::env::current_exe().unwrap();
        let packed = |name: &str| {
            let out = out.join(name);
            fs::create_dir_all(&out).unwrap();
            let archive = pack(&project, &out, "remoteler-agent", Arch::Aarch64, std::slice::from_ref(&program));
            let archive = archive.unwrap();
            checksums(&out, std::slice::from_ref(&archive)).unwrap();
            (fs::read(&archive).unwrap(), fs::read_to_string(out.join(SUMS)).unwrap())
        };

        let (first, second) = (packed("first"), packed("second"));

        fs::remove_dir_all(&out).unwrap();
        assert!(first == second, "two archives of the same program differ");
        let name = format!("remoteler-agent-{}-linux-aarch64.tar.gz", env!("CARGO_PKG_VERSION"));
        assert!(first.1.trim().ends_with(&name) && first.1.len() == 64 + 2 + name.len() + 1, "{}", first.1);
    }
}
