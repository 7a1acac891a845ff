//! The line that `ls -l` of sftp(1) prints for an entry. Times are in UTC: the server does not know where its user is.

use std::{collections::HashMap, fs::Metadata, os::unix::fs::MetadataExt, time::SystemTime};

use nix::unistd::{Gid, Group, Uid, User};

/// Names of users and groups, looked up once each.
#[derive(Default)]
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    /// `-rw-r--r--    1 root     root         1234 Nov 20 19:44 name`
    pub(super) fn line(&mut self, name: &[u8], metadata: &Metadata) -> Vec<u8> {
        let user = self.users.entry(metadata.uid()).or_insert_with_key(|uid| {
            let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name)
        });
        let group = self.groups.entry(metadata.gid()).or_insert_with_key(|gid| {
            let group = Group::from_gid(Gid::from_raw(*gid)).ok().flatten();
            group.map_or_else(|| gid.to_string(), |group| group.name)
        });
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let (mode, links, size) = (mode_text(metadata.mode()), metadata.nlink(), metadata.size());
        let when = time_text(metadata.mtime(), now);
        let mut line = format!("{mode} {links:>4} {user:<8} {group:<8} {size:>8} {when} ").into_bytes();
        line.extend_from_slice(name);
        line
    }
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letters) in [(6, 0o4000, ('s', 'S')), (3, 0o2000, ('s', 'S')), (0, 0o1000, ('t', 'T'))] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letters.0,
            (false, true) => letters.1,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// With the time of day when it is less than half a year from `now`, else with the year.
fn time_text(seconds: i64, now: i64) -> String {
    const HALF_YEAR: i64 = 365 * 86_400 / 2;
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let month = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???");
    let (hour, minute) = (seconds.rem_euclid(86_400) / 3600, seconds.rem_euclid(3600) / 60);
    if seconds.abs_diff(now) < HALF_YEAR.unsigned_abs() {
        format!("{month} {day:>2} {hour:02}:{minute:02}")
    } else {
        format!("{month} {day:>2}  {year:>4}")
    }
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times_look_like_those_of_ls() {
        assert_eq!(mode_text(0o100_644), "-rw-r--r--");
        assert_eq!(mode_text(0o041_777), "drwxrwxrwt");
        assert_eq!(mode_text(0o104_655), "-rwSr-xr-x");
        let moment = 1_772_366_400; // 2026-03-01T12:00:00Z
        assert_eq!(time_text(moment, moment), "Mar  1 12:00");
        assert_eq!(time_text(moment, moment + 200 * 86_400), "Mar  1  2026");
        assert_eq!(time_text(951_782_400, moment), "Feb 29  2000");
    }
}
