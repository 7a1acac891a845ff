//! ssh_config(5): which lines of which files hold for one host, in OpenSSH's order, where the first value of an option counts. What an
//! option means is said in `options`. Reads files and nothing else: no command is run, `Match exec` is refused.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use wildmatch::WildMatch;

use super::{SshArgs, UsageError, options};

/// Which files are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ConfigFiles {
    /// `~/.ssh/config`, then `/etc/ssh/ssh_config`, as far as they are there.
    #[default]
    Usual,
    /// `-F none`
    None,
    /// `-F FILE`: this and no other.
    Only(PathBuf),
}

/// Who runs this, for what the files can ask about.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    /// The home directory.
    pub(crate) home: PathBuf,
    /// The user's name on this machine.
    pub(crate) user: String,
    /// Directory of the system's ssh_config.
    pub(crate) system: PathBuf,
}

/// Completes `args` by what the files say for its host.
///
/// # Errors
/// The first line that cannot be honoured, with its file.
pub(crate) fn complete(args: &mut SshArgs, here: &Here) -> Result<(), UsageError> {
    let (own, system) = (here.home.join(".ssh"), &here.system);
    let mut reader = Reader { original: args.host.clone(), host: None, unknown: Vec::new(), here, args };
    match reader.args.config.clone() {
        ConfigFiles::None => {}
        ConfigFiles::Only(path) => {
            let base = Base { dir: &own, private: false };
            if !reader.file(&path, base, 0)? {
                return Err(at(&path, None, "it is not there"));
            }
        }
        ConfigFiles::Usual => {
            reader.file(&own.join("config"), Base { dir: &own, private: true }, 0)?;
            reader.file(&system.join("ssh_config"), Base { dir: system, private: false }, 0)?;
        }
    }
    if let Some(host) = reader.host {
        args.host = host;
    }
    if args.clear_forwards {
        args.forwards.clear();
        args.remote_forwards.clear();
    }
    Ok(())
}

/// Where a file's relative `Include`s are, and whether nobody else may write it.
#[derive(Clone, Copy)]
struct Base<'a> {
    dir: &'a Path,
    private: bool,
}

struct Reader<'a> {
    args: &'a mut SshArgs,
    here: &'a Here,
    /// The host as it was typed.
    original: String,
    /// What `HostName` made of it.
    host: Option<String>,
    /// Patterns of `IgnoreUnknown`.
    unknown: Vec<String>,
}

