//! Octets of SFTP version 3: numbers, strings, attributes, and answers. Reads never past the packet; owns no files.

use std::{
    fs::Metadata,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// Longest packet, without its length, in either direction.
pub(crate) const MAX_PACKET: usize = 256 * 1024 + 1024;
/// Longest piece of a file in one packet.
pub(super) const MAX_DATA: usize = 256 * 1024;

pub(crate) mod request {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const EXTENDED: u8 = 200;
}

mod answer {
    pub(super) const VERSION: u8 = 2;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

mod flag {
    pub(super) const SIZE: u32 = 1;
    pub(super) const UID_GID: u32 = 2;
    pub(super) const PERMISSIONS: u32 = 4;
    pub(super) const TIMES: u32 = 8;
    pub(super) const EXTENDED: u32 = 0x8000_0000;
}

/// A packet does not hold what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub(crate) struct Malformed;

/// Reads a packet from front to back.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    pub(crate) fn octet(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        let (octets, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*octets))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        let (octets, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*octets))
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        let (octets, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(octets)
    }

    /// A path as the client names it; the empty one is the current directory, as in OpenSSH.
    pub(crate) fn path(&mut self) -> Result<&'a Path, Malformed> {
        let octets = self.string()?;
        if octets.contains(&0) {
            return Err(Malformed);
        }
        Ok(Path::new(std::ffi::OsStr::from_bytes(if octets.is_empty() { b"." } else { octets })))
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Malformed> {
        let flags = self.u32()?;
        let has = |flag| flags & flag != 0;
        let mut attributes = Attributes::default();
        if has(flag::SIZE) {
            attributes.size = Some(self.u64()?);
        }
        if has(flag::UID_GID) {
            attributes.owner = Some((self.u32()?, self.u32()?));
        }
        if has(flag::PERMISSIONS) {
            attributes.mode = Some(self.u32()?);
        }
        if has(flag::TIMES) {
            attributes.times = Some((self.u32()?, self.u32()?));
        }
        if has(flag::EXTENDED) {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(attributes)
    }
}

/// Attributes of a file, as far as they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Access and modification, seconds since the epoch.
    pub(super) times: Option<(u32, u32)>,
}

impl From<&Metadata> for Attributes {
    fn from(metadata: &Metadata) -> Self {
        let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
        Self {
            size: Some(metadata.size()),
            owner: Some((metadata.uid(), metadata.gid())),
            mode: Some(metadata.mode()),
            times: Some((seconds(metadata.atime()), seconds(metadata.mtime()))),
        }
    }
}

impl Attributes {
    fn write(self, out: &mut Vec<u8>) {
        let Self { size, owner, mode, times } = self;
        let given = [
            (size.is_some(), flag::SIZE),
            (owner.is_some(), flag::UID_GID),
            (mode.is_some(), flag::PERMISSIONS),
            (times.is_some(), flag::TIMES),
        ];
        let flags: u32 = given.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).sum();
        put_u32(out, flags);
        if let Some(size) = size {
            put_u64(out, size);
        }
        for number in owner.into_iter().flat_map(|(uid, gid)| [uid, gid]) {
            put_u32(out, number);
        }
        if let Some(mode) = mode {
            put_u32(out, mode);
        }
        for number in times.into_iter().flat_map(|(access, change)| [access, change]) {
            put_u32(out, number);
        }
    }
}

/// What a request is answered with.
#[derive(Debug)]
pub(super) enum Answer {
    Version(&'static [(&'static str, &'static str)]),
    Done,
    EndOfFile,
    Failed(Status, String),
    Handle(u32),
    Data(Vec<u8>),
    Names(Vec<Name>),
    Attributes(Attributes),
    /// Body of an extension's reply.
    Numbers(Vec<u64>),
}

/// One entry of a listing.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) long: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// `SSH_FX_*` of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self::Failed(Status::NoSuchFile, "No such file".into());
        }
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Self::Failed(Status::PermissionDenied, "Permission denied".into());
        }
        // Clients print the text; the number of the error means nothing to their users.
        let text = error.to_string();
        Self::Failed(Status::Failure, text.split(" (os error").next().unwrap_or_default().to_owned())
    }
}

impl From<rustix::io::Errno> for Answer {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<nix::Error> for Answer {
    fn from(error: nix::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<Malformed> for Answer {
    fn from(_: Malformed) -> Self {
        Self::Failed(Status::BadMessage, "Bad message".into())
    }
}

impl Answer {
    /// Adds the answer to request `id` to `out`, with its length in front.
    pub(super) fn write(self, id: u32, out: &mut Vec<u8>) {
        let start = out.len();
        put_u32(out, 0);
        match self {
            Self::Version(extensions) => {
                out.push(answer::VERSION);
                put_u32(out, 3);
                for (name, version) in extensions {
                    put_string(out, name.as_bytes());
                    put_string(out, version.as_bytes());
                }
            }
            Self::Done => put_status(out, id, 0, "Success"),
            Self::EndOfFile => put_status(out, id, 1, "End of file"),
            Self::Failed(status, text) => put_status(out, id, status as u32, &text),
            Self::Handle(handle) => {
                put_head(out, answer::HANDLE, id);
                put_string(out, &handle.to_be_bytes());
            }
            Self::Data(data) => {
                put_head(out, answer::DATA, id);
                put_string(out, &data);
            }
            Self::Names(names) => {
                put_head(out, answer::NAME, id);
                put_u32(out, length(names.len()));
                for entry in names {
                    put_string(out, &entry.name);
                    put_string(out, &entry.long);
                    entry.attributes.write(out);
                }
            }
            Self::Attributes(attributes) => {
                put_head(out, answer::ATTRS, id);
                attributes.write(out);
            }
            Self::Numbers(numbers) => {
                put_head(out, answer::EXTENDED_REPLY, id);
                numbers.into_iter().for_each(|number| put_u64(out, number));
            }
        }
        let octets = length(out.len() - start - 4).to_be_bytes();
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&octets);
        }
    }
}

fn length(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, octets: &[u8]) {
    put_u32(out, length(octets.len()));
    out.extend_from_slice(octets);
}

fn put_head(out: &mut Vec<u8>, kind: u8, id: u32) {
    out.push(kind);
    put_u32(out, id);
}

fn put_status(out: &mut Vec<u8>, id: u32, code: u32, text: &str) {
    put_head(out, answer::STATUS, id);
    put_u32(out, code);
    put_string(out, text.as_bytes());
    put_string(out, b"en");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let attributes =
            Attributes { size: Some(1 << 40), owner: Some((1, 2)), mode: Some(0o100_644), times: Some((3, 4)) };
        let mut octets = Vec::new();
        attributes.write(&mut octets);
        assert_eq!(Fields::new(&octets).attributes().unwrap(), attributes);
    }

    #[test]
    fn a_string_longer_than_its_packet_is_malformed() {
        assert_eq!(Fields::new(&[0xff, 0xff, 0xff, 0xff, 1]).string(), Err(Malformed)); // I22
    }
}
