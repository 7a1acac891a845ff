//! What each SFTP request does. Owns the open handles; paths mean what they mean to the user's own programs.

use std::{
    collections::HashMap,
    fs::{self, File, ReadDir},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::User;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, StatVfs, StatVfsMountFlags, Timespec, Timestamps, Uid};

use super::{
    listing::Owners,
    wire::{Answer, Attributes, Fields, MAX_DATA, MAX_PACKET, Malformed, Name, Status, request},
};

/// Open files and directories of one conversation.
#[derive(Default)]
pub(super) struct Files {
    handles: HashMap<u32, Handle>,
    next: u32,
    owners: Owners,
}

enum Handle {
    File { file: File, append: bool },
    Directory { entries: ReadDir, path: PathBuf, dots: Vec<&'static [u8]> },
}

/// Failure answers are errors here, so that `?` works.
type Reply = Result<Answer, Answer>;

impl Files {
    /// Does what `packet` asks and adds the answer to `out`.
    ///
    /// # Errors
    /// The packet has no kind or number, so it cannot even be answered.
    pub(super) fn answer(&mut self, mut packet: Fields<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let head = |packet: &mut Fields<'_>| Ok::<_, Malformed>((packet.octet()?, packet.u32()?));
        let (kind, id) = head(&mut packet).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let answer = self.dispatch(kind, packet).unwrap_or_else(|failure| failure);
        answer.write(id, out);
        Ok(())
    }

    fn dispatch(&mut self, kind: u8, mut fields: Fields<'_>) -> Reply {
        let fields = &mut fields;
        match kind {
            request::INIT => Ok(Answer::Version(EXTENSIONS)),
            request::OPEN => self.open(fields.path()?, fields.u32()?, fields.attributes()?),
            request::CLOSE => {
                let handle = handle_number(fields)?;
                self.handles.remove(&handle).map(|_| Answer::Done).ok_or_else(no_handle)
            }
            request::READ => self.read(handle_number(fields)?, fields.u64()?, fields.u32()?),
            request::WRITE => self.write(handle_number(fields)?, fields.u64()?, fields.string()?),
            request::LSTAT => Ok(Answer::Attributes((&fs::symlink_metadata(fields.path()?)?).into())),
            request::STAT => Ok(Answer::Attributes((&fs::metadata(fields.path()?)?).into())),
            request::FSTAT => self.fstat(handle_number(fields)?),
            request::SETSTAT => set_path(fields.path()?, fields.attributes()?, Follow::Yes),
            request::FSETSTAT => self.fsetstat(handle_number(fields)?, fields.attributes()?),
            request::OPENDIR => self.open_dir(fields.path()?),
            request::READDIR => self.read_dir(handle_number(fields)?),
            request::REMOVE => Ok(fs::remove_file(fields.path()?).map(|()| Answer::Done)?),
            request::MKDIR => make_dir(fields.path()?, fields.attributes()?),
            request::RMDIR => Ok(fs::remove_dir(fields.path()?).map(|()| Answer::Done)?),
            request::REALPATH => Ok(one_name(&real_path(fields.path()?)?)),
            request::RENAME => rename_new(fields.path()?, fields.path()?),
            request::READLINK => Ok(one_name(&fs::read_link(fields.path()?)?)),
            request::SYMLINK => {
                // Target first: not as in the draft, but as in OpenSSH and everything that talks to it.
                let (target, link) = (fields.path()?, fields.path()?);
                Ok(std::os::unix::fs::symlink(target, link).map(|()| Answer::Done)?)
            }
            request::EXTENDED => self.extended(fields),
            _ => Err(unsupported()),
        }
    }

    fn extended(&mut self, fields: &mut Fields<'_>) -> Reply {
        match fields.string()? {
            b"posix-rename@openssh.com" => Ok(fs::rename(fields.path()?, fields.path()?).map(|()| Answer::Done)?),
            b"hardlink@openssh.com" => Ok(fs::hard_link(fields.path()?, fields.path()?).map(|()| Answer::Done)?),
            b"lsetstat@openssh.com" => set_path(fields.path()?, fields.attributes()?, Follow::No),
            b"statvfs@openssh.com" => Ok(statvfs(&rustix::fs::statvfs(fields.path()?)?)),
            b"fstatvfs@openssh.com" => {
                let number = handle_number(fields)?;
                Ok(statvfs(&rustix::fs::fstatvfs(self.file(number)?.0)?))
            }
            b"fsync@openssh.com" => {
                let number = handle_number(fields)?;
                Ok(self.file(number)?.0.sync_all().map(|()| Answer::Done)?)
            }
            b"expand-path@openssh.com" => Ok(one_name(&real_path(&expand(fields.path()?)?)?)),
            b"limits@openssh.com" => {
                let numbers = [MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES];
                Ok(Answer::Numbers(numbers.into_iter().map(|number| number as u64).collect()))
            }
            _ => Err(unsupported()),
        }
    }

