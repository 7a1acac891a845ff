//! Speaks SFTP on standard input and output, as the user who runs it: what an SSH server runs for the subsystem `sftp`.
//! Try it with `sftp -D target/debug/examples/sftp_server`.

fn main() -> std::process::ExitCode {
    match remoteler_ssh::sftp_serve_stdio() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sftp: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
