//! How the page writes times, lengths of time, sizes, counts and commands.

use std::time::Duration;

use crate::agent::verdict::roughly;
use crate::clock::{Timestamp, Zone, Zoned, between};

/// Writes times as the clocks of a zone show them.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalTimes<'a> {
    /// The moment of the status.
    pub now: Timestamp,
    /// The zone of the clock.
    pub zone: &'a Zone,
}

impl LocalTimes<'_> {
    pub(super) fn at(&self, instant: Timestamp) -> Zoned {
        self.zone.at(instant)
    }

    /// `21 Nov 06:00`. The year is added if it is not this year.
    pub(super) fn when(&self, instant: Timestamp) -> String {
        let (at, now) = (self.at(instant), self.at(self.now));
        let pattern = if at.year() == now.year() {
            "%-d %b %H:%M"
        } else {
            "%-d %b %Y %H:%M"
        };

        at.strftime(pattern).to_string()
    }

    /// `3 hours ago`, `in 20 minutes`, `now`.
    pub(super) fn relative(&self, instant: Timestamp) -> String {
        let distance = self.now.duration_since(instant);
        let length = Duration::try_from(distance.abs()).unwrap_or_default();

        if length.is_zero() {
            "now".to_owned()
        } else if distance.is_negative() {
            format!("in {}", roughly(length))
        } else {
            format!("{} ago", roughly(length))
        }
    }
}

/// The length of time between two moments: `1 h 5 min`, `12 s`.
pub(super) fn took(from: Timestamp, to: Timestamp) -> String {
    length(between(from, to))
}

/// A length of time in its two largest units.
pub(super) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let (large, small) = match seconds {
        0 if length.subsec_millis() > 0 => return format!("{} ms", length.subsec_millis()),
        0..60 => return format!("{seconds} s"),
        60..3600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3600..86_400 => ((seconds / 3600, "h"), (seconds / 60 % 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds / 3600 % 24, "h")),
    };

    match small {
        (0, _) => format!("{} {}", large.0, large.1),
        (count, unit) => format!("{} {} {count} {unit}", large.0, large.1),
    }
}

/// Bytes in a unit that is easy to read: `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).to_string()
}

/// `1 backup`, `3 backups`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// A number with thin spaces between its thousands.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();

    groups.join("\u{202f}")
}

/// An argument as a shell takes it.
pub(super) fn quoted(argument: &str) -> String {
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// Whether a shell takes the character as it is.
fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "/._-+:@%,=".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (75, "1 min 15 s"),
            (3900, "1 h 5 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(length(Duration::from_secs(seconds)), text);
        }
        assert_eq!(length(Duration::from_millis(250)), "250 ms");
    }

    #[test]
    fn a_shell_takes_what_was_meant() {
        assert_eq!(quoted("/backups/node-1"), "/backups/node-1");
        for argument in ["", "/a b", "it's", "$(rm -rf /)", "a;b", "über\n"] {
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quoted(argument)))
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), argument);
        }
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let times = LocalTimes {
            now: "2026-11-21T06:00:00Z".parse().unwrap(),
            zone: &zone,
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(times.when(at("2026-11-20T23:30:00Z")), "21 Nov 00:30");
        assert_eq!(times.when(at("2025-07-01T10:00:00Z")), "1 Jul 2025 12:00");
        assert_eq!(times.relative(at("2026-11-21T03:00:00Z")), "3 hours ago");
        assert_eq!(times.relative(at("2026-11-21T06:20:00Z")), "in 20 minutes");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
