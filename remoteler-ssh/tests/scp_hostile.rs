//! A server that lies about names cannot make a download write outside its target.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use remoteler_ssh::{CopyError, CopyOptions, NoProgress, download, sftp_session};
use russh_sftp::protocol::{Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode, Version};

/// Serves one directory whose only entry has the given name, and for every file the same octets.
struct Liar {
    entry: String,
    listed: bool,
    read: bool,
}

fn attributes(directory: bool) -> FileAttributes {
    let mut attributes = FileAttributes::empty();
    attributes.permissions = Some(if directory { 0o040_755 } else { 0o104_777 });
    attributes.size = Some(5);
    attributes
}

impl russh_sftp::server::Handler for Liar {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn init(&mut self, _version: u32, _extensions: HashMap<String, String>) -> Result<Version, StatusCode> {
        Ok(Version::new())
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        if path.contains('*') {
            return Err(StatusCode::NoSuchFile);
        }
        Ok(Attrs { id, attrs: attributes(path.ends_with("dir")) })
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusCode> {
        Ok(Handle { id, handle: path })
    }

    async fn readdir(&mut self, id: u32, _handle: String) -> Result<Name, StatusCode> {
        if std::mem::replace(&mut self.listed, true) {
            return Err(StatusCode::Eof);
        }
        Ok(Name { id, files: vec![File::new(self.entry.clone(), attributes(false))] })
    }

    async fn open(
        &mut self,
        id: u32,
        path: String,
        _flags: OpenFlags,
        _attributes: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        self.read = false;
        Ok(Handle { id, handle: path })
    }

    async fn read(&mut self, id: u32, _handle: String, offset: u64, _len: u32) -> Result<Data, StatusCode> {
        if offset > 0 || std::mem::replace(&mut self.read, true) {
            return Err(StatusCode::Eof);
        }
        Ok(Data { id, data: b"evil!".to_vec() })
    }

    async fn close(&mut self, id: u32, _handle: String) -> Result<Status, StatusCode> {
        Ok(Status { id, status_code: StatusCode::Ok, error_message: String::new(), language_tag: String::new() })
    }
}

async fn download_of(entry: &str, source: &str, target: &std::path::Path) -> Result<(), CopyError> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    russh_sftp::server::run(far, Liar { entry: entry.to_owned(), listed: false, read: false }).await;
    let sftp = sftp_session(near).await.unwrap();
    let options = CopyOptions { recursive: true, preserve: true };
    download(&sftp, &[source.to_owned()], target, options, &mut NoProgress).await
}

// I63
#[tokio::test]
async fn names_that_lead_elsewhere_are_refused_before_anything_is_written() {
    for entry in ["../escaped", "/tmp/escaped", "..", "a/b", "a\\b", "a\0b", "a\nb", "", "\u{1b}]0;x\u{7}"] {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();

        let done = download_of(entry, "dir", &target).await;

        // The listing itself leaves `..` out.
        if entry != ".." {
            let error = done.unwrap_err();
            assert!(matches!(error, CopyError::UnsafeName(_)), "{entry:?}: {error}");
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}"); // I72
            assert!(std::fs::read_dir(&target).unwrap().next().is_none(), "{entry:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{entry:?}");
    }
}

// I63
#[tokio::test]
async fn a_wildcard_cannot_be_answered_with_a_name_that_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();

    let error = download_of("x/../../escaped", "dir/*", &target).await.unwrap_err();

    assert!(matches!(error, CopyError::UnsafeName(_) | CopyError::NoName(_)), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

// I64
#[tokio::test]
async fn setuid_and_setgid_bits_are_not_taken_over() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("file");

    download_of("", "somewhere/tool", &target).await.unwrap();

    assert_eq!(std::fs::read(&target).unwrap(), b"evil!");
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o7000, 0);
}
