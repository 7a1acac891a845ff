//! What a certificate is for. Owns the table of purposes: who signs it, what it says, how long it may last. Never builds one.

use remoteler_core::CaKind;

/// What one certificate is good for. Every certificate has exactly one purpose; the lint rules hold it to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// A user of the cluster, at its services.
    User,
    /// A host of the cluster.
    Host,
    /// A user, for one Kubernetes cluster and nothing else.
    KubeClient,
    /// A user, for one web application and nothing else.
    AppClient,
    /// A client of a database.
    DatabaseClient,
    /// A smart-card logon at a Windows desktop.
    SmartCard,
    /// A TLS server that is no host of the cluster.
    Server,
    /// A user at OpenSSH servers that are not ours.
    OpensshUser,
    /// An OpenSSH server that is not ours.
    OpensshHost,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::User,
        Self::Host,
        Self::KubeClient,
        Self::AppClient,
        Self::DatabaseClient,
        Self::SmartCard,
        Self::Server,
        Self::OpensshUser,
        Self::OpensshHost,
    ];

    /// The authority that signs it (I1).
    #[must_use]
    pub const fn authority(self) -> CaKind {
        match self {
            Self::User
            | Self::KubeClient
            | Self::AppClient
            | Self::DatabaseClient
            | Self::SmartCard
            | Self::OpensshUser => CaKind::User,
            Self::Host | Self::Server | Self::OpensshHost => CaKind::Host,
        }
    }

    /// As it is written in errors and audit events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::KubeClient => "kubernetes client",
            Self::AppClient => "application client",
            Self::DatabaseClient => "database client",
            Self::SmartCard => "smart card",
            Self::Server => "server",
            Self::OpensshUser => "openssh user",
            Self::OpensshHost => "openssh host",
        }
    }

    /// Whether it holds an identity of the cluster. Our verifiers refuse every certificate without one, so what is made for others is
    /// worth nothing at our listeners.
    #[must_use]
    pub const fn has_identity(self) -> bool {
        match self {
            Self::User | Self::Host | Self::KubeClient | Self::AppClient => true,
            Self::DatabaseClient | Self::SmartCard | Self::Server | Self::OpensshUser | Self::OpensshHost => false,
        }
    }

    /// Whether it may come without an end (I6): hosts only, whose authority's rotation ends them.
    #[must_use]
    pub const fn may_last_for_ever(self) -> bool {
        matches!(self.authority(), CaKind::Host)
    }

    /// Object identifiers of the extended key usages, in the order in which they are written.
    pub(crate) const fn usages(self) -> &'static [&'static [u64]] {
        match self {
            Self::User | Self::KubeClient | Self::AppClient | Self::DatabaseClient => &[CLIENT_AUTH],
            Self::Host => &[SERVER_AUTH, CLIENT_AUTH],
            Self::Server => &[SERVER_AUTH],
            Self::SmartCard => &[CLIENT_AUTH, SMART_CARD_LOGON],
            Self::OpensshUser | Self::OpensshHost => &[],
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// RFC 5280 section 4.2.1.12.
pub(crate) const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
/// `szOID_KP_SMARTCARD_LOGON` (MS-WCCE section 2.2.2.7.7.2 and wincrypt.h).
pub(crate) const SMART_CARD_LOGON: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 2];
