//! `tctl auth sign`: makes keys here, has the public halves certified, and writes what other programs read. Owns the names of the files
//! and the advice how to use them. A private key goes nowhere but into its file.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use remoteler_client::{IdentityFile, KeyPairs, KubeconfigFile, OutputFiles, ProxyAddr, pem_certificates};
use remoteler_core::{
    ApiErrorKind, AuthApi, CaKind, Clock, Secret, SignRequest, SignedCertificates, SystemClock, UserCerts, UserName,
};
use serde_json::json;

use crate::{
    cli::{SignArgs, SignFormat},
    output::Report,
};

/// What is to be made, and where; nothing was asked yet.
pub(crate) struct Order {
    args: SignArgs,
    format: SignFormat,
    subject: Subject,
    files: OutputFiles,
}

/// Whose certificate.
enum Subject {
    /// One of these users: the first that there is.
    User(Vec<UserName>),
    /// A server.
    Host,
}

impl Order {
    /// Looks at the files, so that an old one is refused before anything is made.
    pub(crate) fn new(args: &SignArgs, format: SignFormat) -> anyhow::Result<Self> {
        let subject = match (&args.user, args.host.is_empty()) {
            (Some(user), _) => Subject::User(vec![user.clone()]),
            (None, false) => Subject::Host,
            (None, true) => Subject::User(named_like(&args.out)?),
        };
        let files = OutputFiles::check(&args.out, endings(format), args.overwrite)?;
        Ok(Self { args: args.clone(), format, subject, files })
    }
}

/// What follows the name of `--out` in the names of the files.
const fn endings(format: SignFormat) -> &'static [&'static str] {
    match format {
        SignFormat::File | SignFormat::Kubernetes => &[""],
        SignFormat::Openssh => &["", "-cert.pub"],
        SignFormat::Tls | SignFormat::Db | SignFormat::Rdp => &[".key", ".crt", ".cas"],
    }
}

/// Users whose name the file may have: all of it, or all before its last dot.
fn named_like(out: &std::path::Path) -> anyhow::Result<Vec<UserName>> {
    let name = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(UserName::new);
    let mut users: Vec<_> = [name(out.file_name()), name(out.file_stem())].into_iter().flatten().flatten().collect();
    users.dedup();
    if users.is_empty() {
        bail!("{} is named like no user; say for whom with --user or --host", out.display());
    }
    Ok(users)
}

/// Makes it.
pub(crate) async fn sign(api: &dyn AuthApi, order: Order) -> anyhow::Result<Report> {
    let Order { args, format, subject, files } = order;
    let asked = SystemClock.now();
    let keys = KeyPairs::generate(&comment(&args, &subject))?;
    let answer = match &subject {
        Subject::Host => api.sign_certificates(host_request(&args, format, &keys)).await?,
        Subject::User(users) => first_that_exists(api, users, &args, format, &keys).await?,
    };
    let contents = contents(&args, format, &subject, &keys, &answer)?;
    let contents: Vec<&[u8]> = contents.iter().map(|content| content.reveal().as_bytes()).collect();
    let files = files.write(&contents)?;

    let mut text = advice(&args, format, &subject, &answer);
    let end = answer.expires;
    if let (Some(wanted), Some(end)) = (args.ttl, end)
        && asked.plus(wanted.0).since(end) > Duration::from_secs(60)
    {
        text.push_str(&format!("Its roles allow {:?} no longer life than that.\n", answer.subject));
    }
    let value = json!({
        "format": format.as_str(),
        "files": files,
        "subject": answer.subject,
        "expires": answer.expires,
        "roles": answer.roles,
        "logins": answer.logins,
    });
    Report::new(text, &value)
}

/// What stands behind a public SSH key.
fn comment(args: &SignArgs, subject: &Subject) -> String {
    match subject {
        Subject::User(users) => users.last().map(ToString::to_string).unwrap_or_default(),
        Subject::Host => args.host.first().cloned().unwrap_or_default(),
    }
}

