//! The plan and the report of a restore, as the operator reads them.

use kbackup::restore::{FirstStartBehaviour, RestorePlan, RestoreReport, RestoreRequest};

use super::handmade::{HandmadeBackup, contents};
use crate::stores::in_every_store;

in_every_store! {
    planning_writes_nothing,
    the_plan_names_what_the_first_start_does,
    the_plan_names_everything_that_the_operator_has_to_do,
}

fn planning_writes_nothing() {
    let handmade = HandmadeBackup::new("26.1-append");
    let before = contents(handmade.place.path());
    let plan = handmade.plan(&handmade.request()).unwrap();
    assert!(plan.to_string().contains("26.1"), "{plan}");
    assert_eq!(contents(handmade.place.path()), before);
    assert!(!handmade.target("target").exists());
}

fn the_plan_names_what_the_first_start_does() {
    let handmade = HandmadeBackup::new("24.10-append");
    let behaviour = |request: &RestoreRequest| {
        let plan = handmade.plan(request).unwrap();
        plan.closing.first_start.behaviour
    };

    assert_eq!(
        behaviour(&handmade.request()),
        FirstStartBehaviour::ExitsOnce
    );
    assert_eq!(
        behaviour(&RestoreRequest {
            ready: true,
            ..handmade.request()
        }),
        FirstStartBehaviour::Starts
    );
    assert_eq!(
        behaviour(&RestoreRequest {
            server_version: Some("26.1".to_owned()),
            ..handmade.request()
        }),
        FirstStartBehaviour::ExitsOnce
    );

    let handmade = HandmadeBackup::new("23.10-append");
    let plan = handmade.plan(&handmade.request()).unwrap();
    assert_eq!(
        plan.closing.first_start.behaviour,
        FirstStartBehaviour::TruncatesAndStarts
    );
}

/// Replaces everything that differs from run to run and from machine to machine.
fn settings(handmade: &HandmadeBackup) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    let place = std::fs::canonicalize(handmade.place.path()).unwrap();
    settings.add_filter(&place.display().to_string(), "[place]");
    settings.add_filter("[0-9a-f]{8}-[0-9a-f-]{27}", "[uuid]");
    settings.add_filter(r"[0-9.]+ [A-Z]iB free", "[space] free");
    settings.add_filter(r#""bytes_free": \d+"#, r#""bytes_free": "[space]""#);
    settings.add_filter(r"owner: \d+:\d+", "owner: [user]:[group]");
    settings.add_filter(r#""(user|group)": \d+"#, r#""$1": "[id]""#);
    settings.add_filter(r#""set": (true|false)"#, r#""set": "[bool]""#);
    settings.remove_snapshot_suffix();
    settings
}

/// Removes the warnings about the owner, which only a process without root gets.
fn without_owner_warnings(mut plan: RestorePlan) -> RestorePlan {
    plan.warnings
        .retain(|warning| !warning.contains("will belong to"));
    plan
}

#[test]
fn a_plan_reads_well() {
    let handmade = HandmadeBackup::with("26.1-scavenge", |manifest| {
        manifest.scavenging.auto_paused = true;
        manifest.source.missing_bytes = Some(512);
    });
    std::fs::create_dir(handmade.target("there")).unwrap();
    let request =
        super::handmade::request(&[&handmade.target("target"), &handmade.target("there")]);

    let plan = without_owner_warnings(handmade.plan(&request).unwrap());
    settings(&handmade).bind(|| {
        insta::assert_snapshot!("plan", plan.to_string());
        insta::assert_snapshot!("plan_json", serde_json::to_string_pretty(&plan).unwrap());
    });
}

#[test]
fn a_report_reads_well() {
    let handmade = HandmadeBackup::with("23.10-append", |manifest| manifest.contents.index = false);
    let plan = handmade
        .plan(&super::handmade::request(&[
            &handmade.target("target"),
            &handmade.target("other"),
        ]))
        .unwrap();

    std::fs::create_dir(handmade.target("other")).unwrap();
    std::fs::write(handmade.target("other").join("precious"), "").unwrap();
    let report: RestoreReport =
        kbackup::restore::execute(&handmade.repository, &plan, &super::handmade::run()).unwrap();

    settings(&handmade).bind(|| {
        insta::assert_snapshot!("report", report.to_string());
        insta::assert_snapshot!(
            "report_json",
            serde_json::to_string_pretty(&report).unwrap()
        );
    });
}

fn the_plan_names_everything_that_the_operator_has_to_do() {
    let topics = |change: fn(&mut kbackup::manifest::Manifest)| {
        let handmade = HandmadeBackup::with("24.10-append", change);
        let accept = kbackup::restore::AcceptedRisks {
            archive: true,
            ..Default::default()
        };
        let plan = handmade
            .plan(&RestoreRequest {
                accept,
                ..handmade.request()
            })
            .unwrap();
        let notes = plan.closing.not_inside.iter().chain(&plan.closing.to_do);
        notes.map(|note| note.topic).collect::<Vec<_>>()
    };

    let usual = topics(|_| ());
    for topic in [
        "configuration",
        "certificates",
        "master-keys",
        "licence",
        "start-again",
        "other-members",
        "consumers",
        "test-copy",
        "full-backup",
    ] {
        assert!(usual.contains(&topic), "{topic}");
    }
    for topic in [
        "resume-auto-scavenge",
        "index-rebuild",
        "archive",
        "secondary-index",
    ] {
        assert!(!usual.contains(&topic), "{topic}");
    }

    assert!(
        topics(|manifest| manifest.scavenging.auto_paused = true).contains(&"resume-auto-scavenge")
    );
    assert!(
        topics(|manifest| manifest.scavenging.auto_found = Some("Paused".to_owned()))
            .contains(&"auto-scavenge-was-paused")
    );
    assert!(
        !topics(|manifest| manifest.scavenging.auto_found = Some("Waiting".to_owned()))
            .contains(&"auto-scavenge-was-paused")
    );
    assert!(topics(|manifest| manifest.contents.index = false).contains(&"index-rebuild"));
    assert!(topics(|manifest| manifest.contents.archive = true).contains(&"archive"));
    assert!(
        topics(|manifest| manifest.contents.secondary_index =
            kbackup::manifest::SecondaryIndex::LeftOut)
        .contains(&"secondary-index")
    );
}