impl Reader<'_> {
    /// Reads a file; false when it is not there.
    fn file(&mut self, path: &Path, base: Base<'_>, depth: usize) -> Result<bool, UsageError> {
        if depth > MAX_DEPTH {
            return Err(at(path, None, "files are included too deep"));
        }
        let Some(text) = read(path, base.private).map_err(|cause| at(path, None, &cause.to_string()))? else {
            return Ok(false);
        };
        let mut active = true;
        for (number, line) in text.lines().enumerate() {
            let place = |reason: &str| at(path, Some(number + 1), reason);
            let Some((name, rest)) = keyword(line) else { continue };
            let words = words(rest).map_err(place)?;
            match name.to_ascii_lowercase().as_str() {
                "host" => active = hosts_match(&words, &self.original),
                "match" => active = self.matches(&words).map_err(|reason| place(&reason))?,
                _ if !active => {}
                "include" => {
                    for word in &words {
                        for included in self.included(word, base.dir).map_err(|reason| place(&reason))? {
                            self.file(&included, base, depth + 1)?;
                        }
                    }
                }
                "ignoreunknown" => {
                    self.unknown.extend(words.iter().flat_map(|word| word.split(',')).map(str::to_owned))
                }
                option => self.set(name, option, rest, &words).map_err(|refusal| place(&refusal.to_string()))?,
            }
        }
        Ok(true)
    }

    fn set(&mut self, name: &str, option: &str, rest: &str, words: &[String]) -> Result<(), UsageError> {
        let value = words.join(" ");
        match option {
            "hostname" => {
                if self.host.is_none() {
                    let expanded = value.replace("%%", "\0").replace("%h", &self.original);
                    if expanded.contains('%') || expanded.is_empty() || expanded.starts_with('-') {
                        return Err(super::bad(
                            name,
                            &value,
                            "a name is expected, in which %h stands for the host typed",
                        ));
                    }
                    self.host = Some(expanded.replace('\0', "%").to_ascii_lowercase());
                }
                Ok(())
            }
            "proxycommand" if value.eq_ignore_ascii_case("none") => Ok(()),
            "proxycommand" => self.proxy_command(name, rest),
            "proxyjump" if value.eq_ignore_ascii_case("none") => Ok(()),
            // Told to every host by many; here the login's certificate is shown, and no other.
            "identityfile" | "certificatefile" | "identityagent" => Ok(()),
            // Names under which a host's certificate is looked up, and algorithms of it; ours are those of the cluster.
            "hostkeyalias" | "hostkeyalgorithms" => Ok(()),
            _ => match options::apply(self.args, &format!("{name} {value}")) {
                Err(UsageError::Unsupported(..)) if self.unknown.iter().any(|pattern| matches(pattern, option)) => {
                    Ok(())
                }
                done => done,
            },
        }
    }

    /// The one proxy command there is a place for: the one of `tsh config`. What it would do is done here, with the flags it has.
    fn proxy_command(&mut self, name: &str, rest: &str) -> Result<(), UsageError> {
        let refused = || UsageError::Unsupported(name.to_owned(), "the cluster's proxy finds the way to every node");
        let words = words(rest).map_err(|_| refused())?;
        let program = words.first().map(Path::new).and_then(Path::file_name);
        if program != Some(OsStr::new("tsh")) || !words.windows(2).any(|pair| pair == ["proxy", "ssh"]) {
            return Err(refused());
        }
        let flag = |flag: &str| words.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1].as_str());
        let scope = &mut self.args.scope;
        if let (None, Some(home)) = (&scope.home, flag("--home")) {
            scope.home = Some(home.into());
        }
        if let (None, Some(proxy)) = (&scope.proxy, flag("--proxy")) {
            scope.proxy = Some(super::checked("--proxy", proxy)?);
        }
        if let (None, Some(cluster)) = (&scope.cluster, flag("--cluster")) {
            scope.cluster = Some(super::checked("--cluster", cluster)?);
        }
        Ok(())
    }

    /// Whether all conditions of a `Match` line hold.
    fn matches(&self, words: &[String]) -> Result<bool, String> {
        let mut holds = true;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (word, inline) =
                word.split_once('=').map_or((word.as_str(), None), |(word, value)| (word, Some(value)));
            let (negated, criterion) = word.strip_prefix('!').map_or((false, word), |criterion| (true, criterion));
            let criterion = criterion.to_ascii_lowercase();
            let found = match criterion.as_str() {
                "all" => true,
                // Names are not made canonical, and the files are read once.
                "canonical" | "final" => false,
                "host" | "originalhost" | "user" | "localuser" | "tagged" => {
                    let patterns = inline.or_else(|| words.next().map(String::as_str));
                    let patterns = patterns.ok_or_else(|| format!("Match {criterion} needs patterns"))?;
                    let patterns: Vec<String> = patterns.split(',').map(str::to_owned).collect();
                    let own = &self.here.user;
                    let subject = match criterion.as_str() {
                        "host" => self.host.as_ref().unwrap_or(&self.original),
                        "originalhost" => &self.original,
                        "user" => &self.args.login.as_ref().map_or_else(|| own.clone(), ToString::to_string),
                        "localuser" => own,
                        _ => "",
                    };
                    hosts_match(&patterns, subject)
                }
                "exec" => return Err("Match exec is not supported: no commands are run for a configuration".into()),
                _ => {
                    return Err(format!(
                        "Match {criterion} is not supported; all, host, originalhost, user and localuser are"
                    ));
                }
            };
            holds &= found != negated;
        }
        Ok(holds)
    }

    /// The files that an `Include` names; wildcards may stand in the last part of its path.
    fn included(&self, word: &str, base: &Path) -> Result<Vec<PathBuf>, String> {
        let path = match word.strip_prefix("~/") {
            Some(rest) => self.here.home.join(rest),
            None => base.join(word),
        };
        let has_wildcard = |part: &OsStr| part.to_string_lossy().contains(['*', '?']);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
        if dir.iter().any(has_wildcard) {
            return Err(format!("Include {word} is not supported: wildcards may stand in the name of a file only"));
        }
        if !has_wildcard(name) {
            return Ok(vec![path]);
        }
        let pattern = WildMatch::new(&name.to_string_lossy());
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // As a shell expands it: in order, and without hidden files.
        let mut found: Vec<_> = names.filter(|name| !name.starts_with('.') && pattern.matches(name)).collect();
        found.sort();
        Ok(found.into_iter().map(|name| dir.join(name)).collect())
    }
}

fn at(path: &Path, line: Option<usize>, reason: &str) -> UsageError {
    let line = line.map(|line| format!(" line {line}")).unwrap_or_default();
    UsageError::Config { place: format!("{}{line}", path.display()), reason: reason.to_owned() }
}