async fn first_that_exists(
    api: &dyn AuthApi,
    users: &[UserName],
    args: &SignArgs,
    format: SignFormat,
    keys: &KeyPairs,
) -> anyhow::Result<SignedCertificates> {
    let mut refusal = None;
    for user in users {
        match api.sign_certificates(user_request(user, args, format, keys)?).await {
            Err(cause) if cause.kind == ApiErrorKind::NotFound => refusal = Some(cause),
            outcome => return Ok(outcome?),
        }
    }
    match refusal {
        Some(_) if args.user.is_none() => {
            let names: Vec<_> = users.iter().map(|user| format!("{:?}", user.as_str())).collect();
            bail!("there is no user {}, as the file is named; say for whom with --user or --host", names.join(" or "))
        }
        Some(cause) => Err(cause.into()),
        None => bail!("say for whom with --user or --host"),
    }
}

fn user_request(user: &UserName, args: &SignArgs, format: SignFormat, keys: &KeyPairs) -> anyhow::Result<SignRequest> {
    let user = user.clone();
    let (ssh_public_key, tls_public_key) = (keys.ssh_public.clone(), keys.tls_public.clone());
    let ttl_seconds = args.ttl.map(|ttl| ttl.0.as_secs());
    Ok(match format {
        SignFormat::File | SignFormat::Tls => SignRequest::User { user, ssh_public_key, tls_public_key, ttl_seconds },
        SignFormat::Openssh => SignRequest::OpensshUser { user, ssh_public_key, ttl_seconds },
        SignFormat::Kubernetes => {
            let kube_cluster = args.kube_cluster_name.clone().context("--kube-cluster-name is missing")?;
            // A kubeconfig that names no proxy is of no use: then nothing is to be issued.
            let needs_proxy = args.proxy.is_none();
            SignRequest::Kubernetes { user, kube_cluster, tls_public_key, ttl_seconds, needs_proxy }
        }
        SignFormat::Db => {
            SignRequest::Database { user, database_user: args.db_user.clone(), tls_public_key, ttl_seconds }
        }
        SignFormat::Rdp => SignRequest::SmartCard {
            user,
            windows_user: args.windows_user.clone(),
            domain: args.windows_domain.clone().context("--windows-domain is missing")?.to_ascii_lowercase(),
            sid: args.windows_sid.clone(),
            crl_url: args.crl_url.clone().context("--crl-url is missing")?,
            tls_public_key,
            ttl_seconds,
        },
    })
}

fn host_request(args: &SignArgs, format: SignFormat, keys: &KeyPairs) -> SignRequest {
    let (names, ttl_seconds) = (args.host.clone(), args.ttl.map(|ttl| ttl.0.as_secs()));
    if format == SignFormat::Openssh {
        SignRequest::OpensshHost { names, ssh_public_key: keys.ssh_public.clone(), ttl_seconds }
    } else {
        SignRequest::Server { names, tls_public_key: keys.tls_public.clone(), ttl_seconds }
    }
}

/// What goes into the files, in the order of their endings.
fn contents(
    args: &SignArgs,
    format: SignFormat,
    subject: &Subject,
    keys: &KeyPairs,
    answer: &SignedCertificates,
) -> anyhow::Result<Vec<Secret>> {
    let ssh = || answer.ssh_certificate.as_deref().context("the auth service issued no SSH certificate");
    let tls = || answer.tls_certificate.as_deref().context("the auth service issued no TLS certificate");
    Ok(match format {
        SignFormat::File => {
            let certs = UserCerts {
                ssh_certificate: ssh()?.to_owned(),
                tls_certificate: tls()?.to_owned(),
                expires: answer.expires.context("the certificates of a user have an end")?,
                roles: answer.roles.clone(),
                logins: answer.logins.clone(),
                trust: answer.trust.clone(),
                logout_connector: None,
            };
            vec![IdentityFile::new(keys, &certs, proxy(args, answer)?)?.to_text()?]
        }
        SignFormat::Openssh => vec![keys.ssh_private.clone(), Secret::new(format!("{}\n", ssh()?.trim_end()))],
        SignFormat::Kubernetes => {
            let proxy = proxy(args, answer)?.context("no proxy has told its address yet; give it with --proxy")?;
            let kubeconfig = KubeconfigFile {
                proxy: &proxy,
                kube_clusters: args.kube_cluster_name.as_slice(),
                user: &UserName::new(&answer.subject)?,
                certificate: tls()?,
                key: &keys.tls_private,
                trust: &answer.trust,
            };
            vec![kubeconfig.to_yaml()?]
        }
        SignFormat::Tls | SignFormat::Db | SignFormat::Rdp => {
            let authority = answer.trust.authority(believed(format, subject));
            let authority = Secret::new(pem_certificates(&authority.x509));
            vec![keys.tls_private.clone(), Secret::new(tls()?), authority]
        }
    })
}

