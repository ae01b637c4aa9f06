//! A model of a whole cluster: which member is backed up when.

use proptest::prelude::*;

use super::*;
use crate::agent::facts::{
    BackupFacts, ClusterFacts, ClusterMember, RepositoryFacts, RestorePoint, SiblingBackup,
};
use crate::agent::journal::Journal;
use crate::agent::planner::{JobPlan, JobRule, PlannerInput, PlanningRules, ScavengingRule, plan};
use crate::agent::run_record::Job;
use crate::manifest::{BackupKind, Label};
use crate::schedule::{OnChange, Schedule};
use crate::settings::options::ScavengeManner;

const INTERVAL: i64 = 3600;
const GRACE: i64 = 600;
/// An agent looks at what is due at least so often, in seconds.
const AWAKE: i64 = 30;
const STATES: [&str; 3] = ["leader", "follower", "readonlyreplica"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn endpoint(member: usize) -> String {
    format!("node{member}:2113")
}

fn member(state: &str, number: usize, is_alive: bool) -> ClusterMember {
    ClusterMember {
        endpoint: endpoint(number),
        state: state.to_owned(),
        is_alive,
    }
}

fn node(number: usize, members: Vec<ClusterMember>) -> NodeFacts {
    NodeFacts {
        place: String::new(),
        version: "26.1".to_owned(),
        state: members
            .iter()
            .find(|member| member.endpoint == endpoint(number))
            .map_or_else(String::new, |me| me.state.clone()),
        scavenge: None,
        auto_scavenge: None,
        scavenging: None,
        db: "/db".into(),
        endpoint: Some(endpoint(number)),
        members,
    }
}

#[test]
fn members_that_serve_the_fewest_clients_go_first() {
    let members = || {
        vec![
            member("leader", 1, true),
            member("follower", 2, true),
            member("readonlyreplica", 3, true),
            member("catchingup", 4, true),
            member("follower", 0, false),
        ]
    };

    let before = |number| ClusterRank::of(&node(number, members())).unwrap().before;
    assert_eq!(before(3), Vec::<String>::new());
    assert_eq!(before(2), [endpoint(3)]);
    assert_eq!(
        before(1),
        [endpoint(3), endpoint(2)],
        "neither the dead nor those on their way"
    );
    assert_eq!(before(4).len(), 3);

    assert_eq!(
        ClusterRank::of(&node(1, vec![member("leader", 1, true)])),
        None,
        "it is alone"
    );
    assert_eq!(
        ClusterRank::of(&NodeFacts {
            endpoint: None,
            ..node(1, members())
        }),
        None,
        "it does not gossip"
    );
}

#[test]
fn each_member_before_has_its_grace() {
    let members = vec![
        member("leader", 1, true),
        member("follower", 2, true),
        member("follower", 3, true),
    ];
    let rank = ClusterRank::of(&node(1, members)).unwrap();
    let grace = Duration::from_secs(600);
    assert_eq!(
        rank.leaves_to(at(0), at(1199), grace),
        Some((endpoint(2).as_str(), at(1200)))
    );
    assert_eq!(rank.leaves_to(at(0), at(1200), grace), None);
}

/// A backup of one member in the model of a cluster.
#[derive(Debug, Clone, Copy)]
struct Taken {
    by: usize,
    began: i64,
    ended: i64,
}

fn backup(taken: &Taken) -> BackupFacts {
    BackupFacts {
        started: at(taken.began),
        finished: at(taken.ended),
        ..BackupFacts::sample()
    }
}

fn label(taken: &Taken) -> Label {
    Label::new(at(taken.began), BackupKind::Diff)
}

/// The plan of an agent that knows the backups that ended before `seen`.
fn planned(
    who: usize,
    states: &[&str],
    taken: &[Taken],
    seen: i64,
    now: i64,
    due_since: Option<i64>,
    journal: &Journal,
) -> JobPlan {
    let known: Vec<&Taken> = taken.iter().filter(|taken| taken.ended <= seen).collect();
    let repository = repository(who, &known);
    let cluster = ClusterFacts {
        newest: newest_sibling(who, &known),
        ..ClusterFacts::default()
    };

    let mut members = Vec::new();
    for (number, state) in states.iter().enumerate() {
        members.push(member(state, number, true));
    }

    let input = PlannerInput {
        now: at(now).to_zoned(jiff::tz::TimeZone::UTC),
        started: at(0),
        journal,
        repository: Some(&repository),
        node: None,
        well_since: None,
        exposure: None,
        rank: ClusterRank::of(&node(who, members)),
        backup_due_since: due_since.map(at),
        waits_for_turn: None,
        next_login: None,
        cluster: Some(&cluster),
    };
    let mut plans = plan(&rules(who), &input).into_iter();
    plans.find(|plan| plan.job == Job::Diff).unwrap()
}

fn rules(who: usize) -> PlanningRules {
    let jobs = Job::ALL.map(|job| JobRule {
        schedule: if job == Job::Diff {
            "1h".parse().unwrap()
        } else {
            Schedule::OFF
        },
        window: None,
        scavenging: ScavengingRule {
            manner: ScavengeManner::Wait,
            rest: Duration::ZERO,
            max_age: Duration::from_hours(26),
        },
    });

    PlanningRules {
        jobs,
        on_change: OnChange::OFF,
        jitter: Duration::ZERO,
        seed: endpoint(who),
        grace: Duration::from_secs(600),
    }
}

/// The repository of a member.
fn repository(who: usize, known: &[&Taken]) -> RepositoryFacts {
    let mut points = Vec::new();
    for taken in known {
        if taken.by == who {
            points.push(RestorePoint {
                label: label(taken),
                backup: Some(backup(taken)),
                problem: None,
                verified: None,
            });
        }
    }

    RepositoryFacts {
        place: String::new(),
        id: uuid::Uuid::nil(),
        points,
        free_bytes: None,
        database: None,
        on_nodes_disk: false,
    }
}

/// The newest backup of all other members.
fn newest_sibling(who: usize, known: &[&Taken]) -> Option<SiblingBackup> {
    let others = known.iter().filter(|taken| taken.by != who);
    let newest = others.max_by_key(|taken| taken.began)?;

    Some(SiblingBackup {
        member: endpoint(newest.by),
        place: String::new(),
        label: label(newest),
        backup: backup(newest),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// There is one backup in each period, and there are never two at once. It does not matter
    /// which agent wakes when, which member leads, and how old the agents' knowledge is, as long as
    /// one agent lives.
    #[test]
    fn the_cluster_is_backed_up_once_in_each_period(
        agents in proptest::collection::vec((any::<bool>(), 0..AWAKE, 1..=AWAKE, 0..AWAKE), 1..5),
        leader_changes in 0..i64::from(4 * 3600_u32),
        lasts in 1..900_i64,
        alive in 0..5_usize,
    ) {
        let journal = Journal::default();
        let alive = alive % agents.len();
        let mut states: Vec<&str> = (0..agents.len()).map(|number| STATES[number.min(2)]).collect();
        let mut taken: Vec<Taken> = Vec::new();
        let mut due_since = vec![None; agents.len()];

        for now in 0..i64::from(5 * 3600_u32) {
            if now == leader_changes {
                states.rotate_left(1);
            }

            for (who, (lives, phase, every, stale)) in agents.iter().enumerate() {
                if !(*lives || who == alive) || now < *phase || (now - phase) % every != 0 {
                    continue;
                }

                let plan = |seen, left| planned(who, &states, &taken, seen, now, left, &journal);
                let is_due = plan(now - stale, None).due.is_some_and(|due| due <= at(now));
                due_since[who] = due_since[who].filter(|_| is_due).or_else(|| is_due.then_some(now));

                let ready = |seen| plan(seen, due_since[who]).is_ready(at(now));
                // Another member has the turn, or the agent's knowledge is too old.
                if !ready(now - stale) || taken.iter().any(|other| other.ended > now) || !ready(now) {
                    continue;
                }
                taken.push(Taken { by: who, began: now, ended: now + lasts });
            }
        }

        let patience = GRACE * i64::try_from(agents.len()).unwrap() + 2 * AWAKE + lasts;
        prop_assert!(!taken.is_empty() && taken[0].began <= patience, "{taken:?}");
        for pair in taken.windows(2) {
            let apart = pair[1].began - pair[0].began;
            prop_assert!(apart >= INTERVAL && apart <= INTERVAL + patience, "{taken:?}");
            prop_assert!(pair[1].began >= pair[0].ended);
        }
    }
}
