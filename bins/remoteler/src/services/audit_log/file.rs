//! Events into a file of JSON lines, which is renamed when it is large: `audit.jsonl`, then `audit.jsonl.1`, the older the higher. Owns these files;
//! a batch is on disk when it counts as shipped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use remoteler_auth::{ShippedEvent, Shipper};

use super::lines;

/// Writes a file and its predecessors.
pub(super) struct FileShipper {
    path: PathBuf,
    max_size: u64,
    keep: u32,
}

impl FileShipper {
    pub(super) const fn new(path: PathBuf, max_size: u64, keep: u32) -> Self {
        Self { path, max_size, keep }
    }
}

#[async_trait]
impl Shipper for FileShipper {
    async fn ship(&mut self, batch: &[ShippedEvent]) -> Result<(), String> {
        let (path, max_size, keep, octets) = (self.path.clone(), self.max_size, self.keep, lines(batch));
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, max_size, keep, &octets)).await;
        match written {
            Ok(written) => written.map_err(|cause| format!("{shown} cannot be written: {cause}")),
            Err(_) => Err(format!("{shown} was not written: the process is ending")),
        }
    }
}

fn write(path: &Path, max_size: u64, keep: u32, octets: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    let size = file.metadata()?.len();
    if size > 0 && size.saturating_add(octets.len() as u64) > max_size {
        drop(file);
        rotate(path, keep)?;
        file = open(path)?;
    }
    // Opened anew each time: who renames or removes the file gets a new one. A line that a crash tore ends here.
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    file.write_all(octets)?;
    file.sync_data()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let older = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if keep == 0 {
        return fs::remove_file(path);
    }
    for number in (1..keep).rev() {
        match fs::rename(older(number), older(number + 1)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    fs::rename(path, older(1))
}

#[cfg(test)]
mod tests {
    use super::{super::events, *};

    #[tokio::test]
    async fn a_large_file_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut shipper = FileShipper::new(path.clone(), 100, 2);
        for number in 1..=10 {
            shipper.ship(&events(number * 2 - 1..=number * 2)).await.unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("audit.jsonl").ends_with("\"uid\":20}\n"));
        assert!(read("audit.jsonl.1").ends_with("\"uid\":18}\n") && read("audit.jsonl.2").ends_with("\"uid\":16}\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(read("audit.jsonl.1").lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[tokio::test]
    async fn a_line_that_was_torn_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        fs::write(&path, "{\"torn").unwrap();
        FileShipper::new(path.clone(), 1000, 2).ship(&events(1..=1)).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"torn\n{\"event\":\"user.login\",\"uid\":1}\n");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nowhere/audit.jsonl");
        let said = FileShipper::new(path, 1000, 2).ship(&events(1..=1)).await.unwrap_err();
        assert!(said.contains("nowhere/audit.jsonl cannot be written"), "{said}");
    }
}
