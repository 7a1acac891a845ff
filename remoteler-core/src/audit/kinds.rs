//! What can happen: the list of all kinds of audit events, each with its name, its code and its fields.

use serde::{Deserialize, Serialize};

use super::{ConnectionFields, SessionFields};
use crate::{ForwardDirection, Timestamp};

macro_rules! audit_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:literal { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? })*) => {
        /// What happened, with the fields of its kind.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(tag = "event")]
        #[non_exhaustive]
        pub enum AuditKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant { $($(#[$field_doc])* $field: $type),* },)*
        }

        impl AuditKind {
            /// Name of the kind, as in `event`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }

            pub(super) const fn base_code(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $code,)* }
            }

            /// Names of all kinds.
            pub const NAMES: &'static [&'static str] = &[$($name),*];
        }
    };
}

audit_kinds! {
    /// Somebody logged in, or tried to.
    UserLogin = "user.login", "T1000I" {
        /// As typed; need not exist.
        user: String,
        /// `local`, `oidc`, `github` or `saml`.
        method: String,
        /// Whether it worked.
        success: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The connector through which it went, where it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connector: Option<String>,
        /// The client's address.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    }
    /// A user was made.
    UserCreate = "user.create", "T1002I" {
        /// Who did it.
        user: String,
        /// Who was made.
        name: String,
        /// With which roles.
        roles: Vec<String>,
    }
    /// A user was removed.
    UserDelete = "user.delete", "T1004I" {
        /// Who did it.
        user: String,
        /// Who was removed.
        name: String,
    }
    /// A user was changed.
    UserUpdate = "user.update", "T1003I" {
        /// Who did it.
        user: String,
        /// Who was changed.
        name: String,
        /// With which roles.
        roles: Vec<String>,
    }
    /// A password was set.
    PasswordChange = "user.password_change", "T1005I" {
        /// Whose.
        user: String,
        /// Who did it.
        by: String,
    }
    /// A user has another second factor.
    MfaAdd = "mfa.add", "T1006I" {
        /// Whose.
        user: String,
        /// The factor's name.
        name: String,
        /// `totp` or `webauthn`.
        mfa_device_type: String,
    }
    /// A user's second factor was removed.
    MfaDelete = "mfa.delete", "T1007I" {
        /// Who did it.
        user: String,
        /// Whose.
        owner: String,
        /// The factor's name.
        name: String,
    }
    /// A user has recovery codes; those before count no more.
    RecoveryCodesGenerate = "recovery_code.generated", "T1008I" {
        /// Whose.
        user: String,
    }
    /// A recovery code stood for a factor, and counts no more.
    RecoveryCodeUsed = "recovery_code.used", "T1009I" {
        /// Whose.
        user: String,
        /// How many are left.
        left: usize,
    }
    /// A sign-up link was made.
    InviteCreate = "reset_password_token.create", "T6000I" {
        /// Who did it.
        user: String,
        /// For whom.
        name: String,
        /// Until when it can be used.
        expires: String,
    }
    /// A certificate is about to be issued.
    CertCreate = "cert.create", "TC000I" {
        /// `user` or `host`.
        cert_type: String,
        /// What it will be good for, such as `database client`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        purpose: String,
        /// Who asked for it, where that is an administrator.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        /// User name or host id; of a host that is not ours, its first name.
        user: String,
        /// Who the certificate says its holder is, where that is another name: the account in a database or a domain.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        subject: String,
        /// Serial of the SSH certificate, if there is one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        ssh_serial: String,
        /// Serial of the X.509 certificate, if there is one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        tls_serial: String,
        /// Roles in it.
        roles: Vec<String>,
        /// Operating-system accounts in it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logins: Vec<String>,
        /// Its end; absent where it ends with its authority.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
    }
    /// A backup of the auth service is about to be made: everything it knows but recordings.
    BackupCreate = "backup.create", "T9700I" {
        /// Who asked for it.
        user: String,
    }
    /// A step in the rotation of an authority is about to be taken.
    CaRotate = "ca.rotate", "TC100I" {
        /// Who asked for it; `local:rotation` for steps that follow by themselves.
        user: String,
        /// `user` or `host`.
        ca_type: String,
        /// The phase it is in afterwards.
        phase: String,
        /// The generation that services must acknowledge.
        generation: u64,
        /// Whether services that had not acknowledged the phase before were passed over.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        forced: bool,
        /// The services that were passed over.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        passed_over: Vec<String>,
    }
    /// A certificate or key is about to be revoked.
    CertRevocationCreate = "cert_revocation.create", "TC200I" {
        /// Who did it.
        user: String,
        /// What: its name in the list of revocations.
        name: String,
        /// As RFC 5280 calls it.
        reason: String,
        /// What the administrator had to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        comment: String,
        /// Until when it is refused; absent: as long as nobody takes it back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
    }
    /// A revocation is about to be taken back.
    CertRevocationDelete = "cert_revocation.delete", "TC201I" {
        /// Who did it.
        user: String,
        /// What is believed again: its name in the list of revocations.
        name: String,
    }
    /// A role was made or changed.
    RoleCreate = "role.create", "T9000I" {
        /// Who did it.
        user: String,
        /// Which role.
        name: String,
    }
    /// A role was removed.
    RoleDelete = "role.delete", "T9001I" {
        /// Who did it.
        user: String,
        /// Which role.
        name: String,
    }
    /// A join token was made.
    TokenCreate = "join_token.create", "TJT00I" {
        /// Who did it.
        user: String,
        /// Its id: the first digits of its hash, or its name when it has no secret.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// How a host shows that it may use it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        join_method: String,
        /// What may join with it.
        roles: Vec<String>,
        /// Until when.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
        /// How many hosts may join with it; absent: any number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uses: Option<u32>,
    }
    /// A join token was removed.
    TokenDelete = "join_token.delete", "TJT01I" {
        /// Who did it.
        user: String,
        /// Its id: the first digits of its hash.
        name: String,
    }
    /// A host joined, or tried to.
    InstanceJoin = "instance.join", "TJ001I" {
        /// The name it asked for.
        node_name: String,
        /// Its id, when it was let in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_id: Option<String>,
        /// As what.
        roles: Vec<String>,
        /// Whether it was let in.
        success: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The client's address.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
        /// Whether it believed whoever answered, by its own word; only then there (I15).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_pin: bool,
        /// Whether it asked to be a host that joined before; only then there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rejoined: bool,
        /// Id of the token that was shown: the first digits of its hash, or its name when it has no secret.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        token: String,
        /// Service account that the host runs as, where an API server said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service_account: Option<String>,
    }
    /// Somebody shows the certificates of a host that another machine is: a copy of its disk, or a former state of it. It is refused.
    InstanceCopy = "instance.copy", "TJ002W" {
        /// The host's id.
        host_id: String,
        /// Its name.
        node_name: String,
        /// How often the certificates that were shown had been renewed.
        generation: u64,
        /// How often those of the host have been.
        newest: u64,
        /// Why it is refused.
        error: String,
        /// The address of who is refused.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
        /// The address of who is the host.
        #[serde(rename = "addr.host", default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    }
    /// A node, cluster or other thing was removed from the inventory.
    ResourceDelete = "resource.delete", "T9500I" {
        /// Who did it.
        user: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    }
    /// An attempt that was refused: a certificate, a login, a role decision.
    AuthAttempt = "auth", "T3007W" {
        /// Who it claimed to be, as far as that can be told.
        user: String,
        /// Where: `node`, `proxy`, `kube`, `app`, `auth`.
        service: String,
        /// What was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        /// Full reason.
        error: String,
        /// The client's address.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    }
    /// A shell or command session is about to begin.
    SessionStart = "session.start", "T2000I" {
        /// Session.
        #[serde(flatten)]
        session: SessionFields,
        /// Connection.
        #[serde(flatten)]
        connection: ConnectionFields,
        /// Whether it has a terminal.
        interactive: bool,
        /// Columns and rows, `80:25`, with a terminal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<String>,
        /// The command line that is about to run, as one word, cut at 8 KiB; empty for a shell.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        initial_command: Vec<String>,
        /// The role that allows it: the first of those that do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<String>,
        /// The session for which a second factor was shown: `session` of `mfa_auth_challenge.validate`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with_mfa: Option<String>,
    }
    /// The session is over.
    SessionEnd = "session.end", "T2004I" {
        /// Session.
        #[serde(flatten)]
        session: SessionFields,
        /// Whether it had a terminal.
        interactive: bool,
        /// When it began.
        session_start: Timestamp,
        /// When it was over.
        session_stop: Timestamp,
        /// Whether a recording was made.
        recorded: bool,
    }
    /// A recording arrived whole at the auth service.
    SessionUpload = "session.upload", "T2005I" {
        /// Session id.
        sid: String,
        /// Octets.
        size: u64,
    }
    /// A command ran, or did not start. One event each, with the result; what is about to run stands in `session.start`.
    Exec = "exec", "T3002I" {
        /// Session.
        #[serde(flatten)]
        session: SessionFields,
        /// The command line, cut at 8 KiB.
        command: String,
        /// Its exit status, or what came instead; absent when it did not start.
        #[serde(rename = "exitCode", default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<String>,
        /// Why it failed.
        #[serde(rename = "exitError", default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// The file subsystem is about to start, or did something.
    Sftp = "sftp", "TS001I" {
        /// Session.
        #[serde(flatten)]
        session: SessionFields,
        /// `start`, `open`, `remove`, `rename`, `mkdir`, `rmdir`, `setstat`, `symlink`, `link` as the client asked for them, and `summary`.
        action: String,
        /// Path, as the client named it.
        path: String,
        /// The second path of those that have two.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_path: Option<String>,
        /// How a file is opened: 1 for reading, 2 for writing, 8 to make it, 16 to empty it (SFTP version 3, `pflags`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flags: Option<u32>,
        /// How many more operations the session had than are listed; in a `summary`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    }
    /// A port is about to be forwarded, or was refused.
    Port = "port", "T3003I" {
        /// Session.
        #[serde(flatten)]
        session: SessionFields,
        /// `host:port`: at the far end, or where the node listens for the client. `ssh-agent` for an agent.
        addr: String,
        /// Whether it was allowed.
        success: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Which way. Events of older nodes have none: theirs are `local`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<ForwardDirection>,
        /// The process that asks an agent, by its number; absent when the agent's socket is made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        originator: Option<String>,
    }
    /// A request is about to go to a Kubernetes API server, or was refused.
    KubeRequest = "kube.request", "T3009I" {
        /// User of the cluster.
        user: String,
        /// Kubernetes cluster.
        kubernetes_cluster: String,
        /// User at the API server.
        kubernetes_user: String,
        /// Groups at the API server.
        kubernetes_groups: Vec<String>,
        /// HTTP method.
        verb: String,
        /// Path and query at the API server.
        request_path: String,
        /// HTTP status of the answer, or what we answered ourselves; absent in the event before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        response_code: Option<u16>,
        /// Connection.
        #[serde(flatten)]
        connection: ConnectionFields,
        /// The session for which a second factor was shown, as in `session.start`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with_mfa: Option<String>,
    }
    /// A browser is about to be given a session with a web application.
    AppSessionStart = "app.session.start", "T2007I" {
        /// User of the cluster.
        user: String,
        /// Names the session, and is no credential.
        sid: String,
        /// Web application.
        app_name: String,
        /// Where browsers reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        app_public_addr: Option<String>,
        /// Host id of its service.
        server_id: String,
        /// The session for which a second factor was shown, as in `session.start`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with_mfa: Option<String>,
        /// When it ends at the latest.
        expires: Timestamp,
        /// Connection.
        #[serde(flatten)]
        connection: ConnectionFields,
    }
    /// A request is about to go to a web application, or was refused.
    AppSessionRequest = "app.session.request", "T2009I" {
        /// User of the cluster.
        user: String,
        /// The session, as `app.session.start` names it; absent for requests of programs, which show a certificate of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sid: Option<String>,
        /// Web application.
        app_name: String,
        /// HTTP method.
        method: String,
        /// Path at the application, without the query.
        path: String,
        /// HTTP status of the answer, or what we answered ourselves; absent in the event before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status_code: Option<u16>,
        /// Connection.
        #[serde(flatten)]
        connection: ConnectionFields,
        /// The session for which a second factor was shown, as in `session.start`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with_mfa: Option<String>,
    }
    /// An agent's tunnel came up or was refused.
    TunnelConnect = "tunnel.connect", "TT000I" {
        /// Host id.
        server_id: String,
        /// Name of the host.
        server_hostname: String,
        /// Whether it was accepted.
        success: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The agent's address.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    }
    /// A policy test was made or changed.
    PolicyTestCreate = "policy_test.create", "T9600I" {
        /// Who did it.
        user: String,
        /// Which test.
        name: String,
    }

    /// The next events of a writer do not continue its chain: some are missing, were changed, or come late. They are kept all the same.
    AuditChainBroken = "audit.chain_broken", "TAU00W" {
        /// A host's id, or `auth`.
        writer: String,
        /// The number that should have come first.
        expected: u64,
        /// The number that came.
        found: u64,
        /// How many of the events that follow at once do not continue it.
        breaks: u64,
    }
    /// A service drops events because its spool is full and its configuration says so, or has dropped some.
    AuditDropped = "audit.dropped", "TAU01W" {
        /// Host id of the service.
        server_id: String,
        /// How many were dropped; absent where dropping begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        /// When the first of them was.
        since: Timestamp,
        /// Why.
        error: String,
    }
    /// Old events are about to be removed, as the configured retention says.
    AuditRemove = "audit.remove", "TAU02I" {
        /// Who asked for it.
        user: String,
        /// Number of the first event that is removed.
        first: u64,
        /// Number of the last.
        last: u64,
        /// How long events are kept, in seconds.
        retention_seconds: u64,
    }
    /// A lock is about to be in force, or to be changed.
    LockCreated = "lock.created", "TLK00I" {
        /// Who did it.
        user: String,
        /// Which lock.
        name: String,
        /// What it shuts out.
        target: crate::LockTarget,
        /// What those are told who are shut out.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// Why, for administrators.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Its end; absent: until it is removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
    }
    /// A lock is about to be removed.
    LockDeleted = "lock.deleted", "TLK01I" {
        /// Who did it.
        user: String,
        /// Which lock.
        name: String,
    }
    /// Work that was under way was ended by the rules: a lock, a revocation, a certificate's end, silence.
    ClientDisconnect = "client.disconnect", "T3006I" {
        /// Whose it was; empty for a host's own link.
        user: String,
        /// As which account, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        /// Where: a node, a Kubernetes cluster, a host.
        server_hostname: String,
        /// Why.
        reason: String,
    }
    /// A connector was made or changed.
    OidcCreate = "oidc.created", "T8100I" {
        /// Who did it.
        user: String,
        /// Which connector.
        name: String,
    }
    /// A connector was removed.
    OidcDelete = "oidc.deleted", "T8101I" {
        /// Who did it.
        user: String,
        /// Which connector.
        name: String,
    }
    /// A connector was made or changed.
    GithubCreate = "github.created", "T8000I" {
        /// Who did it.
        user: String,
        /// Which connector.
        name: String,
    }
    /// A connector was removed.
    GithubDelete = "github.deleted", "T8001I" {
        /// Who did it.
        user: String,
        /// Which connector.
        name: String,
    }
    /// Somebody is about to be shown a connector with its secrets.
    ConnectorSecretsShow = "connector.secrets_shown", "TCON001W" {
        /// Who.
        user: String,
        /// Of which kind it is.
        kind: String,
        /// Which connector.
        name: String,
    }
    /// The cluster's settings of login and locks are about to change.
    AuthPreferenceUpdate = "auth_preference.update", "TCAUTH001I" {
        /// Who did it.
        user: String,
        /// Each setting that changes, before and after.
        changes: Vec<String>,
    }
    /// The cluster's settings of connections are about to change.
    NetworkingConfigUpdate = "cluster_networking_config.update", "TCNET002I" {
        /// Who did it.
        user: String,
        /// Each setting that changes, before and after.
        changes: Vec<String>,
    }
    /// The cluster's settings of recordings are about to change.
    RecordingConfigUpdate = "session_recording_config.update", "TCREC003I" {
        /// Who did it.
        user: String,
        /// Each setting that changes, before and after.
        changes: Vec<String>,
    }
    /// A session or connection was refused that the user's roles would allow, were there not as many already.
    SessionRejected = "session.rejected", "T1006W" {
        /// Whose it would have been.
        user: String,
        /// As which account, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        /// Which service refused: `node`, `kube`.
        service: String,
        /// Where: a node, a Kubernetes cluster.
        server_hostname: String,
        /// Which limit: `max_connections limit reached`.
        reason: String,
        /// How many there may be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maximum: Option<u32>,
        /// What the user was told.
        error: String,
        /// The client's address.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    }
    /// A connector was made or changed.
    SamlCreate = "saml.created", "T8200I" {
        /// Who did it.
        user: String,
        /// Which connector.
        name: String,
    }
    /// A connector was removed.
    SamlDelete = "saml.deleted", "T8201I" {
        /// Who did it.
        user: String,
        /// Which connector.
        name: String,
    }

    /// A user reaches a named service of an agent, or is turned away there.
    ServiceConnect = "service.connect", "TSV00I" {
        /// Who.
        user: String,
        /// `service@host`.
        service: String,
        /// Host id of the agent.
        server_id: String,
        /// Whether the connection was given to the service.
        success: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Where the user comes from, as the proxy says.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    }

    /// A user showed a second factor, or failed to: a security key at a login, or a code for one session.
    MfaValidate = "mfa_auth_challenge.validate", "T1016I" {
        /// Whose it is said to be.
        user: String,
        /// The factor's name, where it is one of theirs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mfa_device: Option<String>,
        /// `webauthn` or `otp`.
        mfa_device_type: String,
        /// The session it is for, where it is for one, as `with_mfa` names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// Where that is: a host id, a Kubernetes cluster or a web application.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// As which account, on nodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        /// Whether it was right.
        success: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The client's address.
        #[serde(rename = "addr.remote", default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
    }
    /// A web session was ended before its time.
    WebSessionEnd = "web_session.end", "T1017I" {
        /// Whose.
        user: String,
        /// Who did it.
        by: String,
        /// Names the session, and is no credential.
        sid: String,
    }
}