    fn open(&mut self, path: &Path, flags: u32, attributes: Attributes) -> Reply {
        let has = |flag| flags & flag != 0;
        let access = match (has(open::READ), has(open::WRITE)) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (_, false) => OFlags::RDONLY,
        };
        let mut wanted = access | OFlags::CLOEXEC | OFlags::NOCTTY;
        wanted.set(OFlags::APPEND, has(open::APPEND));
        wanted.set(OFlags::CREATE, has(open::CREATE));
        wanted.set(OFlags::TRUNC, has(open::TRUNCATE));
        wanted.set(OFlags::EXCL, has(open::EXCLUSIVE));
        let mode = Mode::from_raw_mode(attributes.mode.unwrap_or(0o666) & 0o777);
        let file = File::from(rustix::fs::open(path, wanted, mode)?);
        self.keep(Handle::File { file, append: has(open::APPEND) })
    }

    fn open_dir(&mut self, path: &Path) -> Reply {
        let entries = fs::read_dir(path)?;
        self.keep(Handle::Directory { entries, path: path.to_owned(), dots: vec![b"..", b"."] })
    }

    fn keep(&mut self, handle: Handle) -> Reply {
        if self.handles.len() >= MAX_HANDLES {
            return Err(Answer::Failed(Status::Failure, "Too many open files".into()));
        }
        while self.handles.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.handles.insert(self.next, handle);
        Ok(Answer::Handle(self.next))
    }

    fn file(&self, number: u32) -> Result<(&File, bool), Answer> {
        match self.handles.get(&number) {
            Some(Handle::File { file, append }) => Ok((file, *append)),
            Some(Handle::Directory { .. }) | None => Err(no_handle()),
        }
    }

    fn read(&self, number: u32, offset: u64, count: u32) -> Reply {
        let (file, _) = self.file(number)?;
        let mut data = vec![0; (count as usize).min(MAX_DATA)];
        let mut filled = 0;
        // A short read is no end of file: clients that ask for a piece want the piece.
        while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(octets) => filled += octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        if filled == 0 && count > 0 {
            return Ok(Answer::EndOfFile);
        }
        data.truncate(filled);
        Ok(Answer::Data(data))
    }

    fn write(&self, number: u32, offset: u64, data: &[u8]) -> Reply {
        let (mut file, append) = self.file(number)?;
        if append {
            file.write_all(data)?
        } else {
            file.write_all_at(data, offset)?
        }
        Ok(Answer::Done)
    }

    fn fstat(&self, number: u32) -> Reply {
        let metadata = match self.handles.get(&number).ok_or_else(no_handle)? {
            Handle::File { file, .. } => file.metadata()?,
            Handle::Directory { path, .. } => fs::metadata(path)?,
        };
        Ok(Answer::Attributes((&metadata).into()))
    }

