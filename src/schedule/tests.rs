use proptest::prelude::*;

use super::*;
use crate::clock::Zone;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}

fn at(text: &str) -> Zoned {
    text.parse().unwrap()
}

/// Everything that takes place after `from` and before `to`, as the zone's wall shows it.
fn occurrences(text: &str, from: &str, to: &str) -> Vec<String> {
    let (schedule, to) = (schedule(text), at(to));
    let after = at(from);
    let all = std::iter::successors(schedule.next(&after), |occurrence| {
        schedule.next(occurrence)
    });
    all.take_while(|occurrence| *occurrence < to)
        .map(|occurrence| occurrence.strftime("%d %H:%M %:z").to_string())
        .collect()
}

#[test]
fn off_never_takes_place() {
    let now = at("2026-06-01T12:00[UTC]");
    assert!(schedule("off").is_off() && !schedule("1h").is_off());
    assert_eq!(
        (
            schedule("off").next(&now),
            schedule("off").due(None, &now, &now)
        ),
        (None, None)
    );
}

#[test]
fn an_interval_counts_from_the_beginning_of_the_last_run() {
    let (hourly, now) = (schedule("every 1h"), at("2026-06-01T12:20[Europe/Berlin]"));
    let due = |last: &str| hourly.due(Some(&at(last)), &now, &now).unwrap();
    assert_eq!(
        due("2026-06-01T11:50[Europe/Berlin]"),
        at("2026-06-01T12:50[Europe/Berlin]")
    );
    assert!(due("2026-05-29T11:50[Europe/Berlin]") <= now);
    assert!(
        hourly.due(None, &now, &now).unwrap() <= now,
        "what never ran is due at once"
    );
    // A day without an hour has 23 of them.
    assert_eq!(
        schedule("24h").next(&at("2026-03-28T12:00[Europe/Berlin]")),
        Some(at("2026-03-29T13:00[Europe/Berlin]"))
    );
}

#[test]
fn a_missed_run_is_made_up_once() {
    let (hourly, started) = (schedule("0 * * * *"), at("2026-06-04T09:10[UTC]"));
    let last = at("2026-06-01T09:00[UTC]");
    assert!(hourly.due(Some(&last), &started, &started).unwrap() <= started);
    // The made-up run began when the agent did.
    let now = at("2026-06-04T09:40[UTC]");
    assert_eq!(
        hourly.due(Some(&started), &started, &now),
        Some(at("2026-06-04T10:00[UTC]"))
    );
}

#[test]
fn what_never_ran_waits_for_its_time_and_then_is_due() {
    let (night, started) = (schedule("0 3 * * *"), at("2026-06-01T12:00[UTC]"));
    let due = at("2026-06-02T03:00[UTC]");
    for now in [
        "2026-06-01T12:00[UTC]",
        "2026-06-02T02:59[UTC]",
        "2026-06-02T03:00[UTC]",
        "2026-06-02T08:00[UTC]",
    ] {
        assert_eq!(
            night.due(None, &started, &at(now)),
            Some(due.clone()),
            "{now}"
        );
    }
}

#[test]
fn a_last_run_in_the_future_silences_nothing() {
    let now = at("2026-06-01T12:00[UTC]");
    let ahead = at("2026-06-02T12:00[UTC]");
    for text in ["0 * * * *", "1h", "@daily"] {
        assert_eq!(
            schedule(text).due(Some(&ahead), &now, &now),
            Some(now.clone()),
            "{text}"
        );
        assert_eq!(
            schedule(text).due(None, &ahead, &now),
            Some(now.clone()),
            "{text}"
        );
    }
    // A clock that was set back by seconds while a run began makes no second one.
    let corrected = at("2026-06-01T12:00:30[UTC]");
    assert_eq!(
        schedule("0 * * * *").due(Some(&corrected), &now, &now),
        Some(at("2026-06-01T13:00[UTC]"))
    );
    assert_eq!(
        schedule("1h").due(Some(&corrected), &now, &now),
        Some(at("2026-06-01T13:00:30[UTC]"))
    );
}

