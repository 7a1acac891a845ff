//! Looks at the header of a program: for which machine it is, and whether it needs a loader (ELF-64, System V ABI chapter 5).

use anyhow::{Context, ensure};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `e_machine`.
    pub(super) machine: u16,
    /// Whether there is a `PT_INTERP`: the system has to bring the loader, and with it its libraries.
    pub(super) interpreted: bool,
}

/// `EM_X86_64`.
pub(super) const X86_64: u16 = 62;
/// `EM_AARCH64`.
pub(super) const AARCH64: u16 = 183;

pub(super) fn examine(content: &[u8]) -> anyhow::Result<Found> {
    // Class 2 has 64 bits, order 1 is the least octet first: both of our machines.
    ensure!(content.starts_with(b"\x7fELF\x02\x01"), "it does not begin as a 64-bit little-endian ELF file");
    let table = usize::try_from(u64::from_le_bytes(at(content, 32)?)).context("its program headers are nowhere")?;
    let (size, count) = (u16::from_le_bytes(at(content, 54)?), u16::from_le_bytes(at(content, 56)?));
    let mut interpreted = false;
    for index in 0..usize::from(count) {
        let start = index.checked_mul(usize::from(size)).and_then(|offset| offset.checked_add(table));
        let kind = u32::from_le_bytes(at(content, start.context("its program headers are nowhere")?)?);
        interpreted |= kind == PT_INTERP;
    }
    Ok(Found { machine: u16::from_le_bytes(at(content, 18)?), interpreted })
}

fn at<const N: usize>(content: &[u8], start: usize) -> anyhow::Result<[u8; N]> {
    let end = start.checked_add(N).context("it is cut off")?;
    Ok(content.get(start..end).context("it is cut off")?.try_into()?)
}

const PT_INTERP: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_program_that_needs_a_loader() {
        let content = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = examine(&content).unwrap();
        assert!(found.interpreted);
        assert!([X86_64, AARCH64].contains(&found.machine), "{found:?}");
    }

    #[test]
    fn a_program_without_a_loader_is_told_from_one_with() {
        let mut content = vec![0; 64 + 56];
        content[..6].copy_from_slice(b"\x7fELF\x02\x01");
        content[18..20].copy_from_slice(&AARCH64.to_le_bytes());
        content[32] = 64;
        content[54] = 56;
        content[56] = 1;
        content[64] = 1; // PT_LOAD
        assert_eq!(examine(&content).unwrap(), Found { machine: AARCH64, interpreted: false });
        content[64] = 3;
        assert!(examine(&content).unwrap().interpreted);
    }

    #[test]
    fn what_is_cut_off_or_no_program_is_an_error() {
        for content in [&b""[..], b"#!/bin/sh", b"\x7fELF\x02\x01", &[&b"\x7fELF\x02\x01"[..], &[0xff; 58]].concat()] {
            assert!(examine(content).is_err(), "{content:?}");
        }
    }
}
