//! Every input of the fuzz corpora goes through its target's function, without a fuzzer: what was found once stays found.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the library of the fuzz targets")]
mod targets;

// I25
#[test]
fn every_input_of_the_corpora_keeps_its_targets_promises() {
    for (name, target) in targets::TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() >= 3, "the corpus of {name} has {} inputs", inputs.len());
        for (path, octets) in inputs {
            let outcome = std::panic::catch_unwind(|| target(&octets));
            assert!(outcome.is_ok(), "{path} breaks a promise of {name}");
        }
    }
}

#[test]
fn every_target_of_the_library_is_a_target_of_the_fuzzer_and_has_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in targets::TARGETS {
        let source = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("remoteler_fuzz::{name}(")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
    }
    let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    for entry in std::fs::read_dir(fuzz.join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "nobody reads the corpus {name}");
    }
}

fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|cause| panic!("{}: {cause}", dir.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}
