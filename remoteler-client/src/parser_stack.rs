//! A stack on which keys and certificates from elsewhere can be parsed. Owns the thread; knows nothing of what runs on it.

use std::io;

use remoteler_core::SSH_PARSER_STACK;

/// Runs `work` to its end on a thread with a stack of [`SSH_PARSER_STACK`], and returns what it returns.
///
/// The parser of SSH keys and certificates follows those that stand within others (I2), and a server that lies can send the deepest that
/// fit into an answer. A program's first thread has the stack that the shell gave it. A panic of `work` goes on in the caller.
///
/// # Errors
/// When the operating system gives no thread; `work` did not run.
pub fn on_parser_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(SSH_PARSER_STACK).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(done) => Ok(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use ssh_key::Certificate;

    use super::*;

    #[test]
    fn a_certificate_nested_as_deep_as_a_packet_allows_is_an_error_and_no_overflow() {
        // I2 I25: built inside out, each level the smallest that the parser follows.
        let string = |octets: &[u8]| [&u32::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat();
        let mut nested = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
        while nested.len() < 280 * 1024 {
            let head = [string(b"ssh-ed25519-cert-v01@openssh.com"), string(b""), string(&[7; 32])].concat();
            let middle = [[0; 8].as_slice(), &[0, 0, 0, 1], &[0; 8], &[0; 8], &[0xff; 8], &[0; 12]].concat();
            let signature = string(&[string(b"x@y"), string(b"1")].concat());
            nested = [head, middle, string(&nested), signature].concat();
        }
        let parsed = on_parser_stack(|| {
            let certificate = Certificate::from_bytes(&nested).unwrap();
            remoteler_core::ssh_identity(&certificate).is_err()
        });
        assert!(parsed.unwrap(), "it is nobody's");
    }
}
