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
    use super::*;

    /// How much stack is used so deep down.
    fn descend(levels: usize) -> usize {
        let frame = std::hint::black_box([1_u8; 4096]);
        let below = if levels == 0 { 0 } else { descend(levels - 1) };
        below + frame.len()
    }

    // I25
    #[test]
    fn what_runs_there_has_the_stack_that_the_deepest_nesting_needs() {
        // Each level takes one to three times its frame, as the program was built: more than a thread has by default, and less than this one.
        let levels = SSH_PARSER_STACK / 4096 / 5;
        assert_eq!(on_parser_stack(|| descend(levels)).unwrap(), (levels + 1) * 4096);
    }

    #[test]
    fn what_it_returns_comes_back() {
        assert_eq!(on_parser_stack(|| Err::<(), _>("refused")).unwrap(), Err("refused"));
    }
}
