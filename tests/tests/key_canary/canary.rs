//! The private keys of a cluster, or of who is logged in, in every form in which they could lie somewhere, and the search for them. Owns what counts as "the key": half
//! of its octets in a row, as they are, in hex or in base64 of any alignment, and what signing with Ed25519 makes of them.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA512, digest};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use ssh_key::PrivateKey;

/// What is looked for.
pub(crate) struct Canary {
    forms: Vec<(String, Vec<u8>)>,
    /// Whether a form begins with these two octets: most places are passed over by it.
    begins: Vec<bool>,
}

impl Canary {
    /// The keys of both authorities and the one of identity tokens, read from the auth service's database while they lie there in the clear.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let database = Connection::open_with_flags(database(data_dir), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement = database.prepare("SELECT key, value FROM items WHERE key LIKE 'authorities/%'").unwrap();
        let records = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let mut forms = Vec::new();
        for record in records {
            let (of, value): (String, Vec<u8>) = record.unwrap();
            let record: Value = serde_json::from_slice(&value).unwrap();
            let active = &record["active"];
            for purpose in ["ssh_key", "x509_key", "key"].into_iter().filter(|purpose| !active[purpose].is_null()) {
                let name = format!("{of} {purpose}");
                let key = octets(active[purpose].as_str().expect("the key lies there in the clear"));
                forms.extend(written(&name, &key));
                if purpose == "ssh_key" {
                    // What ring keeps of an Ed25519 key (RFC 8032 section 5.1.5): the scalar but for its ends, and the prefix.
                    let expanded = digest(&SHA512, &key);
                    let (scalar, prefix) = expanded.as_ref().split_at(32);
                    forms.push((format!("{name}, its scalar"), scalar[1..31].to_vec()));
                    forms.push((format!("{name}, its prefix"), prefix.to_vec()));
                }
            }
        }
        assert_eq!(forms.len(), 5 * 12 + 2 * 2, "five keys were there");
        forms.extend(of_connectors(&database));
        assert_eq!(forms.len(), 5 * 12 + 2 * 2 + 2 + 2 * 2, "and what two connectors keep");
        Self::new(forms)
    }

    /// The keys of who is logged in, read from the files of the login below `home`.
    pub(crate) fn of_login(home: &Path) -> Self {
        let mut forms = Vec::new();
        for path in files(home) {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if let Ok(key) = PrivateKey::from_openssh(&text) {
                let pair = key.key_data().ed25519().expect("keys for SSH are Ed25519's");
                forms.extend(written("SSH key", &pair.private.to_bytes()));
            } else if text.starts_with("-----BEGIN PRIVATE KEY-----") {
                forms.extend(written("TLS key", &octets(&text)));
            }
        }
        assert_eq!(forms.len(), 2 * 12, "a login has two keys");
        Self::new(forms)
    }

    fn new(forms: Vec<(String, Vec<u8>)>) -> Self {
        let mut begins = vec![false; 1 << 16];
        for (_, form) in &forms {
            begins[pair(form)] = true;
        }
        Self { forms, begins }
    }

    /// Which form stands in there.
    pub(crate) fn found_in(&self, octets: &[u8]) -> Option<&str> {
        octets.windows(2).enumerate().find_map(|(at, two)| {
            if !self.begins[pair(two)] {
                return None;
            }
            let form = self.forms.iter().find(|(_, form)| octets[at..].starts_with(form))?;
            Some(form.0.as_str())
        })
    }

    /// Which form stands in the memory of a process that it can write to: its stacks, heaps, buffers.
    pub(crate) fn found_in_memory(&self, process: u32) -> Option<String> {
        let memory = File::open(format!("/proc/{process}/mem")).unwrap_or_else(|cause| panic!("{process}: {cause}"));
        let maps = File::open(format!("/proc/{process}/maps")).unwrap();
        let mut looked_at = 0;
        let mut found = None;
        for line in BufReader::new(maps).lines() {
            let line = line.unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            let (range, rights) = (words[0], words[1]);
            if !rights.starts_with("rw") || words.last().is_some_and(|name| name.starts_with("[vv")) {
                continue;
            }
            let (begin, end) = range.split_once('-').unwrap();
            let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
            let (mut at, end) = (number(begin), number(end));
            let mut piece = vec![0; PIECE];
            while at < end {
                let wanted = usize::try_from(end - at).unwrap().min(PIECE);
                // A part may be given back meanwhile.
                let read = memory.read_at(&mut piece[..wanted], at).unwrap_or(0);
                looked_at += read;
                found = found.or_else(|| self.found_in(&piece[..read]).map(str::to_owned));
                if read < wanted || read <= LONGEST {
                    break;
                }
                at += (read - if at + (read as u64) < end { LONGEST } else { 0 }) as u64;
            }
        }
        assert!(looked_at > 64 * 1024, "{process}: {looked_at} octets of memory were read");
        found
    }

    /// Files below a directory that have a form in them; those that `left_out` names are not looked at.
    pub(crate) fn files_with_it(&self, directory: &Path, left_out: &dyn Fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for path in files(directory) {
            let Ok(octets) = std::fs::read(&path) else { continue }; // a temporary one that is gone, a socket
            if !left_out(&path)
                && let Some(form) = self.found_in(&octets)
            {
                found.push((path, form.to_owned()));
            }
        }
        found
    }
}