    fn fsetstat(&self, number: u32, attributes: Attributes) -> Reply {
        let file = match self.handles.get(&number).ok_or_else(no_handle)? {
            Handle::File { file, .. } => file,
            Handle::Directory { path, .. } => return set_path(path, attributes, Follow::Yes),
        };
        if let Some(size) = attributes.size {
            file.set_len(size)?;
        }
        if let Some(mode) = attributes.mode {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(times) = attributes.times {
            rustix::fs::futimens(file, &timestamps(times))?;
        }
        if let Some((uid, gid)) = attributes.owner {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(Answer::Done)
    }

    fn read_dir(&mut self, number: u32) -> Reply {
        let Some(Handle::Directory { entries, path, dots }) = self.handles.get_mut(&number) else {
            return Err(no_handle());
        };
        let mut names = Vec::new();
        while let Some(dot) = dots.pop() {
            let metadata = fs::symlink_metadata(path.join(std::ffi::OsStr::from_bytes(dot)));
            names.extend(metadata.ok().map(|metadata| entry(&mut self.owners, dot, &metadata)));
        }
        for found in entries.by_ref() {
            let found = found?;
            // Gone in the meantime: not there.
            let Ok(metadata) = found.metadata() else { continue };
            names.push(entry(&mut self.owners, found.file_name().as_bytes(), &metadata));
            if names.len() >= NAMES_AT_ONCE {
                break;
            }
        }
        Ok(if names.is_empty() { Answer::EndOfFile } else { Answer::Names(names) })
    }
}

fn entry(owners: &mut Owners, name: &[u8], metadata: &fs::Metadata) -> Name {
    Name { name: name.to_owned(), long: owners.line(name, metadata), attributes: metadata.into() }
}

fn one_name(path: &Path) -> Answer {
    let name = path.as_os_str().as_bytes().to_owned();
    Answer::Names(vec![Name { long: name.clone(), name, attributes: Attributes::default() }])
}

fn handle_number(fields: &mut Fields<'_>) -> Result<u32, Answer> {
    fields.string()?.try_into().map(u32::from_be_bytes).map_err(|_| no_handle())
}

fn no_handle() -> Answer {
    Answer::Failed(Status::Failure, "Invalid handle".into())
}

fn unsupported() -> Answer {
    Answer::Failed(Status::Unsupported, "Operation unsupported".into())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    Yes,
    No,
}

fn set_path(path: &Path, attributes: Attributes, follow: Follow) -> Reply {
    let flags = if follow == Follow::Yes { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    if let Some(size) = attributes.size {
        if follow == Follow::No {
            return Err(Answer::Failed(Status::Failure, "The size of a link cannot be set".into()));
        }
        fs::OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    if let Some(mode) = attributes.mode {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode & 0o7777), flags)?;
    }
    if let Some(times) = attributes.times {
        rustix::fs::utimensat(CWD, path, &timestamps(times), flags)?;
    }
    if let Some((uid, gid)) = attributes.owner {
        rustix::fs::chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)?;
    }
    Ok(Answer::Done)
}

fn timestamps((access, change): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Timestamps { last_access: at(access), last_modification: at(change) }
}

fn make_dir(path: &Path, attributes: Attributes) -> Reply {
    let mode = attributes.mode.unwrap_or(0o777) & 0o7777;
    Ok(fs::DirBuilder::new().mode(mode).create(path).map(|()| Answer::Done)?)
}

/// Rename that never replaces, as version 3 demands.
fn rename_new(old: &Path, new: &Path) -> Reply {
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Answer::Done),
        // File systems without the flag.
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(new).is_err() => {
            Ok(fs::rename(old, new).map(|()| Answer::Done)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The absolute path without links; its last part need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Err(error) };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        result => result,
    }
}

/// `~`, `~/path` and `~user/path`.
fn expand(path: &Path) -> Result<PathBuf, Answer> {
    let Some(rest) = path.as_os_str().as_bytes().strip_prefix(b"~") else { return Ok(path.to_owned()) };
    let end = rest.iter().position(|octet| *octet == b'/').unwrap_or(rest.len());
    let (name, below) = rest.split_at(end);
    let user = if name.is_empty() {
        User::from_uid(nix::unistd::Uid::effective())?
    } else {
        User::from_name(&String::from_utf8_lossy(name))?
    };
    let user = user.ok_or_else(|| Answer::Failed(Status::NoSuchFile, "No such user".into()))?;
    let below = below.strip_prefix(b"/").unwrap_or(below);
    Ok(if below.is_empty() { user.dir } else { user.dir.join(std::ffi::OsStr::from_bytes(below)) })
}

/// `struct statvfs` as OpenSSH's PROTOCOL file section 4.4 sends it.
fn statvfs(found: &StatVfs) -> Answer {
    let read_only = u64::from(found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let no_setuid = if found.f_flag.contains(StatVfsMountFlags::NOSUID) { 2 } else { 0 };
    Answer::Numbers(vec![
        found.f_bsize,
        found.f_frsize,
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_favail,
        found.f_fsid,
        read_only | no_setuid,
        found.f_namemax,
    ])
}

mod open {
    pub(super) const READ: u32 = 1;
    pub(super) const WRITE: u32 = 2;
    pub(super) const APPEND: u32 = 4;
    pub(super) const CREATE: u32 = 8;
    pub(super) const TRUNCATE: u32 = 0x10;
    pub(super) const EXCLUSIVE: u32 = 0x20;
}

const EXTENSIONS: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];
/// Files and directories open at once.
const MAX_HANDLES: usize = 512;
/// Entries of a directory in one packet.
const NAMES_AT_ONCE: usize = 100;
