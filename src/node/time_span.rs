//! A length of time as .NET writes it: `[-][d.]hh:mm:ss[.fffffff]` (http-api §2.3).

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Reads a length of time. A negative one is zero: it is over. Returns `None` for another text.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if let Some(positive) = text.strip_prefix('-') {
        return parse(positive).map(|_| Duration::ZERO);
    }

    let mut fields = text.split(':');
    let (first, minutes, seconds) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }

    let (days, hours) = first.split_once('.').unwrap_or(("0", first));
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }

    let mut total = number(days)?.checked_mul(DAY)?;
    for (value, length, limit) in [(hours, HOUR, 24), (minutes, MINUTE, 60), (seconds, 1, 60)] {
        let value = number(value).filter(|value| *value < limit)?;
        total = total.checked_add(value * length)?;
    }
    Some(Duration::from_secs(total))
}

/// A number of digits alone: `u64::from_str` also takes a sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_fractions_may_be_missing() {
        let seconds = |text: &str| parse(text).map(|length| length.as_secs());
        assert_eq!(seconds("00:00:00"), Some(0));
        assert_eq!(seconds("13:14:32.6299115"), Some(47_672));
        assert_eq!(seconds("1.13:14:32.6299115"), Some(134_072));
        assert_eq!(seconds("10675199.02:48:05.4775807"), Some(922_337_203_685));
        assert_eq!(seconds("-00:00:05"), Some(0), "it is over");
    }

    #[test]
    fn another_text_is_no_length() {
        for text in [
            "",
            "5",
            "00:00",
            "1:2:3:4",
            "24:00:00",
            "00:60:00",
            "00:00:60",
            "+1:00:00",
            "a:00:00",
            "1.:00:00",
            "00:00:00.x",
            "18446744073709551615.00:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
