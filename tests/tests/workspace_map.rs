//! The map of the house, held against what cargo resolves: which crate may see which, what an agent must not contain, one
//! version of what must be one, and the licences of everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Every package of the workspace that is shipped, and those of ours it may depend on.
const MAP: &[(&str, &[&str])] = &[
    ("remoteler-core", &[]),
    ("remoteler-ca", &["remoteler-core"]),
    ("remoteler-auth", &["remoteler-core", "remoteler-ca"]),
    ("remoteler-tunnel", &["remoteler-core"]),
    ("remoteler-ssh", &["remoteler-core", "remoteler-tunnel"]),
    ("remoteler-kube", &["remoteler-core", "remoteler-tunnel"]),
    ("remoteler-app", &["remoteler-core", "remoteler-tunnel"]),
    ("remoteler-client", &["remoteler-core", "remoteler-tunnel"]),
    (
        "remoteler",
        &[
            "remoteler-core",
            "remoteler-ca",
            "remoteler-auth",
            "remoteler-tunnel",
            "remoteler-ssh",
            "remoteler-kube",
            "remoteler-app",
            "remoteler-client",
        ],
    ),
    ("tsh", &["remoteler-core", "remoteler-tunnel", "remoteler-ssh", "remoteler-client"]),
    ("tctl", &["remoteler-core", "remoteler-tunnel", "remoteler-client"]),
    ("xtask", &[]),
];

/// Packages that try the others and are not shipped; they may see all of them.
const OUTSIDE: &[&str] = &["remoteler-tests", "remoteler-examples", "remoteler-benches"];

/// What an agent is made of.
const AGENT: &[&str] = &["remoteler-core", "remoteler-tunnel", "remoteler-client", "remoteler-ssh", "remoteler-kube"];

/// What must not be in an agent: the database, the auth service and its pages, and what speaks to tokens.
const NOT_IN_AN_AGENT: &[&str] =
    &["remoteler-auth", "remoteler-ca", "rusqlite", "libsqlite3-sys", "axum", "utoipa", "cryptoki"];

/// Two versions of one of these would be two TLS stacks, two crypto providers, or types that do not fit each other.
const ONLY_ONE: &[&str] = &["rustls", "ring", "ssh-key", "russh"];

/// Second TLS stacks and crypto providers.
const NOT_AT_ALL: &[&str] = &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

#[test]
fn every_package_is_on_the_map() {
    let metadata = metadata();
    let known: BTreeSet<_> = MAP.iter().map(|(name, _)| *name).chain(OUTSIDE.iter().copied()).collect();
    let found: BTreeSet<_> = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    assert_eq!(found, known.iter().map(ToString::to_string).collect());
}

#[test]
fn arrows_between_our_crates_point_only_where_the_map_says() {
    let metadata = metadata();
    for (name, allowed) in MAP {
        let package = package(&metadata, name);
        let wrong: Vec<_> =
            ours(package, &metadata).into_iter().filter(|seen| !allowed.contains(&seen.as_str())).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}; the map allows {allowed:?}");
    }
}

#[test]
fn crates_of_one_protocol_never_import_each_other() {
    let metadata = metadata();
    let siblings = ["remoteler-ssh", "remoteler-kube", "remoteler-app"];
    for name in siblings {
        let seen = closure(&metadata, &[name]);
        let others: Vec<_> = siblings.iter().filter(|other| **other != name && seen.contains(**other)).collect();
        assert!(others.is_empty(), "{name} reaches {others:?}");
    }
}

#[test]
fn only_the_daemon_depends_on_the_auth_service() {
    let metadata = metadata();
    for (name, _) in MAP.iter().filter(|(name, _)| !["remoteler", "remoteler-auth"].contains(name)) {
        assert!(!closure(&metadata, &[name]).contains("remoteler-auth"), "{name} reaches remoteler-auth");
    }
}

#[test]
fn an_agent_contains_no_database_no_auth_service_and_no_web_pages() {
    let seen = closure(&metadata(), AGENT);
    let heavy: Vec<_> = NOT_IN_AN_AGENT.iter().filter(|name| seen.contains(**name)).collect();
    assert!(heavy.is_empty(), "an agent of {AGENT:?} contains {heavy:?}");
}

#[test]
fn the_daemon_built_as_an_agent_contains_none_of_that_either() {
    let packages = |features: &[&str]| {
        let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["tree", "--package", "remoteler", "--locked", "--edges", "normal", "--prefix", "none"]);
        let output = command.args(["--format", "{p}"]).args(features).current_dir(root()).output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("cargo prints text");
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (whole, agent) = (packages(&[]), packages(&["--no-default-features"]));
    for name in ["remoteler-auth", "rusqlite", "cryptoki"] {
        assert!(whole.contains(name), "{name} is not in {whole:?}");
    }
    let heavy: Vec<_> = NOT_IN_AN_AGENT.iter().filter(|name| agent.contains(**name)).collect();
    assert!(heavy.is_empty(), "built as an agent it contains {heavy:?}");
}