/// Whom the holder of the files is to believe: a client believes hosts, a server users. A smart card believes nobody; its authority is what
/// the domain is to believe.
const fn believed(format: SignFormat, subject: &Subject) -> CaKind {
    match (format, subject) {
        (SignFormat::Rdp, _) | (_, Subject::Host) => CaKind::User,
        (_, Subject::User(_)) => CaKind::Host,
    }
}

fn proxy(args: &SignArgs, answer: &SignedCertificates) -> anyhow::Result<Option<ProxyAddr>> {
    if let Some(proxy) = &args.proxy {
        return Ok(Some(proxy.clone()));
    }
    let told = answer.proxy_addr.as_deref().map(str::parse::<ProxyAddr>);
    told.transpose().context("the proxy told an address that is none; give one with --proxy")
}

/// What was made and how it is used.
fn advice(args: &SignArgs, format: SignFormat, subject: &Subject, answer: &SignedCertificates) -> String {
    let out = args.out.display();
    let name = &answer.subject;
    let until = match answer.expires {
        Some(end) => format!("valid until {end}"),
        None => "valid until the authority of hosts is rotated".to_owned(),
    };
    let listed = |files: &str| format!("{files} of {name:?}, {until}.\n\n");
    let host = matches!(subject, Subject::Host);
    match format {
        SignFormat::File => {
            let proxy = if answer.proxy_addr.is_some() || args.proxy.is_some() { "" } else { " --proxy HOST:PORT" };
            let made = listed(&format!("{out} is the identity file"));
            format!(
                "{made}  tsh -i {out}{proxy} ls\n  tctl -i {out}{} nodes ls\n",
                proxy.replace("proxy", "auth-server")
            )
        }
        SignFormat::Openssh if host => {
            let made = listed(&format!("{out} is the key, {out}-cert.pub the certificate"));
            let below = format!(".{}", answer.trust.cluster);
            let others: Vec<_> =
                answer.logins.iter().filter(|name| !name.ends_with(&below)).map(String::as_str).collect();
            let hosts = if others.is_empty() { String::new() } else { format!(" --hosts {}", others.join(",")) };
            format!(
                "{made}In sshd_config:\n  HostKey {0}\n  HostCertificate {0}-cert.pub\nClients believe it with: tctl auth export --type host{hosts} >> ~/.ssh/known_hosts\n",
                absolute(&args.out)
            )
        }
        SignFormat::Openssh => {
            let made =
                listed(&format!("{out} is the key, {out}-cert.pub the certificate for {}", answer.logins.join(", ")));
            format!(
                "{made}  ssh -i {out} LOGIN@HOST\nServers admit it with TrustedUserCAKeys, a file made by: tctl auth export --type user\n"
            )
        }
        SignFormat::Tls => {
            let made = listed(&three(&args.out));
            let whom =
                if host { "users, whom the server may admit as clients" } else { "hosts, whom the client may believe" };
            format!("{made}{out}.cas has the authority of {whom}.\n")
        }
        SignFormat::Kubernetes => {
            let made = listed(&format!("{out} is a kubeconfig"));
            format!("{made}  kubectl --kubeconfig {out} get pods\n")
        }
        SignFormat::Db if host => {
            let made = listed(&three(&args.out));
            let path = absolute(&args.out);
            format!(
                "{made}For PostgreSQL, in postgresql.conf:\n  ssl = on\n  ssl_key_file = '{path}.key'\n  ssl_cert_file = '{path}.crt'\n  ssl_ca_file = '{path}.cas'\n\
                 In pg_hba.conf:\n  hostssl all all all cert clientcert=verify-full\n"
            )
        }
        SignFormat::Db => {
            let made = listed(&three(&args.out));
            format!(
                "{made}  psql \"host=HOST dbname=DATABASE user={name} sslmode=verify-full sslkey={out}.key sslcert={out}.crt sslrootcert={out}.cas\"\n"
            )
        }
        SignFormat::Rdp => {
            let made = listed(&three(&args.out));
            format!(
                "{made}The domain is to believe {out}.cas: publish it in its NTAuth store. The key is of P-256; let the policy \"Allow ECC certificates to be used for logon\" take it.\n"
            )
        }
    }
}

