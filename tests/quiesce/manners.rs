//! What kbackup does not take from a node: an auto-scavenge that only waits, and a scavenge that may
//! not be stopped. And a scavenge that it stopped starts again as it was.

use kbackup::error::Cause;
use kbackup_testnode::Parameters;

use super::*;

const FAR: Duration = Duration::from_secs(37 * 3600);

/// A node whose auto-scavenge waits for a cycle.
fn waiting(next_cycle: Option<Duration>) -> Setting {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    setting
        .node
        .change_quirks(|quirks| quirks.next_cycle = next_cycle);
    setting
}

fn becomes(setting: &Setting, state: AutoScavengeState) {
    setting
        .node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::Licensed(state));
}

impl Setting {
    fn quiesce_with<'a>(
        &'a self,
        session: &'a Session,
        settings: QuiesceSettings,
    ) -> kbackup::error::Result<QuiescedOnline<'a>> {
        quiesce(session, &self.records, &self.files(), settings, &self.run)
    }
}

#[test]
fn an_auto_scavenge_that_only_waits_is_left_alone() {
    let setting = waiting(Some(FAR));
    let session = setting.session();

    let quiet = setting.quiesce(&session).unwrap();
    assert_eq!(
        setting.node.auto_scavenge(),
        Some(AutoScavengeState::Waiting)
    );
    assert!(!quiet.scavenging().auto_paused && quiet.release_record().is_none());
    assert_eq!(quiet.scavenging().auto_found.as_deref(), Some("Waiting"));
    assert_eq!(
        quiet.check_undisturbed().unwrap(),
        QuiesceCheck::Undisturbed
    );
    quiet.release().unwrap();

    assert!(setting.changes().is_empty(), "{:?}", setting.changes());
    assert_eq!(setting.records.last_stop(&session), None);
}

#[test]
fn a_cycle_that_may_begin_during_the_copy_is_held_off() {
    for next_cycle in [None, Some(Duration::ZERO), Some(Duration::from_secs(300))] {
        let setting = waiting(next_cycle);
        let session = setting.session();

        let quiet = setting.quiesce(&session).unwrap();
        assert!(quiet.scavenging().auto_paused, "{next_cycle:?}");
        quiet.release().unwrap();
        assert_eq!(
            setting.node.auto_scavenge(),
            Some(AutoScavengeState::Waiting)
        );
        assert_eq!(
            setting.records.last_stop(&session),
            None,
            "no scavenge was interrupted"
        );
    }

    // A copy that takes longer reaches further.
    let setting = waiting(Some(FAR));
    let session = setting.session();
    let long = QuiesceSettings {
        copy_takes: FAR * 2,
        ..settings()
    };
    let quiet = setting.quiesce_with(&session, long).unwrap();
    assert!(quiet.scavenging().auto_paused);
    quiet.release().unwrap();
}

#[test]
fn a_cycle_that_begins_nevertheless_is_a_disturbance() {
    for before in [
        AutoScavengeState::Waiting,
        AutoScavengeState::Paused,
        AutoScavengeState::NotConfigured,
    ] {
        let setting = waiting(Some(FAR));
        becomes(&setting, before);
        let session = setting.session();
        let mut quiet = setting.quiesce(&session).unwrap();

        becomes(&setting, AutoScavengeState::InProgress);
        let QuiesceCheck::Disturbed(why) = quiet.check_undisturbed().unwrap() else {
            panic!("a cycle began, before: {before:?}")
        };
        assert!(why.contains("began a cycle"), "{why}");

        quiet.quiesce_again().unwrap();
        assert!(quiet.scavenging().auto_paused);
        assert_eq!(
            quiet.check_undisturbed().unwrap(),
            QuiesceCheck::Undisturbed
        );
        assert!(setting.records.last_stop(&session).is_some());

        quiet.release().unwrap();
        assert_eq!(
            setting.node.auto_scavenge(),
            Some(AutoScavengeState::Waiting)
        );
    }

    // Somebody resumed what somebody else had paused, and no cycle is near.
    let setting = waiting(Some(FAR));
    becomes(&setting, AutoScavengeState::Paused);
    let session = setting.session();
    let quiet = setting.quiesce(&session).unwrap();
    becomes(&setting, AutoScavengeState::Waiting);
    assert_eq!(
        quiet.check_undisturbed().unwrap(),
        QuiesceCheck::Undisturbed
    );
}

