//! Who is shown each checkpoint of the audit log: a file that only grows, or a server. Owns how a checkpoint is written there; a witness that is away is
//! shown the next one, which says all that the one before said.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::http::Poster;
use crate::config::WitnessPlace;

/// A witness.
pub(super) struct Witness {
    place: Place,
    /// What it was shown last.
    seen: String,
}

enum Place {
    File(PathBuf),
    Url(Poster),
}

impl Witness {
    pub(super) fn new(place: &WitnessPlace) -> anyhow::Result<Self> {
        let place = match place {
            WitnessPlace::File(path) => Place::File(path.clone()),
            WitnessPlace::Url(url) => Place::Url(Poster::new(url, None)?),
        };
        Ok(Self { place, seen: String::new() })
    }

    /// Shows it a checkpoint, unless it saw it already. What goes wrong is in the log.
    pub(super) async fn show(&mut self, note: &str) {
        if self.seen == note {
            return;
        }
        let shown = match &self.place {
            Place::File(path) => {
                let (path, name, line) = (path.clone(), path.display().to_string(), line(note));
                let written = tokio::task::spawn_blocking(move || append(&path, &line)).await;
                written.unwrap_or_else(|cause| Err(io::Error::other(cause))).map_err(|cause| format!("{name}: {cause}"))
            }
            Place::Url(poster) => poster.post("text/plain; charset=utf-8", note.as_bytes().to_vec()).await,
        };
        match shown {
            Ok(()) => note.clone_into(&mut self.seen),
            Err(cause) => tracing::warn!(cause, "a witness was not shown the checkpoint of the audit log"),
        }
    }
}

fn line(note: &str) -> String {
    format!("{}\n", serde_json::json!({ "checkpoint": note }))
}

/// Durable when it returns.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{super::http::tests::answer, *};

    #[tokio::test]
    async fn a_witness_file_has_each_checkpoint_once_on_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.jsonl");
        let mut witness = Witness::new(&WitnessPlace::File(path.clone())).unwrap();
        for note in ["a\n1\n", "a\n1\n", "a\n2\n"] {
            witness.show(note).await;
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert_eq!(kept, "{\"checkpoint\":\"a\\n1\\n\"}\n{\"checkpoint\":\"a\\n2\\n\"}\n");
    }

    #[tokio::test]
    async fn a_witness_with_a_url_that_was_away_is_shown_it_the_next_time_and_nothing_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/checkpoints", listener.local_addr().unwrap());
        let mut witness = Witness::new(&WitnessPlace::Url(url)).unwrap();
        for (status, note) in [("503 Service Unavailable", "a\n1\n"), ("200 OK", "a\n1\n"), ("200 OK", "a\n2\n")] {
            let ((), seen) = tokio::join!(witness.show(note), answer(&listener, status, note));
            assert!(seen.starts_with("POST /checkpoints HTTP/1.1\r\n"), "{seen}");
            assert!(seen.contains("content-type: text/plain; charset=utf-8\r\n"), "{seen}");
            assert!(seen.ends_with(&format!("\r\n\r\n{note}")), "{seen}");
            if status == "200 OK" {
                // Nobody answers it now: it would wait, and what it sends would be the next request.
                witness.show(note).await;
            }
        }
    }
}