/// The text of a file, none if it is not there.
fn read(path: &Path, private: bool) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    };
    let found = file.metadata()?;
    if private {
        // Who writes this file decides where its owner goes: as OpenSSH does.
        let own = rustix::process::getuid().as_raw();
        if found.mode() & 0o022 != 0 || (found.uid() != 0 && found.uid() != own) {
            return Err(io::Error::other("others may write it; run chmod 600 on it"));
        }
    }
    let mut text = String::new();
    if file.take(MAX_LEN + 1).read_to_string(&mut text)? as u64 > MAX_LEN {
        return Err(io::Error::other("it is too large"));
    }
    Ok(Some(text))
}

/// Keyword and the rest of a line; none for empty lines and comments.
fn keyword(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    Some((name, rest.strip_prefix('=').map_or(rest, str::trim_start)))
}

/// The words of a line: separated by blanks, quoted by `"` or `'`, up to a word that begins with `#`.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        for (index, character) in rest.char_indices() {
            match (quote, character) {
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), close) if open == close => quote = None,
                (None, blank) if blank.is_whitespace() => {
                    end = index;
                    break;
                }
                (_, character) => word.push(character),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed");
        }
        words.push(word);
        rest = rest.get(end..).unwrap_or_default().trim_start();
    }
    Ok(words)
}

/// Patterns of ssh_config(5): one must match, and none of those after `!`.
fn hosts_match(patterns: &[String], subject: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(unwanted) if matches(unwanted, subject) => return false,
            Some(_) => {}
            None => found |= matches(pattern, subject),
        }
    }
    found
}

fn matches(pattern: &str, subject: &str) -> bool {
    WildMatch::new(&pattern.to_ascii_lowercase()).matches(&subject.to_ascii_lowercase())
}

/// As OpenSSH.
const MAX_DEPTH: usize = 16;
const MAX_LEN: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

    use super::*;
    use crate::openssh::{Parsed, Tty, parse};

    struct Home(tempfile::TempDir);

    impl Home {
        fn with(config: &str) -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            home.write(".ssh/config", config);
            home
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }

        fn run(&self, line: &str) -> Result<SshArgs, UsageError> {
            let words: Vec<_> = line.split(' ').map(Into::into).collect();
            let Parsed::Run(mut args) = parse(&words)? else { panic!("{line}") };
            let home = self.0.path();
            complete(&mut args, &Here { home: home.into(), user: "me".into(), system: home.join("etc") })?;
            Ok(*args)
        }
    }

    const CONFIG: &str = "\
# a comment
Host node-* !node-x   # and another
    User deploy
    Port=2022
    LocalForward 8080 localhost:80
Match originalhost node-a user deploy
    ServerAliveInterval \"30\"
Host short
    HostName node-b.root.example.com
Match host *.root.example.com
    RequestTTY force
Match user root !host short
    ConnectTimeout 7
Host *
    User everybody
    LocalForward 9090 db:5432
    IdentityFile ~/.ssh/id_ed25519
