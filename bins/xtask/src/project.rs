//! Where the workspace and its build results are, as cargo itself says.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context, bail};
use serde_json::Value;

/// The workspace.
#[derive(Debug)]
pub(crate) struct Project {
    root: PathBuf,
    target: PathBuf,
    examples: Vec<String>,
}

impl Project {
    /// Asks cargo about the workspace that this program was built from.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(&here)
            .output()
            .context("cargo metadata does not start")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::parse(&serde_json::from_slice(&output.stdout).context("cargo metadata did not print JSON")?)
    }

    fn parse(metadata: &Value) -> anyhow::Result<Self> {
        let path = |key: &str| {
            let path = metadata.get(key).and_then(Value::as_str);
            path.map(PathBuf::from).with_context(|| format!("cargo metadata has no {key}"))
        };
        let targets = list(metadata, "packages").iter().flat_map(|package| list(package, "targets"));
        let mut examples: Vec<String> = targets
            .filter(|target| list(target, "kind").iter().any(|kind| kind == "example"))
            .filter_map(|target| target.get("name").and_then(Value::as_str).map(str::to_owned))
            .collect();
        examples.sort();
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, examples })
    }

    /// A cargo command at the root of the workspace. In CI nothing is built incrementally: nothing is built twice there.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(args).current_dir(&self.root);
        if is_ci() {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    /// The root of the workspace.
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Where cargo builds to.
    pub(crate) fn target(&self) -> &std::path::Path {
        &self.target
    }

    /// Where release binaries are built to.
    pub(crate) fn bin_dir(&self) -> PathBuf {
        self.target.join("release")
    }

    /// Where packages and agents of other features are built to.
    pub(crate) fn packages(&self) -> PathBuf {
        self.target.join("packages")
    }

    /// Names of all examples.
    pub(crate) fn examples(&self) -> &[String] {
        &self.examples
    }
}

/// Whether nobody watches: `CI` is set and not `false`.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_and_directories_are_read_from_what_cargo_says() {
        let metadata = serde_json::json!({
            "workspace_root": "/w", "target_directory": "/t",
            "packages": [{ "targets": [{ "kind": ["lib"], "name": "x" }, { "kind": ["example"], "name": "join" }] }],
        });
        let project = Project::parse(&metadata).unwrap();
        assert_eq!(project.target(), "/t");
        assert_eq!(project.bin_dir(), PathBuf::from("/t/release"));
        assert_eq!(project.examples(), ["join"]);
    }

    #[test]
    fn an_answer_without_directories_is_an_error() {
        let cause = Project::parse(&serde_json::json!({})).unwrap_err();
        assert_eq!(cause.to_string(), "cargo metadata has no workspace_root");
    }
}