#[test]
fn a_cluster_between_two_leaders_does_not_fail_the_last_look() {
    let setting = waiting(Some(FAR));
    let session = setting.session();
    let quiet = setting.quiesce(&session).unwrap();
    setting
        .node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::NoLeader);

    assert_eq!(
        quiet.check_undisturbed().unwrap(),
        QuiesceCheck::Undisturbed
    );
}

#[test]
fn a_pause_takes_nothing_until_the_cycle_would_begin() {
    let brief = QuiesceSettings {
        copy_takes: FAR * 2,
        max_pause: Duration::from_millis(300),
        ..settings()
    };

    let setting = waiting(Some(FAR));
    let session = setting.session();
    let quiet = setting.quiesce_with(&session, brief.clone()).unwrap();
    assert!(quiet.scavenging().auto_paused);
    setting.run.pause(Duration::from_millis(900)).unwrap();
    quiet.release().unwrap();

    // A scavenge that is stopped later starts the time at once.
    let setting = waiting(Some(FAR));
    setting.node.start_scavenge(None).unwrap();
    let session = setting.session();
    let quiet = setting.quiesce_with(&session, brief);
    let error = match quiet {
        Ok(_quiet) => setting.run.pause(Duration::from_secs(60)).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Interrupted(Cause::PausedTooLong));
}

#[test]
fn a_scavenge_that_may_not_be_stopped_goes_on() {
    let polite = QuiesceSettings {
        may_stop_scavenges: false,
        ..settings()
    };
    let refused = |setting: &Setting| {
        let session = setting.session();
        let error = setting
            .quiesce_with(&session, polite.clone())
            .map(drop)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.kind().exit_code()),
            (Kind::Scavenging, 22)
        );
        assert_eq!(setting.records(), 0);
        error.what().to_owned()
    };

    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let scavenge = setting.node.start_scavenge(None).unwrap();
        assert_eq!(refused(&setting), format!("scavenge {scavenge} runs"));
        assert_eq!(setting.node.current_scavenge(), Some(scavenge));
    }

    for state in [AutoScavengeState::InProgress, AutoScavengeState::Pausing] {
        let setting = Setting::licensed("26.1-append", state);
        setting
            .node
            .change_quirks(|quirks| quirks.pausing_for = Duration::from_secs(3600));
        assert!(refused(&setting).contains("auto-scavenge runs a cycle in the cluster"));
        assert_eq!(setting.node.auto_scavenge(), Some(state));
        assert!(setting.changes().is_empty());
    }

    // A pause before the next cycle interrupts nothing.
    let setting = waiting(Some(Duration::ZERO));
    let session = setting.session();
    let quiet = setting.quiesce_with(&session, polite).unwrap();
    assert!(quiet.scavenging().auto_paused);
    quiet.release().unwrap();
}

#[test]
fn a_scavenge_starts_again_with_the_parameters_that_the_node_tells() {
    let parameters = Parameters {
        threads: 4,
        start_from_chunk: 2,
    };
    let posted = |recording: &str, settings: QuiesceSettings| {
        let setting = Setting::new(recording);
        setting.node.start_scavenge_with(None, parameters).unwrap();
        let session = setting.session();
        let quiet = setting.quiesce_with(&session, settings).unwrap();
        quiet.release().unwrap();
        setting.posts("/admin/scavenge").concat()
    };

    assert_eq!(
        posted("21.10-append", settings()),
        "/admin/scavenge?threads=4&startFromChunk=2"
    );
    let chosen = QuiesceSettings {
        threads: Some(2),
        ..settings()
    };
    assert_eq!(
        posted("21.10-append", chosen),
        "/admin/scavenge?threads=2&startFromChunk=2"
    );

    // These do not tell.
    assert_eq!(
        posted("20.10-append", settings()),
        "/admin/scavenge?threads=1"
    );
    assert_eq!(
        posted("26.1-append", settings()),
        "/admin/scavenge?syncOnly=true&threads=1&throttlePercent=100"
    );
}

#[test]
fn an_interrupted_scavenge_is_remembered_when_its_record_is_gone() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::InProgress);
    let session = setting.session();
    assert_eq!(setting.records.last_stop(&session), None);
    setting.quiesce(&session).unwrap().release().unwrap();
    assert!(setting.records.last_stop(&session).is_some());

    let setting = Setting::new("26.1-append");
    let session = setting.session();
    setting.node.start_scavenge(None).unwrap();
    setting.quiesce(&session).unwrap().release().unwrap();
    assert!(setting.records.last_stop(&session).is_some());
    assert_eq!(setting.records(), 0);
}
