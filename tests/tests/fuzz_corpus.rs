//! Every input of the fuzz corpora goes through its target's function, without a fuzzer: what was found once stays found. So do a few hundred
//! changes of each, drawn anew from a seed: a short run that needs no compiler of its own. `REMOTELER_FUZZ_ROUNDS` makes it longer and
//! `REMOTELER_FUZZ_SEED` another one.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::path::Path;

use remoteler_tests::Draw;

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

// I25
#[test]
fn changes_of_the_corpora_keep_the_targets_promises_too() {
    let setting = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (rounds, seed) = (setting("REMOTELER_FUZZ_ROUNDS", 200), setting("REMOTELER_FUZZ_SEED", 1));
    let run = move || {
        for (name, target) in targets::TARGETS {
            let corpus = inputs(name);
            for (at, (path, octets)) in corpus.iter().enumerate() {
                let mut draw = Draw::new(seed.wrapping_mul(1 << 32) ^ (at as u64 + 1));
                for _ in 0..rounds {
                    let (_, other) = &corpus[draw.below(corpus.len())];
                    let changed = changed(octets, other, &mut draw);
                    let outcome = std::panic::catch_unwind(|| target(&changed));
                    let shown = || changed.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
                    assert!(outcome.is_ok(), "a change of {path} breaks a promise of {name}, in hex: {}", shown());
                }
            }
        }
    };
    // As much stack as the programs have where they read what peers send.
    let thread = std::thread::Builder::new().stack_size(remoteler_core::SSH_PARSER_STACK).spawn(run).unwrap();
    assert!(thread.join().is_ok(), "see above");
}

fn changed(octets: &[u8], other: &[u8], draw: &mut Draw) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"', b'{', b'[', b'/', b'-', b' '];
    let mut changed = octets.to_vec();
    for _ in 0..=draw.below(4) {
        let (from, len) = (draw.below(changed.len()), 1 + draw.below(16));
        let to = (from + len).min(changed.len());
        match draw.below(6) {
            0 => {
                if let Some(octet) = changed.get_mut(from) {
                    *octet ^= 1 << draw.below(8);
                }
            }
            1 => {
                if let Some(octet) = changed.get_mut(from) {
                    *octet = TELLING[draw.below(TELLING.len())];
                }
            }
            2 => drop(changed.drain(from..to)),
            3 => {
                let piece = changed[from..to].to_vec();
                changed.splice(from..from, piece);
            }
            4 => changed.truncate(from),
            _ => {
                let begin = draw.below(other.len());
                let piece = other[begin..(begin + len).min(other.len())].to_vec();
                changed.splice(from..to, piece);
            }
        }
    }
    changed
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
