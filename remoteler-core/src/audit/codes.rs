//! Codes of events, for rules of SIEMs: that of the kind, or one of its own for what was refused or done to a file.

use super::AuditKind;

impl AuditKind {
    /// Code of the event; refused attempts have one of their own.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "a kind without a code for refusals has its base code")]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sftp { action, .. } => match action.as_str() {
                "setstat" => "TS007I",
                "remove" => "TS011I",
                "mkdir" => "TS012I",
                "rmdir" => "TS013I",
                "rename" => "TS016I",
                "symlink" => "TS018I",
                "link" => "TS019I",
                "summary" => "TS021I",
                _ => "TS001I",
            },
            Self::UserLogin { success: false, .. } => "T1000W",
            Self::InstanceJoin { success: false, .. } => "TJ001E",
            Self::Exec { error: Some(_), .. } => "T3002E",
            Self::Port { success: false, .. } => "T3003E",
            Self::TunnelConnect { success: false, .. } => "TT000W",
            Self::ServiceConnect { success: false, .. } => "TSV00W",
            Self::MfaValidate { success: false, .. } => "T1016W",
            other => other.base_code(),
        }
    }
}
