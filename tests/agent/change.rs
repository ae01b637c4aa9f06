//! Backups that are due because the node has written.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::sidecar::{Sidecar, labels};
use crate::cli::NodeSite;

fn agent(site: &NodeSite, on_change: &str) -> Sidecar {
    let line = site.line("agent --repo repo --node URL --diff-schedule off --verify-schedule off");
    let mut command = site.place.process(&line);
    command.args(["--on-change", on_change]);
    Sidecar::start(command)
}

#[test]
fn a_node_that_writes_is_backed_up_at_once() {
    let site = NodeSite::new("26.1-append");
    let sidecar = agent(&site, "1B");
    let mut made = labels(&sidecar.shows("the first backup", |status| labels(status).len() == 1));

    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let seen = sidecar.shows("that everything is backed up", |status| {
            status["exposure"]["bytes"] == 0
        });

        let writer = seen["exposure"]["writer"].clone();

        let began = Instant::now();
        while site.node.checkpoint(kbackup_testnode::Checkpoint::Writer) == writer.as_i64() {
            site.advance(1);
        }
        made = labels(&sidecar.shows("another backup", |status| labels(status).len() > made.len()));
        quickest = quickest.min(began.elapsed());
    }

    // Without this trigger, the agent would look only every 5 seconds.
    assert!(quickest < Duration::from_secs(5), "{quickest:?}");

    let history = sidecar.status()["history"].clone();
    let runs = history.as_array().unwrap().iter();
    let triggers: Vec<&str> = runs.map(|run| run["trigger"].as_str().unwrap()).collect();
    assert_eq!(
        (triggers[0], triggers.last()),
        ("first", Some(&"change")),
        "{history}"
    );
}

/// The processor time of the agent while a node wrote.
struct Used {
    writes: u32,
    processor: Duration,
    elapsed: Duration,
}

/// Writes the checkpoint as often as it can: for a minimum time, and a minimum number of times.
fn while_writing(site: &NodeSite, sidecar: &Sidecar, span: Duration, least: u32) -> Used {
    let path = site.node.db().join("writer.chk");
    let checkpoint = OpenOptions::new().write(true).open(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (began, before) = (Instant::now(), sidecar.processor());

    let mut writes = 0;
    while began.elapsed() < span || writes < least {
        for _ in 0..10 {
            checkpoint.write_all_at(&bytes, 0).unwrap();
            writes += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }

    Used {
        writes,
        processor: sidecar.processor().checked_sub(before).unwrap(),
        elapsed: began.elapsed(),
    }
}

#[test]
fn a_busy_node_costs_the_agent_little_processor_time() {
    const SPAN: Duration = Duration::from_secs(5);
    let site = NodeSite::backed_up("26.1-append");
    let sidecar = agent(&site, "1TiB");
    sidecar.shows("the node", |status| status["exposure"]["bytes"] == 0);

    // Directly after its start, the agent looks more often.
    std::thread::sleep(Duration::from_secs(1));
    let before = sidecar.processor();
    std::thread::sleep(SPAN);
    let idle = sidecar.processor().checked_sub(before).unwrap();

    let Used {
        writes,
        processor: busy,
        elapsed,
    } = while_writing(&site, &sidecar, SPAN, 5000);

    eprintln!("{SPAN:?}: {idle:?} idle; {elapsed:?}: {busy:?} under {writes} writes");

    assert!(
        busy < elapsed / 10,
        "{busy:?} of {elapsed:?} under {writes} writes"
    );
}
