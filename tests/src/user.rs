//! A user of the cluster on a machine of their own: a home directory, `tsh` in it, and stock clients set up by `tsh config`.

use std::{path::PathBuf, process::Command};

use crate::{Cluster, Outcome, binary, run, run_with_input};

/// A user who is logged in.
#[derive(Debug)]
pub struct User {
    name: String,
    password: String,
    home: PathBuf,
    proxy: String,
}

impl User {
    /// Makes the user, sets a password, logs in, and writes the ssh_config block.
    ///
    /// # Panics
    /// When any of it fails.
    #[track_caller]
    pub fn create(cluster: &Cluster, name: &str, roles: &str) -> Self {
        Self::create_at(cluster, name, roles, cluster.proxy())
    }

    /// The same, by way of another proxy.
    ///
    /// # Panics
    /// When any of it fails.
    #[track_caller]
    pub fn create_at(cluster: &Cluster, name: &str, roles: &str, proxy: &str) -> Self {
        Self::create_from(cluster, name, proxy, &["--roles", roles])
    }

    /// The same, with traits such as `team=blue`.
    ///
    /// # Panics
    /// When any of it fails.
    #[track_caller]
    pub fn create_with_traits(cluster: &Cluster, name: &str, roles: &str, traits: &[&str]) -> Self {
        let traits = traits.join(",");
        Self::create_from(cluster, name, cluster.proxy(), &["--roles", roles, "--traits", &traits])
    }

    #[track_caller]
    fn create_from(cluster: &Cluster, name: &str, proxy: &str, wishes: &[&str]) -> Self {
        let login = os_login();
        let mut command = vec!["users", "add", name, "--logins", &login];
        command.extend(wishes);
        cluster.tctl(&command).ok();
        let password = format!("correct horse battery {name}");
        cluster.tctl_with_input(&["users", "passwd", name], &format!("{password}\n")).ok();
        let home = cluster.dir().join(format!("home-{name}"));
        std::fs::create_dir_all(&home).expect("a home can be made");
        let user = Self { name: name.into(), password, home, proxy: proxy.into() };
        user.login(&[]).ok();
        let config = user.tsh(&["config", "--bare"]).ok().text();
        std::fs::write(user.ssh_config(), config).expect("the ssh_config can be written");
        user
    }

    /// Logs in (again).
    #[track_caller]
    pub fn login(&self, extra: &[&str]) -> Outcome {
        self.login_in(&[], extra)
    }

    /// The same with something added to the environment.
    #[track_caller]
    pub fn login_in(&self, environment: &[(String, String)], extra: &[&str]) -> Outcome {
        let mut command = self.tsh_command();
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.args(["login", "--insecure", "--proxy", &self.proxy, "--user", &self.name]).args(extra);
        run_with_input(&mut command, format!("{}\n", self.password).as_bytes())
    }

    /// `IP:PORT` of the proxy.
    #[must_use]
    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    /// What the user logs in with.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Logs in anew with certificates that end within a second: those that may be asked for live longer, so a role cuts them short.
    ///
    /// # Panics
    /// When the role cannot be given or the login fails.
    #[track_caller]
    pub fn log_in_for_a_second(&self, cluster: &Cluster) {
        let brief = "kind: role\nversion: v7\nmetadata: { name: brief }\nspec: { options: { max_session_ttl: 1s } }\n";
        let mut user = cluster.tctl_json(&["get", &format!("user/{}", self.name)]);
        let roles = user["spec"]["roles"].as_array_mut().expect("a user has roles");
        roles.push("brief".into());
        cluster.tctl_with_input(&["create", "-f"], &format!("{brief}---\n{user}\n")).ok();
        self.tsh(&["logout"]).ok();
        self.login(&[]).ok();
    }

    /// `tsh` in this user's home, ready for arguments.
    #[must_use]
    pub fn tsh_command(&self) -> Command {
        let mut command = Command::new(binary("tsh"));
        command.env("HOME", &self.home).env("TSH_HOME", self.tsh_home()).env_remove("SSH_AUTH_SOCK");
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs `tsh`.
    #[track_caller]
    pub fn tsh(&self, args: &[&str]) -> Outcome {
        run(self.tsh_command().args(args))
    }

    /// A stock program that reads this user's ssh_config: `ssh`, `scp`, `sftp`, ready for arguments.
    #[must_use]
    pub fn openssh(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.ssh_config());
        self.environment(&mut command);
        command
    }

    /// Gives `command` this user's home and `tsh`.
    pub fn environment(&self, command: &mut Command) {
        command.env("HOME", &self.home).env("TSH_HOME", self.tsh_home()).env_remove("SSH_AUTH_SOCK");
        command.env("KUBECONFIG", self.kubeconfig());
    }

    /// Name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Home directory.
    #[must_use]
    pub fn home(&self) -> &std::path::Path {
        &self.home
    }

    /// `~/.tsh`
    #[must_use]
    pub fn tsh_home(&self) -> PathBuf {
        self.home.join(".tsh")
    }

    /// `~/.kube/config`
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    /// What `tsh config` printed.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        self.home.join("ssh_config")
    }
}

/// The OS user who runs this.
///
/// # Panics
/// When that user has no name.
#[must_use]
pub fn os_login() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid).ok().flatten().expect("the user who runs the tests has a name").name
}
