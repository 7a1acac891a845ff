//! The time as a host of a cluster counts it: this machine's clock, unless that is known to be wrong. A device without a battery wakes up in
//! 1970, and nothing of its cluster is valid then. Owns the correction, and how it is learned: from an auth service that has proved itself by
//! everything but the time. Never sets the machine's clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use remoteler_core::{AuthApi, Clock, SystemClock, SystemRole, Timestamp, wire};
use remoteler_tunnel::{ConnectError as TunnelError, Ways};
use rustls::CertificateError;

use crate::{
    connector::{AuthTrust, ConnectError, failure},
    remote::RemoteAuth,
};

/// A clock that can be told the right time. Clones are one clock.
#[derive(Clone, Default)]
pub struct HostClock {
    system: Option<Arc<dyn Clock>>,
    told: Arc<Mutex<Option<Told>>>,
}

/// What it was told, and when by a clock that cannot be set.
#[derive(Clone, Copy, Debug)]
struct Told {
    time: Timestamp,
    at: Instant,
}

/// Why the time was not learned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// No connection, or no belief, for another reason than the time.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The service did not say what time it is.
    #[error("{addr} does not say what time it is: {source}")]
    Silent {
        /// Where.
        addr: String,
        /// Its answer.
        source: remoteler_core::ApiError,
    },
    /// Its own certificate is not valid at the time that it says.
    #[error(
        "this machine's clock says {here} and that of {addr} says {there}, and its certificate is valid at neither time ({reason}); set both clocks"
    )]
    Neither {
        /// Where.
        addr: String,
        /// This machine's.
        here: Timestamp,
        /// The service's.
        there: Timestamp,
        /// What is wrong with it then.
        reason: String,
    },
}

impl HostClock {
    /// This machine's clock; never earlier than `floor`, when the host is known to have been running.
    #[must_use]
    pub fn not_before(floor: Option<Timestamp>) -> Self {
        Self::default().at_least(floor)
    }

    /// The same over a clock that a test sets.
    #[must_use]
    pub fn over(system: Arc<dyn Clock>, floor: Option<Timestamp>) -> Self {
        Self { system: Some(system), told: Arc::default() }.at_least(floor)
    }

    fn at_least(self, floor: Option<Timestamp>) -> Self {
        if let Some(floor) = floor.filter(|floor| self.system() < *floor) {
            self.tell(floor);
        }
        self
    }

    /// From now on it is `time`, until this machine's clock agrees with that.
    pub fn tell(&self, time: Timestamp) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Told { time, at: Instant::now() });
    }

    /// Whether it goes by what it was told.
    #[must_use]
    pub fn is_corrected(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn system(&self) -> Timestamp {
        self.system.as_ref().map_or_else(|| SystemClock.now(), |clock| clock.now())
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let system = self.system();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Told { time, at }) = *told else { return system };
        let now = time.plus(at.elapsed());
        if distance(system, now) > AGREES {
            return now;
        }
        // Somebody has set the machine's clock.
        *told = None;
        system
    }
}

impl std::fmt::Debug for HostClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostClock").field("told", &self.told).finish_non_exhaustive()
    }
}

/// Compares `clock` with what the auth service of `auth` says, and corrects it if they are more than five minutes apart, or so far that the
/// service is not even believed. `addr`, `identity` and `trust` are those that `auth` was made with.
///
/// # Errors
/// [`TimeError`]; the clock goes on as before. That nobody answers is [`TimeError::Connect`].
pub async fn align_clock(clock: &HostClock, auth: &RemoteAuth, addr: &str, trust: AuthTrust) -> Result<(), TimeError> {
    let here = clock.now();
    match auth.ping().await {
        Ok(said) if distance(here, said.server_time) <= TOLERATED => Ok(()),
        Ok(said) => tell_if_believed(clock, here, said.server_time, addr, trust, &auth.ways()).await,
        Err(_) => correct_clock_by(clock, addr, trust, &auth.ways()).await.map(drop),
    }
}

/// Finds out whether `clock` is so wrong that the auth service at `addr`, or behind the proxy there, is not believed for it, and corrects it
/// by the service's own. Whether it was corrected.
///
/// The service proves itself as always, at a time at which its certificate is valid; then it says what time it is, and must be believed at
/// that time too. So whoever cannot pass for the auth service now can move no clock, but for one who has the key of a service whose
/// authority's certificate has ended since.
///
/// # Errors
/// [`TimeError`]; the clock goes on as before.
pub async fn correct_clock(clock: &HostClock, addr: &str, trust: AuthTrust) -> Result<bool, TimeError> {
    correct_clock_by(clock, addr, trust, &Ways::default()).await
}

