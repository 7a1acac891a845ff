//! A real PostgreSQL server, set up with nothing but files from `auth sign`: `clientcert=verify-full` lets in who holds the certificate of the
//! database user, and nobody else.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use remoteler_tests::{Cluster, Outcome, Process, client, eventually, need, os_login, run};

use super::{add_user, sign, text, with};

const HOST: &str = "db.test.example.com";

/// A server in a directory of its own, which ends with it.
struct Postgres {
    server: Process,
    port: u16,
    dir: tempfile::TempDir,
    account: Option<nix::unistd::User>,
}

impl Postgres {
    /// Starts one that shows the certificate at `out`, and believes clients by the authority beside it.
    fn start(out: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("rt-pg-").tempdir_in("/tmp").unwrap();
        // The server refuses to run as root.
        let account = (os_login() == "root").then(|| {
            let named = |name| nix::unistd::User::from_name(name).ok().flatten();
            named("postgres").or_else(|| named("nobody")).expect("a user other than root")
        });
        let own = |path: &Path| {
            if let Some(account) = &account {
                nix::unistd::chown(path, Some(account.uid), Some(account.gid)).unwrap();
            }
        };
        own(dir.path());
        for ending in [".key", ".crt", ".cas"] {
            let copy = dir.path().join(format!("server{ending}"));
            fs::copy(with(out, ending), &copy).unwrap();
            fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();
            own(&copy);
        }
        let data = dir.path().join("data");
        let mut initdb = as_account(&account, "initdb", dir.path());
        run(initdb
            .args(["--no-sync", "--auth=trust", "--username=admin", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data))
        .ok();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nssl = on\nssl_key_file = '{}'\nssl_cert_file = '{}'\n\
             ssl_ca_file = '{}'\n",
            dir.path().display(),
            path("server.key"),
            path("server.crt"),
            path("server.cas")
        );
        let mut file = fs::File::options().append(true).open(data.join("postgresql.conf")).unwrap();
        std::io::Write::write_all(&mut file, config.as_bytes()).unwrap();
        let rules = "local all admin trust\nhostssl all all all cert clientcert=verify-full\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        Self::run(dir, account, &data)
    }

    /// It takes no port 0, so a free one is looked for; when another process was faster, the next.
    fn run(dir: tempfile::TempDir, account: Option<nix::unistd::User>, data: &Path) -> Self {
        let log = dir.path().join("postgres.log");
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = as_account(&account, "postgres", dir.path());
            let mut server = Process::start(command.arg("-D").arg(data).args(["-p", &port.to_string()]), &log);
            let socket = dir.path().join(format!(".s.PGSQL.{port}"));
            let up = eventually("PostgreSQL runs", || {
                let ready =
                    run(Command::new(program("psql")).env_clear().args(["-tAc", "select 1", "-U", "admin"]).args([
                        OsStr::new("-h"),
                        dir.path().as_os_str(),
                        OsStr::new("-p"),
                        OsStr::new(&port.to_string()),
                        OsStr::new("postgres"),
                    ]));
                match (ready.code, server.runs()) {
                    (Some(0), true) => Ok(true),
                    (_, false) => Ok(false),
                    _ => Err(format!("{} {}", socket.display(), ready.stderr)),
                }
            });
            if up {
                return Self { server, port, dir, account };
            }
            assert!(server.log().contains("Address already in use"), "{}", server.log());
        }
        panic!("no port was free ten times");
    }

    /// As its administrator.
    #[track_caller]
    fn sql(&self, statement: &str) {
        let mut psql = Command::new(program("psql"));
        psql.env_clear().args(["-U", "admin", "-h", text(self.dir.path()), "-p", &self.port.to_string()]);
        run(psql.args(["-c", statement, "postgres"])).ok();
    }

    /// Who the server says we are, over TLS, with the files at `out` or without any certificate.
    fn who_am_i(&self, user: &str, out: &Path, certificate: bool) -> Outcome {
        let port = self.port;
        let own =
            if certificate { format!("sslkey={0}.key sslcert={0}.crt", out.display()) } else { "sslcert=/none".into() };
        let connection = format!(
            "host={HOST} hostaddr=127.0.0.1 port={port} dbname=postgres user={user} sslmode=verify-full sslrootcert={}.cas {own}",
            out.display()
        );
        let mut psql = Command::new(program("psql"));
        psql.env_clear().env("HOME", self.dir.path()).env("PGCONNECT_TIMEOUT", "30");
        run(psql
            .args(["-tAc", "select current_user || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()"])
            .arg(connection))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children end with it.
        self.server.signal(Signal::SIGQUIT);
        let _ = self.server.wait(Duration::from_secs(20));
        let _ = &self.account;
    }
}

