//! What runs in the pod: a real process in the double's directory, its streams as messages. Killed when nobody waits for it.

use std::{path::Path, process::Stdio};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::mpsc::{Receiver, Sender},
};

/// Channel numbers of the remote command protocol.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const CLOSE: u8 = 255;

/// Runs `command`; `input` ends when its senders are gone. Gives the `Status` that goes to the error stream.
pub(super) async fn run(
    command: &[String],
    directory: &Path,
    mut input: Receiver<Bytes>,
    output: Sender<(u8, Bytes)>,
) -> Value {
    let (program, arguments) = command.split_first().map_or(("true", &[] as &[String]), |(first, rest)| (first, rest));
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(cause) => {
            return json!({"metadata": {}, "status": "Failure", "reason": "InternalError",
                "message": format!("{program} did not start: {cause}"), "code": 500});
        }
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            while let Some(octets) = input.recv().await {
                if stdin.write_all(&octets).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await
    };
    let finish = async {
        tokio::join!(drain(stdout, STDOUT, &output), drain(stderr, STDERR, &output));
        child.wait().await
    };
    let status = tokio::select! { status = finish => status, () = feed => unreachable!("it never ends") };
    match status {
        Ok(status) if status.success() => json!({"metadata": {}, "status": "Success"}),
        Ok(status) => {
            let code = status.code().unwrap_or(137).to_string();
            json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "code": 500,
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
        }
        Err(cause) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": cause.to_string()})
        }
    }
}

async fn drain(from: Option<impl AsyncRead + Unpin>, channel: u8, output: &Sender<(u8, Bytes)>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if output.send((channel, Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}
