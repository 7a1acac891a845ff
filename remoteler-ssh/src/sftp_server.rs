//! The file subsystem: SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions, on standard input and output. Runs
//! as the user, in the user's home directory, so the kernel decides what may be touched; it holds no rights of its own.
//!
//! One thread, one request after another, answers written together when no more requests wait.

mod files;
mod listing;
pub(crate) mod wire;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::AsFd,
};

use crate::sftp_server::{
    files::Files,
    wire::{Fields, MAX_PACKET},
};

/// Serves SFTP on this process's standard streams until the input ends.
///
/// # Errors
/// The streams failed, or what came is no SFTP. Failures of single requests are answers, not errors.
pub fn sftp_serve_stdio() -> io::Result<()> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    serve(input, output)
}

/// Serves SFTP on any pair of streams.
fn serve(input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(INPUT_BUFFER, input);
    let mut files = Files::default();
    let mut request = Vec::new();
    let mut answers = Vec::new();
    while read_packet(&mut input, &mut request)? {
        files.answer(Fields::new(&request), &mut answers)?;
        if answers.len() >= OUTPUT_BUFFER || !has_packet(&input) {
            output.write_all(&answers)?;
            output.flush()?;
            answers.clear();
        }
    }
    Ok(())
}

/// Reads one packet without its length. `false` at the end of the input.
fn read_packet(input: &mut BufReader<impl Read>, packet: &mut Vec<u8>) -> io::Result<bool> {
    if input.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > MAX_PACKET {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("an SFTP packet of {length} octets is refused"),
        ));
    }
    packet.resize(length, 0);
    input.read_exact(packet)?;
    Ok(true)
}

/// Whether a whole packet is in the buffer already.
fn has_packet(input: &BufReader<impl Read>) -> bool {
    let waiting = input.buffer();
    let length = waiting.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
    length.is_some_and(|length| waiting.len() >= length.saturating_add(4))
}

const INPUT_BUFFER: usize = 256 * 1024;
const OUTPUT_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn converse(packets: &[Vec<u8>]) -> io::Result<Vec<u8>> {
        let mut input = Vec::new();
        for packet in packets {
            input.extend_from_slice(&u32::try_from(packet.len()).unwrap().to_be_bytes());
            input.extend_from_slice(packet);
        }
        let mut output = Vec::new();
        serve(input.as_slice(), &mut output).map(|()| output)
    }

    #[test]
    fn a_packet_longer_than_allowed_ends_the_conversation() {
        let error = serve([0xff_u8; 64].as_slice(), io::sink()).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn the_first_answer_is_version_three_with_extensions() {
        let answer = converse(&[vec![1, 0, 0, 0, 3]]).unwrap();
        assert_eq!(answer[4..9], [2, 0, 0, 0, 3]);
        assert!(String::from_utf8_lossy(&answer).contains("posix-rename@openssh.com"));
    }

    proptest! {
        // I25. Only kinds that read: what a fuzzer makes of the others would touch real files.
        #[test]
        fn no_packet_makes_it_panic(kind in prop_oneof![Just(4_u8), Just(5), Just(8), Just(12), Just(17), Just(200), 21_u8..=99],
                                    body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut packet = vec![kind];
            packet.extend(body);
            let _answer = converse(&[packet]);
        }
    }
}