#[test]
fn a_clock_that_jumps_a_day_ahead_makes_one_run() {
    let (hourly, jumped) = (schedule("0 * * * *"), at("2026-06-02T12:00:07[UTC]"));
    let last = at("2026-06-01T12:00[UTC]");
    assert!(hourly.due(Some(&last), &last, &jumped).unwrap() <= jumped);
    assert_eq!(
        hourly.due(Some(&jumped), &last, &jumped),
        Some(at("2026-06-02T13:00[UTC]"))
    );
}

/// Berlin sets its clocks forward at 02:00 on 2026-03-29, and back at 03:00 on 2026-10-25.
#[test]
fn a_time_of_the_day_takes_place_once_a_day_when_clocks_are_changed() {
    let spring = (
        "2026-03-28T00:00[Europe/Berlin]",
        "2026-03-31T00:00[Europe/Berlin]",
    );
    let autumn = (
        "2026-10-24T00:00[Europe/Berlin]",
        "2026-10-27T00:00[Europe/Berlin]",
    );
    assert_eq!(
        occurrences("30 2 * * *", spring.0, spring.1),
        ["28 02:30 +01:00", "29 03:00 +02:00", "30 02:30 +02:00"]
    );
    assert_eq!(
        occurrences("30 2 * * *", autumn.0, autumn.1),
        ["24 02:30 +02:00", "25 02:30 +02:00", "26 02:30 +01:00"]
    );
    // Several times of a day are as good as one.
    let (from, to) = (
        "2026-03-29T00:00[Europe/Berlin]",
        "2026-03-30T00:00[Europe/Berlin]",
    );
    assert_eq!(
        occurrences("30 2,14 * * *", from, to),
        ["29 03:00 +02:00", "29 14:30 +02:00"]
    );
    assert_eq!(
        occurrences("0,30 2,3 * * *", from, to),
        ["29 03:00 +02:00", "29 03:30 +02:00"]
    );
    let (from, to) = (
        "2026-10-25T00:00[Europe/Berlin]",
        "2026-10-26T00:00[Europe/Berlin]",
    );
    assert_eq!(
        occurrences("30 2,14 * * *", from, to),
        ["25 02:30 +02:00", "25 14:30 +01:00"]
    );
    assert_eq!(
        occurrences("*/30 2 * * *", from, to),
        ["25 02:00 +02:00", "25 02:30 +02:00"]
    );
}

#[test]
fn each_hour_is_one_that_really_passes() {
    let (from, to) = (
        "2026-03-29T00:30[Europe/Berlin]",
        "2026-03-29T04:30[Europe/Berlin]",
    );
    assert_eq!(
        occurrences("0 * * * *", from, to),
        ["29 01:00 +01:00", "29 03:00 +02:00", "29 04:00 +02:00"]
    );
    let (from, to) = (
        "2026-10-25T01:30[Europe/Berlin]",
        "2026-10-25T03:30[Europe/Berlin]",
    );
    for text in ["0 * * * *", "@hourly"] {
        assert_eq!(
            occurrences(text, from, to),
            ["25 02:00 +02:00", "25 02:00 +01:00", "25 03:00 +01:00"],
            "{text}"
        );
    }
    assert_eq!(
        occurrences("0 */2 * * *", from, to),
        ["25 02:00 +02:00", "25 02:00 +01:00"]
    );
}

#[test]
fn a_whole_day_that_is_left_out() {
    // Samoa had no 30th of December 2011.
    let (from, to) = (
        "2011-12-29T00:00[Pacific/Apia]",
        "2012-01-01T00:00[Pacific/Apia]",
    );
    assert_eq!(
        occurrences("30 2 * * *", from, to),
        ["29 02:30 -10:00", "31 00:00 +14:00", "31 02:30 +14:00"]
    );
}

