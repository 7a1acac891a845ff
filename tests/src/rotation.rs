//! A rotation as administrators and users take part in it: `tctl auth rotate` step by step, and the minute after which `tsh` follows.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use crate::{Cluster, User, eventually_within};

impl Cluster {
    /// Takes a step of `kind` by hand, as soon as every service has followed the one before.
    ///
    /// # Panics
    /// When a step is refused for another reason, or the services do not follow within a minute.
    #[track_caller]
    pub fn rotate(&self, kind: &str, phase: &str) {
        eventually_within(Duration::from_secs(60), &format!("{kind} goes to {phase}"), || {
            let out = self.tctl(&["auth", "rotate", "--type", kind, "--manual", "--phase", phase]);
            if out.code == Some(0) {
                return Ok(());
            }
            assert!(out.stderr.contains("is not acknowledged by"), "{}", out.stderr);
            Err(out.stderr)
        });
    }
}

impl User {
    /// Makes `tsh` ask for the authorities of the moment, as it does by itself at its first use after a minute.
    ///
    /// # Panics
    /// When the user is not logged in, or `tsh` fails.
    #[track_caller]
    pub fn asks_a_minute_later(&self) {
        let host = self.proxy().rsplit_once(':').expect("the address has a port").0;
        let known = self.tsh_home().join("keys").join(host).join("cas.pem");
        let earlier = SystemTime::now() - Duration::from_secs(120);
        let file = fs::File::options().write(true).open(known).expect("the user is logged in");
        file.set_modified(earlier).expect("the file is ours");
        self.tsh(&["ls"]).ok();
    }
}