fn three(out: &std::path::Path) -> String {
    let out = out.display();
    format!("{out}.key is the key, {out}.crt the certificate")
}

/// For configuration files, which are read elsewhere than here.
fn absolute(out: &PathBuf) -> String {
    std::path::absolute(out).as_ref().unwrap_or(out).display().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{AuthCommand, Cli, Command};

    fn parsed(line: &[&str]) -> Result<(SignArgs, SignFormat), clap::Error> {
        let cli = Cli::try_parse_from(["tctl", "auth", "sign"].iter().chain(line)).and_then(Cli::checked)?;
        let format = cli.sign_format();
        let Command::Auth(AuthCommand::Sign(args)) = cli.command else { panic!("another command") };
        Ok((*args, format.expect("checked")))
    }

    #[test]
    fn flags_go_with_their_format_only() {
        assert_eq!(parsed(&["-o", "x"]).unwrap().1, SignFormat::File);
        assert_eq!(parsed(&["-o", "x", "--user", "a", "--format", "db", "--db-user", "d"]).unwrap().1, SignFormat::Db);
        assert_eq!(parsed(&["-o", "x", "--host", "a,b", "--format", "tls"]).unwrap().0.host, ["a", "b"]);
        for wrong in [
            &["--user", "a"][..],
            &["-o", "x", "--user", "a", "--host", "h", "--format", "tls"],
            &["-o", "x", "--host", "h"],
            &["-o", "x", "--host", "h", "--format", "kubernetes"],
            &["-o", "x", "--host", "h", "--format", "db", "--db-user", "d"],
            &["-o", "x", "--format", "kubernetes"],
            &["-o", "x", "--format", "rdp", "--windows-domain", "d"],
            &["-o", "x", "--format", "tls", "--proxy", "p"],
            &["-o", "x", "--format", "openssh", "--db-user", "d"],
            &["-o", "x", "--format", "toaster"],
            &["-o", "x", "--ttl", "soon"],
        ] {
            let refused = parsed(wrong).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_kubeconfig_without_a_proxy_is_refused_before_anything_is_issued() {
        let keys = KeyPairs::generate("ann").unwrap();
        for (proxy, needs) in [(&[][..], true), (&["--proxy", "p.example.com:443"][..], false)] {
            let line = ["-o", "x", "--user", "ann", "--format", "kubernetes", "--kube-cluster-name", "staging"];
            let line: Vec<&str> = line.iter().chain(proxy).copied().collect();
            let (args, format) = parsed(&line).unwrap();
            let request = user_request(&UserName::new("ann").unwrap(), &args, format, &keys).unwrap();
            let SignRequest::Kubernetes { needs_proxy, .. } = request else { panic!("{request:?}") };
            assert_eq!(needs_proxy, needs);
        }
    }

    #[test]
    fn what_sign_makes_is_no_format_of_other_commands() {
        let refused = Cli::try_parse_from(["tctl", "status", "--format", "openssh"]).and_then(Cli::checked);
        assert_eq!(refused.unwrap_err().exit_code(), 2);
    }

    #[test]
    fn without_a_name_the_file_says_whose_it_is() {
        let names = |out: &str| named_like(out.as_ref()).map(|users| users.iter().map(ToString::to_string).collect());
        let of = |out: &str| -> Vec<String> { names(out).unwrap() };
        assert_eq!(of("/etc/jenkins.cert"), ["jenkins.cert", "jenkins"]);
        assert_eq!(of("jenkins"), ["jenkins"]);
        assert_eq!(of("b.c.id"), ["b.c.id", "b.c"]);
        assert!(names("/").is_err());
    }

    #[test]
    fn a_client_believes_hosts_and_a_server_users() {
        let user = || Subject::User(Vec::new());
        assert_eq!(believed(SignFormat::Db, &user()), CaKind::Host);
        assert_eq!(believed(SignFormat::Db, &Subject::Host), CaKind::User);
        assert_eq!(believed(SignFormat::Rdp, &user()), CaKind::User);
    }
}
