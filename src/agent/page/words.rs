//! Times, sizes and commands as the page writes them.

use std::time::Duration;

use crate::agent::status::roughly;
use crate::clock::{Timestamp, Zone, Zoned, between};

/// Writes times as a clock on a wall shows them, seen from a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    /// The moment at which everything is told.
    pub now: Timestamp,
    /// Whose clock it is.
    pub zone: &'a Zone,
}

impl Words<'_> {
    pub(super) fn at(&self, instant: Timestamp) -> Zoned {
        self.zone.at(instant)
    }

    /// `21 Nov 06:00`, with the year where it is another one.
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
        match (
            Duration::try_from(distance.abs()).unwrap_or_default(),
            distance.is_negative(),
        ) {
            (length, _) if length.is_zero() => "now".to_owned(),
            (length, true) => format!("in {}", roughly(length)),
            (length, false) => format!("{} ago", roughly(length)),
        }
    }
}

/// How long something took, in its two largest units: `1 h 5 min`, `12 s`.
pub(super) fn took(from: Timestamp, to: Timestamp) -> String {
    length(between(from, to))
}

/// A length of time in its two largest units.
pub(super) fn length(of: Duration) -> String {
    let seconds = of.as_secs();
    let (large, small) = match seconds {
        0 if of.subsec_millis() > 0 => return format!("{} ms", of.subsec_millis()),
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

/// A number with thin gaps between its thousands.
pub(super) fn number(of: u64) -> String {
    let digits = of.to_string();
    let groups = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join("\u{202f}")
}

/// An argument as a shell takes it.
pub(super) fn quoted(argument: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+:@%,=".contains(character);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
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
        let words = Words {
            now: "2026-11-21T06:00:00Z".parse().unwrap(),
            zone: &zone,
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(words.when(at("2026-11-20T23:30:00Z")), "21 Nov 00:30");
        assert_eq!(words.when(at("2025-07-01T10:00:00Z")), "1 Jul 2025 12:00");
        assert_eq!(words.relative(at("2026-11-21T03:00:00Z")), "3 hours ago");
        assert_eq!(words.relative(at("2026-11-21T06:20:00Z")), "in 20 minutes");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