fn program(name: &str) -> PathBuf {
    client(name).unwrap().path().to_owned()
}

fn as_account(account: &Option<nix::unistd::User>, name: &str, home: &Path) -> Command {
    let mut command = Command::new(program(name));
    command.env_clear().env("HOME", home).env("LC_ALL", "C").current_dir(home);
    if let Some(account) = account {
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    command
}

#[test]
fn postgresql_lets_the_right_user_in_and_nobody_else() {
    if !need(&["initdb", "postgres", "psql"]) {
        return;
    }
    let cluster = Cluster::start();
    let server = sign(&cluster, "server", &["--host", HOST, "--format", "db"]);
    let postgres = Postgres::start(&server);
    for user in ["ann", "reader", "bob"] {
        postgres.sql(&format!("create role {user} login"));
    }
    add_user(&cluster, "ann", "access", &["db_users=ann", "db_users=reader"]);
    add_user(&cluster, "bob", "access", &[]);
    let ann = sign(&cluster, "ann", &["--user", "ann", "--format", "db"]);
    let reader = sign(&cluster, "reader", &["--user", "ann", "--format", "db", "--db-user", "reader"]);
    for (user, out) in [("ann", &ann), ("reader", &reader)] {
        assert_eq!(postgres.who_am_i(user, out, true).ok().text(), format!("{user} true\n"));
    }

    let refused = |user: &str, out: &Path, certificate: bool, what: &str| {
        let outcome = postgres.who_am_i(user, out, certificate);
        assert_eq!((outcome.code, outcome.text().as_str()), (Some(2), ""), "{what}: {}", outcome.stderr);
        outcome.stderr
    };
    // Another user's certificate, and one of the same person for another account.
    let bob = sign(&cluster, "bob", &["--user", "bob", "--format", "db"]);
    let said = refused("ann", &bob, true, "bob's");
    assert!(said.contains("certificate authentication failed"), "{said}");
    refused("ann", &reader, true, "the reader's");
    refused("admin", &ann, true, "ann as administrator");
    let said = refused("ann", &ann, false, "none");
    assert!(said.contains("certificate"), "{said}");

    // Without TLS there is no certificate to show.
    let plain = format!("host=127.0.0.1 port={} dbname=postgres user=ann sslmode=disable", postgres.port);
    let plain = run(Command::new(program("psql")).env_clear().args(["-tAc", "select 1"]).arg(plain));
    assert_eq!((plain.code, plain.text().as_str()), (Some(2), ""), "{}", plain.stderr);

    // The server's own kind: signed by the authority of hosts, in the name of the database user.
    let host = sign(&cluster, "host", &["--host", "ann", "--format", "db"]);
    fs::copy(with(&ann, ".cas"), with(&host, ".cas")).unwrap();
    let said = refused("ann", &host, true, "a host's"); // I1
    assert!(said.contains("unknown ca"), "{said}");
    // Another cluster's authority of users.
    let elsewhere = Cluster::start();
    add_user(&elsewhere, "ann", "access", &[]);
    let stranger = sign(&elsewhere, "ann", &["--user", "ann", "--format", "db"]);
    fs::copy(with(&ann, ".cas"), with(&stranger, ".cas")).unwrap();
    let said = refused("ann", &stranger, true, "a stranger's"); // I1
    assert!(said.contains("unknown ca"), "{said}");

    // One that has ended.
    let brief = "kind: role\nversion: v7\nmetadata: { name: brief }\nspec: { options: { max_session_ttl: 1s } }\n";
    cluster.tctl_with_input(&["create"], brief).ok();
    postgres.sql("create role cy login");
    add_user(&cluster, "cy", "access,brief", &[]);
    let cy = sign(&cluster, "cy", &["--user", "cy", "--format", "db"]);
    eventually("the certificate ends", || {
        let outcome = postgres.who_am_i("cy", &cy, true);
        if outcome.stderr.contains("expired") { Ok(()) } else { Err(outcome.stderr) }
    }); // I6
    refused("cy", &cy, true, "an ended one");

    // And the client believes this server only, by its names.
    let posing = sign(&cluster, "posing", &["--host", "other.test.example.com", "--format", "db"]);
    let other = Postgres::start(&posing);
    other.sql("create role ann login");
    let said = other.who_am_i("ann", &ann, true);
    assert!(said.code == Some(2) && said.stderr.contains("does not match host name"), "{}", said.stderr);
}