#[test]
fn ends_of_months_and_years_and_leap_days() {
    let next = |text: &str, after: &str| schedule(text).next(&at(after)).unwrap();
    assert_eq!(
        next("@daily", "2026-12-31T23:59:59[UTC]"),
        at("2027-01-01T00:00[UTC]")
    );
    assert_eq!(
        next("@monthly", "2026-12-31T23:59:59[UTC]"),
        at("2027-01-01T00:00[UTC]")
    );
    assert_eq!(
        next("@weekly", "2026-12-31T00:00[UTC]"),
        at("2027-01-03T00:00[UTC]")
    );
    assert_eq!(
        next("0 0 29 2 *", "2096-02-29T00:00[UTC]"),
        at("2104-02-29T00:00[UTC]")
    );
    assert_eq!(
        next("0 4 L * *", "2028-02-01T00:00[UTC]"),
        at("2028-02-29T04:00[UTC]")
    );
    assert_eq!(
        next("0 3 * * sun", "2026-06-07T03:00[UTC]"),
        at("2026-06-14T03:00[UTC]")
    );
    assert_eq!(
        next("0 3 * * *", "2026-06-07T02:59:59.999[UTC]"),
        at("2026-06-07T03:00[UTC]")
    );
}

#[test]
fn the_end_of_the_calendar() {
    let last = at("9999-12-30T22:00:00[UTC]");
    for text in ["99999999d", "0 0 29 2 *", "* * * * *"] {
        assert_eq!(schedule(text).next(&last), None, "{text}");
    }
}

#[test]
fn what_is_no_schedule_is_explained() {
    for (text, why) in [
        ("", "not a length of time"),
        ("sometimes", "not a length of time"),
        ("5", "no unit"),
        ("0s", "at least a second"),
        ("every", "not a length of time"),
        ("every day", "not a length of time"),
        ("0 2 * *", "it has 4 fields instead of five"),
        ("0 0 2 * * *", "it has 6 fields instead of five"),
        ("@yearly", "@monthly"),
        ("@reboot", "@monthly"),
        ("0 0 30 2 *", "there is no such day"),
        ("0 0 31 4,6 *", "there is no such day"),
        ("61 * * * *", ""),
        ("* 24 * * *", ""),
        ("* * * * lundi", ""),
        ("* * * * @daily", ""),
        ("*/0 * * * *", ""),
    ] {
        let error = text.parse::<Schedule>().unwrap_err();
        assert!(
            error.contains(why) && error.contains("such as `1h`"),
            "{text}: {error}"
        );
    }
}

#[test]
fn it_shows_itself_as_it_was_written() {
    for (text, shown) in [
        ("off", "off"),
        ("every 90s", "90s"),
        ("120m", "2h"),
        (" 30  2 * * mon-fri ", "30 2 * * mon-fri"),
        ("@daily", "@daily"),
    ] {
        assert_eq!(schedule(text).to_string(), shown);
        assert_eq!(schedule(shown), schedule(text));
    }
}