/// Every file below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files
}

/// The auth service's database.
pub(crate) fn database(data_dir: &Path) -> PathBuf {
    let is_database = |path: &PathBuf| std::fs::read(path).is_ok_and(|octets| octets.starts_with(b"SQLite format 3"));
    files(data_dir).into_iter().find(is_database).expect("the auth service has a database")
}

/// What connectors keep secret: of a client's secret both halves, of the keys for SAML a piece.
fn of_connectors(database: &Connection) -> Vec<(String, Vec<u8>)> {
    let read = |key: &str| -> Value {
        let query = "SELECT value FROM items WHERE key = ?1";
        let value: Vec<u8> = database.query_row(query, [key], |row| row.get(0)).unwrap();
        serde_json::from_slice(&value).unwrap()
    };
    let connector = read("connectors/idp");
    let secret = connector["spec"]["client_secret"].as_str().expect("the secret lies there in the clear").as_bytes();
    // A piece of one line, as PEM and as octets, of the key that signs and of the one that decrypts.
    let piece = |key: &str| -> String {
        let key = read(key);
        let line = key["key"].as_str().expect("the key lies there in the clear").lines().nth(12).unwrap().to_owned();
        line[8..56].to_owned()
    };
    let (signs, opens) = (piece("saml-keys/corp"), piece("saml-encryption-keys/corp"));
    let (first, second) = secret.split_at(secret.len() / 2);
    vec![
        ("client secret, first half".into(), first.to_vec()),
        ("client secret, second half".into(), second.to_vec()),
        ("SAML key, PEM".into(), signs.as_bytes().to_vec()),
        ("SAML key, octets".into(), STANDARD.decode(signs).unwrap()),
        ("SAML key for encryption, PEM".into(), opens.as_bytes().to_vec()),
        ("SAML key for encryption, octets".into(), STANDARD.decode(opens).unwrap()),
    ]
}

/// A piece of memory that is read at once.
const PIECE: usize = 1 << 20;
/// No form is longer.
const LONGEST: usize = 64;

/// The 32 octets of the key in PEM of PKCS#8: both kinds have them in an OCTET STRING, the first one of that length.
fn octets(pem: &str) -> [u8; 32] {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64).unwrap();
    let at = der.windows(2).position(|two| two == [4, 32]).expect("a key of 32 octets") + 2;
    der[at..at + 32].try_into().unwrap()
}

/// Each half of the key, in each way of writing it: twelve forms.
fn written(name: &str, key: &[u8; 32]) -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for (half, which) in key.chunks(16).zip(["first half", "second half"]) {
        let hex: String = half.iter().map(|octet| format!("{octet:02x}")).collect();
        forms.push((format!("{name}, {which}"), half.to_vec()));
        forms.push((format!("{name}, {which} in hex"), hex.clone().into_bytes()));
        forms.push((format!("{name}, {which} in upper-case hex"), hex.to_uppercase().into_bytes()));
        // Where in a group of three octets the key begins, is not known; nor where a line ends, hence half by half.
        for before in 0..3 {
            let text = STANDARD.encode([&vec![0; before][..], half].concat());
            let (own, whole) = ((before * 8).div_ceil(6), (before + half.len()) * 8 / 6);
            forms.push((format!("{name}, {which} in base64"), text.as_bytes()[own..whole].to_vec()));
        }
    }
    forms
}

fn pair(octets: &[u8]) -> usize {
    usize::from(octets[0]) << 8 | usize::from(octets[1])
}

#[test]
fn a_key_is_found_in_every_form_it_could_be_written_in() {
    let key: [u8; 32] = std::array::from_fn(|at| (at * 37 + 11) as u8);
    let canary = Canary::new(written("a key", &key));
    for (_, form) in &canary.forms {
        assert!(form.len() >= 16 && form.len() <= LONGEST);
    }
    let hex: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
    for before in 0..7 {
        let around = [&vec![b'.'; before][..], &key, b"and more"].concat();
        let base64 = STANDARD.encode(&around);
        for width in 60..=64 {
            let lines: Vec<_> = base64.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line)).collect();
            assert!(canary.found_in(lines.join("\\n").as_bytes()).is_some(), "{before} {width}");
        }
        assert!(canary.found_in(&around).is_some());
    }
    assert!(canary.found_in(hex.as_bytes()).is_some() && canary.found_in(hex.to_uppercase().as_bytes()).is_some());
    assert_eq!(canary.found_in(&key[1..16]), None);
    assert_eq!(canary.found_in(STANDARD.encode([7; 4096]).as_bytes()), None);
}
