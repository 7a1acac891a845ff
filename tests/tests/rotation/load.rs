//! Load that goes on while authorities are replaced: sessions that live through it, visitors who come and go, and logins at a steady rate.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use remoteler_client::{KeyPairs, ProxyAddr, WebClient, WebTrust};
use remoteler_core::{LoginRequest, Secret};
use remoteler_tests::{Cluster, User, eventually_within};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// A stock `ssh` that lives through the test.
pub(crate) struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    pub(crate) fn open(user: &User, host: &str) -> Self {
        let mut command = user.openssh("ssh");
        command.args([host, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut session = Self { child, stdin, stdout };
        session.echoes("first");
        session
    }

    /// What is written comes back.
    #[track_caller]
    pub(crate) fn echoes(&mut self, word: &str) {
        writeln!(self.stdin, "{word}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word, "a session was lost");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody who logs in again and again, and runs a command each time.
pub(crate) struct Visitors {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Visitors {
    pub(crate) fn start(users: Vec<User>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = users.into_iter().map(|user| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    user.tsh(&["logout"]).ok();
                    user.login(&[]).ok();
                    user.tsh(&["ssh", Cluster::NODE, "true"]).ok();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Waits until each of them has come and gone again; a failure of one shows here.
    pub(crate) fn pass_by(&self) {
        let wanted = self.done.load(Ordering::SeqCst) + 2 * self.threads.len();
        eventually_within(Duration::from_secs(60), "visitors log in", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a login or command failed");
            if self.done.load(Ordering::SeqCst) >= wanted { Ok(()) } else { Err("not yet".into()) }
        });
    }

    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("no login and no command failed");
        }
        self.done.load(Ordering::SeqCst)
    }
}

/// Logins through the proxy's web API, so many a second whatever the others take, each of another user in turn.
pub(crate) struct Logins {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    took: Arc<Mutex<Vec<Duration>>>,
    began: Instant,
}

impl Logins {
    pub(crate) fn start(proxy: &str, users: &[User], a_second: u32) -> Self {
        let proxy: ProxyAddr = proxy.parse().unwrap();
        let keys = KeyPairs::generate("login").unwrap();
        let requests: Vec<_> = users
            .iter()
            .map(|user| LoginRequest {
                user: user.name().into(),
                password: Secret::new(user.password()),
                code: None,
                ssh_public_key: keys.ssh_public.clone(),
                tls_public_key: keys.tls_public.clone(),
                ttl_seconds: None,
                client_addr: None,
            })
            .collect();
        let (stop, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, times) = (Arc::clone(&stop), Arc::clone(&took));
        let task = tokio::spawn(async move {
            let client = Arc::new(WebClient::new(&proxy, WebTrust::Insecure).unwrap());
            let mut turn = tokio::time::interval(Duration::from_secs(1) / a_second);
            // Late ones are made up for: the rate is kept, and a service that falls behind is seen in the times.
            turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut running = JoinSet::new();
            for request in requests.iter().cycle() {
                turn.tick().await;
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (client, request, times) = (Arc::clone(&client), request.clone(), Arc::clone(&times));
                running.spawn(async move {
                    let began = Instant::now();
                    client.login(&request).await.expect("no login fails");
                    times.lock().unwrap().push(began.elapsed());
                });
                while let Some(ended) = running.try_join_next() {
                    ended.unwrap();
                }
            }
            while let Some(ended) = running.join_next().await {
                ended.unwrap();
            }
        });
        Self { stop, task, took, began: Instant::now() }
    }

    /// Ends them; what is told of them, and how many there were. Not one has failed.
    pub(crate) async fn end(self) -> (String, usize) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("no login failed");
        let elapsed = self.began.elapsed().as_secs_f64();
        let mut took = self.took.lock().unwrap().clone();
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let rate = took.len() as f64 / elapsed;
        let told = format!(
            "{} logins, {rate:.1} a second, {:.0} ms at the median, {:.0} ms at p99, {:.0} ms at the most",
            took.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
        (told, took.len())
    }
}