#[test]
fn pauses_after_failures() {
    let minutes = |failures| back_off(failures).as_secs_f64() / 60.0;
    let pauses: Vec<f64> = (0..9).map(minutes).collect();
    assert_eq!(pauses, [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    for failures in [32, 33, 34, 1000, u32::MAX] {
        assert_eq!(back_off(failures), LONGEST_PAUSE, "{failures}");
    }
}

#[test]
fn a_retry_is_never_later_than_the_next_occurrence() {
    let ended = at("2026-06-01T11:58[UTC]");
    assert_eq!(
        schedule("0 * * * *").retry(&ended, 1),
        Some(at("2026-06-01T11:59[UTC]"))
    );
    assert_eq!(
        schedule("0 * * * *").retry(&ended, 20),
        Some(at("2026-06-01T12:00[UTC]"))
    );
    assert_eq!(
        schedule("@daily").retry(&ended, 20),
        Some(at("2026-06-01T12:58[UTC]"))
    );
    assert_eq!(
        schedule("off").retry(&ended, 3),
        Some(at("2026-06-01T12:02[UTC]"))
    );
}

#[test]
fn jitter_is_spread_evenly_and_stays_as_it_is() {
    let limit = Duration::from_mins(10);
    let occurrence = |number: i64| Timestamp::from_second(1_780_000_000 + number * 3600).unwrap();
    let mut tenths = [0; 10];
    for number in 0..2000 {
        let late = jitter(limit, "a", occurrence(number));
        assert_eq!(late, jitter(limit, "a", occurrence(number)));
        assert!(late < limit);
        tenths[usize::try_from(late.as_secs() / 60).unwrap()] += 1;
    }
    assert!(
        tenths.iter().all(|count| (140..260).contains(count)),
        "{tenths:?}"
    );
    let equal = (0..2000)
        .filter(|number| {
            jitter(limit, "a", occurrence(*number)) == jitter(limit, "b", occurrence(*number))
        })
        .count();
    assert_eq!(equal, 0);
    assert_eq!(jitter(Duration::ZERO, "a", occurrence(0)), Duration::ZERO);
    assert!(jitter(Duration::MAX, "a", occurrence(0)) < Duration::MAX);
}

#[test]
fn changes_are_due_by_size_or_age() {
    let both: OnChange = "64MiB or 5m".parse().unwrap();
    let minutes = |minutes| Some(Duration::from_mins(minutes));
    assert!(both.is_due(64 << 20, None) && both.is_due(1, minutes(5)));
    assert!(!both.is_due((64 << 20) - 1, minutes(4)));
    assert!(
        !both.is_due(0, minutes(60)) && !both.is_due(0, None),
        "nothing written"
    );
    assert_eq!(
        (
            both.due_in(1, minutes(4)),
            both.due_in(1, minutes(9)),
            both.due_in(0, minutes(9))
        ),
        (minutes(1), minutes(0), None)
    );
    let size: OnChange = "64MiB".parse().unwrap();
    assert!(size.is_due(u64::MAX, None) && !size.is_due(1, minutes(60)));
    let age: OnChange = "5m".parse().unwrap();
    assert!(age.is_due(1, minutes(5)) && !age.is_due(u64::MAX, None));
    let off: OnChange = "off".parse().unwrap();
    assert!(off.is_off() && !off.is_due(u64::MAX, minutes(60)));
}

#[test]
fn limits_of_changes_as_they_are_written() {
    for (text, shown) in [
        ("64MiB or 5m", "64MiB or 5m"),
        ("64 MiB or 5 min", "64MiB or 5m"),
        ("5m or 64MiB", "64MiB or 5m"),
        ("200001B", "200001B"),
        ("1024KiB", "1MiB"),
        ("off", "off"),
        ("1000B or 90s", "1000B or 90s"),
    ] {
        let limits: OnChange = text.parse().unwrap();
        assert_eq!(
            (limits.to_string().as_str(), shown.parse()),
            (shown, Ok(limits)),
            "{text}"
        );
    }
    for text in [
        "",
        "64",
        "64M",
        "5",
        "0B",
        "0s",
        "64MiB or",
        "or 5m",
        "64MiB or 1GiB",
        "5m or 1h",
        "64MiB and 5m",
        "off or 5m",
        "1XB",
    ] {
        let error = text.parse::<OnChange>().unwrap_err();
        assert!(error.contains("64MiB or 5m"), "{text}: {error}");
    }
}

/// Fields of cron expressions, without those that no day is like.
fn expressions() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        Just("*".to_owned()),
        Just("*/7".to_owned()),
        (0..60_u8).prop_map(|one| one.to_string()),
        Just("0,30".to_owned())
    ];
    let hour = prop_oneof![
        Just("*".to_owned()),
        Just("*/5".to_owned()),
        (0..24_u8).prop_map(|one| one.to_string()),
        Just("1-3".to_owned())
    ];
    let day = prop_oneof![4 => Just("*"), 1 => Just("1"), 1 => Just("28,29"), 1 => Just("L")];
    let month = prop_oneof![4 => Just("*"), 1 => Just("*/3"), 1 => Just("mar,oct")];
    let weekday = prop_oneof![4 => Just("*"), 1 => Just("sun"), 1 => Just("mon-fri")];
    (minute, hour, day, month, weekday).prop_map(|(minute, hour, day, month, weekday)| {
        format!("{minute} {hour} {day} {month} {weekday}")
    })
}