#[test]
fn there_is_one_tls_stack_one_crypto_provider_and_one_ssh_implementation() {
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in &metadata.packages {
        versions.entry(package.name.as_str()).or_default().insert(package.version.to_string());
    }
    for name in ONLY_ONE {
        let found = versions.get(name).cloned().unwrap_or_default();
        assert!(found.len() <= 1, "{name} is in the tree in versions {found:?}");
    }
    let refused: Vec<_> = NOT_AT_ALL.iter().filter(|name| versions.contains_key(**name)).collect();
    assert!(refused.is_empty(), "the tree contains {refused:?}");
}

#[test]
fn everything_has_a_licence_of_the_list() {
    let (allowed, excepted) = (allowed_licences(), excepted_licences());
    assert!(allowed.contains("MIT") && allowed.contains("Apache-2.0"), "deny.toml allows {allowed:?}");
    let may = |package: &Package| {
        let licence = package.license.as_deref();
        licence.is_some_and(|licence| {
            permits(licence, &allowed) || excepted.get(package.name.as_str()).is_some_and(|own| own == licence)
        })
    };
    let metadata = metadata();
    let refused: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| !may(package))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert!(refused.is_empty(), "not of the list in deny.toml: {refused:#?}");
}

#[test]
fn our_own_crates_are_under_both_licences_and_both_texts_are_there() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        assert_eq!(package.license.as_deref(), Some("MIT OR Apache-2.0"), "{}", package.name);
        assert!(package.rust_version.is_some(), "{} says no rust-version", package.name);
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(root().join(file).is_file(), "{file} is missing");
    }
}

#[test]
fn a_licence_expression_is_met_only_by_what_is_on_the_list() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
    for met in [
        "MIT",
        "MIT/GPL-3.0",
        "GPL-3.0 OR MIT",
        "MIT AND ISC",
        "(GPL-2.0 OR ISC) AND MIT",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(permits(met, &allowed), "{met}");
    }
    for not_met in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "GPL-3.0 OR (MIT AND MPL-2.0)", "", "MIT OR"] {
        assert!(!permits(not_met, &allowed), "{not_met}");
    }
}

/// What cargo resolves for the platform this runs on.
fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).features(CargoOpt::AllFeatures);
    command.other_options(["--locked".to_owned(), "--filter-platform".to_owned(), host()]);
    command.exec().expect("cargo metadata answers")
}

/// The target that this toolchain builds for.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("rustc prints text");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc says its host").to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a package of the workspace").to_owned()
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    let found = metadata.workspace_packages().into_iter().find(|package| package.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in the workspace"))
}

/// Names of our crates among the dependencies of `package`, for use and for building.
fn ours(package: &Package, metadata: &Metadata) -> BTreeSet<String> {
    let members: BTreeSet<_> = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let shipped = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    shipped.map(|dependency| dependency.name.clone()).filter(|name| members.contains(name)).collect()
}

/// Names of all packages that end up in a program made of `roots`, themselves included: normal dependencies only.
fn closure(metadata: &Metadata, roots: &[&str]) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("cargo resolved");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut queue: Vec<&PackageId> = roots.iter().map(|name| &package(metadata, name).id).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if !seen.insert(id) {
            continue;
        }
        let normal = nodes[id]
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        queue.extend(normal.map(|dependency| &dependency.pkg));
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

/// The list `allow` of `deny.toml`'s `[licenses]`, so that there is one list.
fn allowed_licences() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let (_, section) = text.split_once("[licenses]").expect("deny.toml has licences");
    let (_, list) = section.split_once("allow = [").expect("there is a list");
    let (list, _) = list.split_once(']').expect("the list ends");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The one licence that a package has beyond the list, by package: `exceptions` of `deny.toml`'s `[licenses]`.
fn excepted_licences() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let (_, list) = text.split_once("exceptions = [").expect("there is a list");
    let (list, _) = list.split_once("\n]").expect("the list ends");
    let lines = list.lines().map(|line| line.split('"').collect::<Vec<_>>());
    let pairs = lines.filter_map(|parts| Some(((*parts.get(3)?).to_owned(), (*parts.get(1)?).to_owned())));
    pairs.collect()
}

/// Whether the SPDX expression can be met with licences of `allowed`. The old `A/B` is read as `A OR B`.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed) == Some(true) && rest.is_empty()
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = both(words, allowed)?;
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= both(words, allowed)?;
    }
    Some(met)
}

fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = either(words, allowed)?;
            let [")", rest @ ..] = *words else { return None };
            *words = rest;
            Some(met)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(*licence))
        }
        [] => None,
    }
}