";

    #[test]
    fn hosts_and_matches_choose_what_holds_and_the_first_value_counts() {
        let home = Home::with(CONFIG);
        let args = home.run("node-a").unwrap();
        assert_eq!((args.login.unwrap().as_str(), args.port), ("deploy", Some(2022)));
        assert_eq!(args.keepalive, Some(Duration::from_secs(30)));
        assert_eq!(args.forwards.iter().map(|spec| spec.port).collect::<Vec<_>>(), [8080, 9090], "these add up");
        assert_eq!(args.tty, Tty::Auto);

        let args = home.run("node-x").unwrap();
        assert_eq!((args.login.unwrap().as_str(), args.port), ("everybody", None));
        let args = home.run("short").unwrap();
        assert_eq!((args.host.as_str(), args.tty), ("node-b.root.example.com", Tty::Force));
        let args = home.run("root@node-a").unwrap();
        assert_eq!((args.login.unwrap().as_str(), args.connect_timeout), ("root", Some(Duration::from_secs(7))));
        assert_eq!(args.keepalive, None);
    }

    #[test]
    fn the_command_line_goes_before_the_files() {
        let home =
            Home::with("Host *\n  Port 1\n  RequestTTY force\n  LogLevel QUIET\n  BatchMode yes\n  EscapeChar none\n");
        let args = home.run("-p 22 -T -v -e ~ -o BatchMode=no -o BatchMode=yes h").unwrap();
        assert_eq!((args.port, args.tty, args.verbose, args.quiet), (Some(22), Tty::Never, 1, false));
        assert_eq!((args.batch, args.escape), (false, Some(b'~')), "and the first of two flags before the second");
        let args = home.run("h").unwrap();
        assert_eq!((args.port, args.tty, args.quiet, args.batch, args.escape), (Some(1), Tty::Force, true, true, None));
    }

    #[test]
    fn included_files_stand_where_they_are_included() {
        let home = Home::with("Include conf.d/*.conf missing\nHost *\n  Include ~/other\n  Port 3\n");
        home.write(".ssh/conf.d/1.conf", "Host one\n  Port 1\n");
        home.write(".ssh/conf.d/2.conf", "Host two\n  User two\n");
        home.write(".ssh/conf.d/.hidden.conf", "Port 9\n");
        home.write("other", "ConnectTimeout 5\n");
        home.write("etc/ssh_config", "Host *\n  User system\n");
        let args = home.run("one").unwrap();
        assert_eq!((args.port, args.login.unwrap().as_str()), (Some(1), "system"));
        assert_eq!(args.connect_timeout, Some(Duration::from_secs(5)));
        assert_eq!(home.run("two").unwrap().login.unwrap().as_str(), "two");
        home.write("other", "Include ~/other\n");
        assert!(home.run("one").unwrap_err().to_string().contains("too deep"));
    }

    #[test]
    fn another_file_or_none_can_be_named() {
        let home = Home::with("Port 1\n");
        home.write("mine", "User mine\n");
        let args = home.run(&format!("-F {} h", home.0.path().join("mine").display())).unwrap();
        assert_eq!((args.port, args.login.unwrap().as_str()), (None, "mine"));
        assert_eq!(home.run("-Fnone h").unwrap().port, None);
        assert!(home.run("-F /nowhere/x h").unwrap_err().to_string().contains("/nowhere/x: it is not there"));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_line_and_only_for_hosts_it_is_meant_for() {
        for line in [
            "ProxyCommand nc %h %p",
            "ProxyJump bastion",
            "ForwardAgent perhaps",
            "RemoteForward 1080",
            "DynamicForward 1080",
            "Ciphers aes256-ctr",
            "NoSuchThing 1",
            "Port 0",
            "User \"x",
            "HostName %n",
        ] {
            let home = Home::with(&format!("Host other\n  User x\nHost h\n  {line}\n"));
            let said = home.run("h").unwrap_err().to_string();
            assert!(said.contains("config line 4: "), "{line}: {said}");
            if !line.contains('"') {
                assert!(said.contains(line.split(' ').next().unwrap()), "{line}: {said}");
            }
            assert!(line.contains('"') || home.run("other").is_ok(), "{line}");
        }
        assert!(Home::with("Match exec true\n").run("h").unwrap_err().to_string().contains("Match exec"));
        let home = Home::with("IgnoreUnknown Use*\nUseKeychain yes\nProxyJump none\nProxyCommand none\n");
        home.run("h").unwrap();
    }

    #[test]
    fn the_block_of_tsh_config_is_taken_as_it_is() {
        let home = Home::with(
            "Host *.root.example.com node-a\n    UserKnownHostsFile \"/h/.tsh/known_hosts\"\n    GlobalKnownHostsFile /dev/null\n    \
             StrictHostKeyChecking yes\n    CheckHostIP no\n    UpdateHostKeys no\n    HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com\n    \
             IdentityFile \"/h/.tsh/keys/p/ann\"\n    CertificateFile \"/h/.tsh/keys/p/ann-cert.pub\"\n    IdentitiesOnly yes\n    \
             PreferredAuthentications publickey\n    CanonicalizeHostname no\n    \
             ProxyCommand \"/opt/my tools/tsh\" proxy ssh --home \"/h/.tsh\" --proxy p.example.com:443 --cluster root.example.com %r@%h:%p\n\
             Host node-a\n    HostKeyAlias node-a.root.example.com\n",
        );
        for host in ["node-a", "gw.root.example.com"] {
            let scope = home.run(host).unwrap().scope;
            assert_eq!(scope.home.unwrap(), Path::new("/h/.tsh"));
            assert_eq!(scope.proxy.unwrap().to_string(), "p.example.com:443");
            assert_eq!(scope.cluster.unwrap().as_str(), "root.example.com");
        }
        assert_eq!(home.run("--cluster leaf node-a").unwrap().scope.cluster.unwrap().as_str(), "leaf");
        assert!(home.run("elsewhere").unwrap().scope.proxy.is_none());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_believed() {
        let home = Home::with("Port 1\n");
        let path = home.0.path().join(".ssh/config");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(home.run("h").unwrap_err().to_string().contains("others may write it"));
    }
}