fn schedules() -> impl Strategy<Value = String> {
    prop_oneof![6 => expressions(), 1 => (1..100_000_u32, prop_oneof![Just('s'), Just('m'), Just('h')]).prop_map(|(number, unit)| format!("every {number}{unit}"))]
}

/// Zones whose clocks are changed by an hour, by half of one, four times a year, at midnight,
/// never.
const ZONES: [&str; 7] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Kathmandu",
    "Pacific/Chatham",
];

proptest! {
    #[test]
    fn the_next_one_lies_after_and_none_between(text in schedules(), zone in 0..ZONES.len(), second in 0..63_072_000_i64, later in 0..86_400_i64) {
        let schedule = schedule(&text);
        let zone: Zone = ZONES[zone].parse().unwrap();
        let instant = |second| zone.at(Timestamp::from_second(1_767_225_600 + second).unwrap());
        let after = instant(second);
        let next = schedule.next(&after).unwrap();
        prop_assert!(next > after);
        let next_later = schedule.next(&instant(second + later)).unwrap();
        prop_assert!(next_later >= next, "{next_later} < {next}");
        if text.split(' ').count() == 5 && instant(second + later) < next {
            prop_assert_eq!(next_later, next);
        }
    }

    #[test]
    fn text_reads_back(text in schedules()) {
        let schedule = schedule(&text);
        prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-0-9a-z@*/,+#?LW ]{0,20}|\\PC{0,12}") {
        let _ = text.parse::<Schedule>();
        let _ = text.parse::<OnChange>();
        let _ = text.parse::<Zone>();
    }
}

/// The sequence over a year against each quarter of an hour in it, looked at one by one.
#[test]
fn a_year_holds_each_occurrence_once() {
    for name in ZONES {
        let zone: Zone = name.parse().unwrap();
        let begin = at(&format!("2026-01-01T00:00[{name}]"));
        let end = begin.timestamp() + jiff::SignedDuration::from_hours(366 * 24);
        let quarters = begin
            .timestamp()
            .series(jiff::Span::new().minutes(15))
            .skip(1)
            .take_while(|instant| *instant < end);
        let quarters: Vec<Zoned> = quarters.map(|instant| zone.at(instant)).collect();
        let sequence = |text: &str| -> Vec<Zoned> {
            let schedule = schedule(text);
            std::iter::successors(schedule.next(&begin), |last| schedule.next(last))
                .take_while(|next| next.timestamp() < end)
                .collect()
        };
        let real: Vec<Zoned> = quarters
            .iter()
            .filter(|quarter| quarter.minute() == 0)
            .cloned()
            .collect();
        assert_eq!(sequence("0 * * * *"), real, "{name}");
        // Once on each day, and where the wall shows it at all, when it does so first.
        for (text, hour, minute) in [
            ("30 2 * * *", 2, 30),
            ("15 0 * * *", 0, 15),
            ("45 1 * * *", 1, 45),
        ] {
            let mut shown = std::collections::BTreeMap::new();
            for quarter in quarters
                .iter()
                .filter(|quarter| (quarter.hour(), quarter.minute()) == (hour, minute))
            {
                shown.entry(quarter.date()).or_insert(quarter);
            }
            let found = sequence(text);
            let days: std::collections::BTreeSet<_> = found.iter().map(Zoned::date).collect();
            assert_eq!((days.len(), found.len()), (366, 366), "{name} {text}");
            for occurrence in &found {
                assert!(
                    shown
                        .get(&occurrence.date())
                        .is_none_or(|first| *first == occurrence),
                    "{name} {text} {occurrence}"
                );
            }
        }
    }
}