/// As [`correct_clock`], by `ways`.
pub(crate) async fn correct_clock_by(
    clock: &HostClock,
    addr: &str,
    trust: AuthTrust,
    ways: &Ways,
) -> Result<bool, TimeError> {
    let here = clock.now();
    let mut believed_at = here;
    for _ in 0..ATTEMPTS {
        match connect_at(believed_at, addr, trust.clone(), ways).await {
            Ok(()) => break,
            // The certificate of the authority and that of the service have a beginning and an end each.
            Err(error) => match valid_at(&error) {
                Some(time) if time != believed_at => believed_at = time,
                Some(_) | None => return Err(failure(error, "").into()),
            },
        }
    }
    if believed_at == here {
        return Ok(false);
    }
    let fixed = Arc::new(Fixed(believed_at));
    let auth = RemoteAuth::tls_by_clock(addr, None, trust.clone(), fixed)?.by(ways);
    let said = auth.ping().await.map_err(|source| TimeError::Silent { addr: addr.to_owned(), source })?;
    tell_if_believed(clock, here, said.server_time, addr, trust, ways).await?;
    Ok(true)
}

async fn tell_if_believed(
    clock: &HostClock,
    here: Timestamp,
    there: Timestamp,
    addr: &str,
    trust: AuthTrust,
    ways: &Ways,
) -> Result<(), TimeError> {
    if let Err(error) = connect_at(there, addr, trust, ways).await {
        let reason = failure(error, "").to_string();
        return Err(TimeError::Neither { addr: addr.to_owned(), here, there, reason });
    }
    clock.tell(there);
    tracing::warn!(%here, %there, addr, "this machine's clock is wrong; the cluster's time is used until it is set, and SSH sessions are refused here until then");
    Ok(())
}

async fn connect_at(time: Timestamp, addr: &str, trust: AuthTrust, ways: &Ways) -> Result<(), TunnelError> {
    let config = trust.config(None, &[SystemRole::Auth], wire::ALPN_AUTH, Arc::new(Fixed(time)));
    let config = config.map_err(|cause| TunnelError::Handshake {
        address: addr.to_owned(),
        reason: cause.to_string(),
        source: std::io::Error::other(cause),
    })?;
    ways.connect(addr, config).await.map(drop)
}

/// The nearest time at which the certificate would be valid that was refused for its time.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these of many foreign variants are about time")]
fn valid_at(error: &TunnelError) -> Option<Timestamp> {
    let TunnelError::Handshake { source, .. } = error else { return None };
    let seconds = |time: &rustls::pki_types::UnixTime| i64::try_from(time.as_secs()).ok();
    let at = match source.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => not_before,
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => not_after,
        _ => return None,
    };
    seconds(at).map(Timestamp::from_unix_seconds)
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    if one > other { one.since(other) } else { other.since(one) }
}

/// A time that stands still.
struct Fixed(Timestamp);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// So near, this machine's clock counts as right.
const AGREES: Duration = Duration::from_secs(60);
/// So far from the cluster's time a host may go by its own.
const TOLERATED: Duration = Duration::from_secs(300);
/// A chain of two certificates has four ends; one more shows that it is valid at the last.
const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use remoteler_core::ManualClock;

    use super::*;

    const EPOCH: Timestamp = Timestamp::from_unix_seconds(0);
    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    #[test]
    fn a_clock_that_was_told_the_time_goes_by_it_until_the_machine_agrees() {
        let system = Arc::new(ManualClock::new(EPOCH));
        let clock = HostClock::over(system.clone(), None);
        assert_eq!(clock.now(), EPOCH);
        clock.tell(NOW);
        assert!(clock.now() >= NOW && clock.now() < NOW.plus(Duration::from_secs(60)));
        system.set(NOW.plus(Duration::from_secs(20)));
        assert_eq!(clock.now(), NOW.plus(Duration::from_secs(20)));
        assert!(!clock.is_corrected());
        // From then on the machine's clock counts again, also when it jumps.
        system.set(NOW.plus(Duration::from_secs(7200)));
        assert_eq!(clock.now(), NOW.plus(Duration::from_secs(7200)));
    }

    #[test]
    fn a_host_that_has_run_before_does_not_wake_up_before_that() {
        let system = Arc::new(ManualClock::new(EPOCH));
        assert!(HostClock::over(system.clone(), Some(NOW)).now() >= NOW);
        system.set(NOW.plus(Duration::from_secs(86_400)));
        let clock = HostClock::over(system, Some(NOW));
        assert!(!clock.is_corrected());
        assert_eq!(clock.now(), NOW.plus(Duration::from_secs(86_400)));
    }

    #[test]
    fn clones_are_one_clock() {
        let clock = HostClock::over(Arc::new(ManualClock::new(EPOCH)), None);
        let other = clock.clone();
        clock.tell(NOW);
        assert!(other.now() >= NOW);
    }
}
