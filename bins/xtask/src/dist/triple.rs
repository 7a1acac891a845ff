//! The architectures that are built for, and what their compilers are called.

use std::{env, fmt, path::Path, process::Command};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::elf;
use crate::step;

/// An architecture of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// Servers and PCs
    #[value(name = "x86_64")]
    X86_64,
    /// Boards, phones, some servers
    Aarch64,
}

impl Arch {
    /// musl, so that a program runs on whatever Linux there is.
    pub(super) const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    pub(super) const fn machine(self) -> u16 {
        match self {
            Self::X86_64 => elf::X86_64,
            Self::Aarch64 => elf::AARCH64,
        }
    }

    /// The compiler of the C that is in ring, and the linker. No C library is taken from it: none of what is packed has C that needs one.
    pub(super) fn environment(self) -> Vec<(String, String)> {
        let compiler = match (self, env::consts::ARCH) {
            (Self::X86_64, "x86_64") | (Self::Aarch64, "aarch64") => "cc",
            (Self::X86_64, _) => "x86_64-linux-gnu-gcc",
            (Self::Aarch64, _) => "aarch64-linux-gnu-gcc",
        };
        let name = self.triple().replace('-', "_");
        vec![
            (format!("CC_{name}"), compiler.to_owned()),
            (format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler.to_owned()),
        ]
    }

    /// Makes the standard library of this target be there, and says which compiler is missing.
    pub(super) fn provide(self) -> anyhow::Result<()> {
        for (_, compiler) in self.environment() {
            let there = env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| is_file(&dir, &compiler));
            ensure!(
                there,
                "{compiler} is not installed, which {self} needs; on Debian: apt-get install gcc-{}",
                self.debian()
            );
        }
        let listed = Command::new("rustup").args(["target", "list", "--installed"]).output();
        let listed = listed.context("rustup does not start; it brings the standard library of other targets")?;
        if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == self.triple()) {
            return Ok(());
        }
        step::run(Command::new("rustup").args(["target", "add", self.triple()]))
    }

    const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

fn is_file(dir: &Path, name: &str) -> bool {
    dir.join(name).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_compiler_and_linker_of_the_very_target() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let names: Vec<String> = arch.environment().into_iter().map(|(name, _)| name).collect();
            let upper = arch.triple().to_uppercase().replace('-', "_");
            assert_eq!(names, [format!("CC_{}", upper.to_lowercase()), format!("CARGO_TARGET_{upper}_LINKER")]);
        }
    }
}
