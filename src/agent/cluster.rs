//! What the other members of a cluster mean for the backups of one: who goes first, and whose
//! backup stands for whose.

use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::observation::{Made, NodeFacts};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::{Lineage, LogPosition, Relation};
use crate::fs;
use crate::log::{self, ChunkSet, RawCheckpoint};
use crate::manifest::{BackupKind, Directories, Head, Label};
use crate::repository::{Location, Repository, is_good, remembered};

/// A member, in the eyes of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its advertised `host:port`.
    pub endpoint: String,
    /// The part it plays: `leader`, `follower`, `readonlyreplica`, or a passing state.
    pub state: String,
    /// It was heard of lately.
    pub is_alive: bool,
}

/// What the repositories of the other members hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// The newest good backup of the node's own log that another member has taken; only where one
    /// backup for the cluster is enough.
    pub newest: Option<Sibling>,
    /// When the newest good full of them began.
    pub newest_full: Option<Timestamp>,
    /// Why it is not known what they hold, or why the members' turns cannot be kept.
    pub problem: Option<String>,
}

/// Another member's backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Whose it is: its advertised `host:port`, or the name of its repository's directory.
    pub member: String,
    /// The repository.
    pub place: String,
    /// Its name in there.
    pub label: Label,
    /// What its manifest says.
    #[serde(flatten)]
    pub made: Made,
}

/// This node's place among the members that could be backed up now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Those that go first, the first one first.
    before: Vec<String>,
}

impl Standing {
    /// None where the node is alone, or does not gossip: then nothing has to be shared.
    pub(super) fn of(node: &NodeFacts) -> Option<Self> {
        let me = node.endpoint.as_deref()?;
        if node.members.len() < 2 {
            return None;
        }
        let mine = place(&node.state, me);
        let others = node
            .members
            .iter()
            .filter(|member| member.is_alive && member.endpoint != me);
        let mut before: Vec<_> = others
            .map(|member| place(&member.state, &member.endpoint))
            .filter(|other| other.0 < UNFIT && *other < mine)
            .collect();
        before.sort_unstable();
        Some(Self {
            before: before
                .into_iter()
                .map(|(_, endpoint)| endpoint.to_owned())
                .collect(),
        })
    }

    /// Whom a backup that was due at a time is left to, and until when: `grace` for each that goes
    /// before.
    pub(super) fn leaves_to(
        &self,
        due: Timestamp,
        now: Timestamp,
        grace: Duration,
    ) -> Option<(&str, Timestamp)> {
        let rank = u32::try_from(self.before.len()).unwrap_or(u32::MAX);
        let until = due
            .checked_add(SignedDuration::try_from(grace.saturating_mul(rank)).ok()?)
            .ok()?;
        // A clock that went back lets nobody wait for ever.
        (now < until).then(|| Some((self.before.first()?.as_str(), until)))?
    }
}

/// Members in other states cannot be backed up, or not for long.
const UNFIT: u8 = 3;

/// The order in which members are preferred: those that serve the fewest first, else by name.
fn place<'a>(state: &str, endpoint: &'a str) -> (u8, &'a str) {
    let class = match state {
        "readonlyreplica" => 0,
        "follower" => 1,
        "leader" => 2,
        _ => UNFIT,
    };
    (class, endpoint)
}

/// The log of a node, to tell whether a backup is one of it.
#[derive(Debug, Clone)]
pub(super) struct OwnLog {
    epoch: LogPosition,
    /// Of the writer checkpoint: a restored directory has another one.
    inode: u64,
    lineage: Lineage,
}

impl OwnLog {
    /// Reads a few KiB for each election that the log knows, and the header of each chunk; nothing
    /// where `before` still holds.
    ///
    /// # Errors
    /// What the storage reports, and what is no log.
    pub(super) fn read(directories: &Directories, before: Option<Self>) -> Result<Option<Self>> {
        let raw = RawCheckpoint::in_directory(&directories.db, Checkpoint::Epoch)?;
        if raw == RawCheckpoint::Missing {
            return Err(Error::new(Kind::Failed, "the epoch checkpoint is missing")
                .at(&Checkpoint::Epoch.under(&directories.db)));
        }
        let epoch = raw.position().map_err(|error| {
            Error::new(Kind::SourceCorrupt, "no checkpoint")
                .at(&Checkpoint::Epoch.under(&directories.db))
                .because(error)
        })?;
        let Some(epoch) = epoch else { return Ok(None) };

        let inode = fs::status(&Checkpoint::Writer.under(&directories.db))?
            .map_or(0, |status| status.inode);
        if before
            .as_ref()
            .is_some_and(|before| (before.epoch, before.inode) == (epoch, inode))
        {
            return Ok(before);
        }
        let lineage = log::lineage(directories, &ChunkSet::read(directories)?, epoch)?;
        Ok(Some(Self {
            epoch,
            inode,
            lineage,
        }))
    }

    /// Whether a backup holds the beginning of this log, or all of it; the log may end a little
    /// before it, as this member may lag behind.
    fn is_in(&self, head: &Head) -> bool {
        let everything = self.lineage.last().map_or(LogPosition::ZERO, |last| {
            last.position.max(head.log.position.position())
        });
        let end = LogPosition::new(everything.get().saturating_add(1)).unwrap_or(everything);
        matches!(
            head.log
                .lineage
                .relation(head.log.position.position(), &self.lineage, end),
            Relation::Same { .. }
        ) && head.source.identity.database
            == self
                .lineage
                .first()
                .map(|epoch| epoch.id)
                .unwrap_or_default()
    }
}

/// Looks at the repositories beside the own one. What cannot be read is no obstacle: its member is
/// as if it had no backup.
pub(super) fn look(directory: &Path, own: &Path, log: &OwnLog) -> ClusterFacts {
    let mut facts = ClusterFacts::default();
    let own = fs::canonical(own).ok();
    for entry in fs::list(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if fs::canonical(&path).ok() == own {
            continue;
        }
        let Ok(repository) = Location::parse(&path).and_then(|location| location.open()) else {
            continue;
        };
        let name = entry.name.to_string_lossy();
        for (head, label) in good(&*repository, log) {
            let made = Made::of(&head);
            if head.kind == BackupKind::Full {
                facts.newest_full = facts.newest_full.max(Some(made.started));
            }
            if facts
                .newest
                .as_ref()
                .is_none_or(|newest| newest.made.started < made.started)
            {
                let member = head
                    .source
                    .identity
                    .endpoint
                    .clone()
                    .unwrap_or_else(|| name.clone().into_owned());
                facts.newest = Some(Sibling {
                    member,
                    place: repository.place(),
                    label,
                    made,
                });
            }
        }
    }
    facts
}

fn good<'a>(
    repository: &'a dyn Repository,
    log: &'a OwnLog,
) -> impl Iterator<Item = (Head, Label)> + 'a {
    let listed = repository.list().unwrap_or_default().into_iter();
    let ours = listed
        .filter_map(|listed| Some((listed.head.ok()?, listed.label)))
        .filter(|(head, _)| log.is_in(head));
    ours.filter(|(head, label)| {
        remembered(repository, label).is_ok_and(|known| is_good(head, known))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::journal::{Job, Journal};
    use crate::agent::observation::{Point, RepositoryFacts};
    use crate::agent::planner::{Plan, Rule, Rules, Situation, plan};
    use crate::schedule::{OnChange, Schedule};

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

    fn member(state: &str, number: usize, is_alive: bool) -> Member {
        Member {
            endpoint: endpoint(number),
            state: state.to_owned(),
            is_alive,
        }
    }

    fn node(number: usize, members: Vec<Member>) -> NodeFacts {
        NodeFacts {
            place: String::new(),
            version: "26.1".to_owned(),
            state: members
                .iter()
                .find(|member| member.endpoint == endpoint(number))
                .map_or_else(String::new, |me| me.state.clone()),
            scavenge: None,
            db: "/db".into(),
            endpoint: Some(endpoint(number)),
            members,
        }
    }

    #[test]
    fn those_that_serve_the_fewest_go_first() {
        let members = || {
            vec![
                member("leader", 1, true),
                member("follower", 2, true),
                member("readonlyreplica", 3, true),
                member("catchingup", 4, true),
                member("follower", 0, false),
            ]
        };
        let before = |number| Standing::of(&node(number, members())).unwrap().before;
        assert_eq!(before(3), Vec::<String>::new());
        assert_eq!(before(2), [endpoint(3)]);
        assert_eq!(
            before(1),
            [endpoint(3), endpoint(2)],
            "neither the dead nor those on their way"
        );
        assert_eq!(before(4).len(), 3);
        assert_eq!(
            Standing::of(&node(1, vec![member("leader", 1, true)])),
            None,
            "it is alone"
        );
        assert_eq!(
            Standing::of(&NodeFacts {
                endpoint: None,
                ..node(1, members())
            }),
            None,
            "it does not gossip"
        );
    }

    #[test]
    fn each_of_those_before_has_its_grace() {
        let members = vec![
            member("leader", 1, true),
            member("follower", 2, true),
            member("follower", 3, true),
        ];
        let standing = Standing::of(&node(1, members)).unwrap();
        let grace = Duration::from_secs(600);
        assert_eq!(
            standing.leaves_to(at(0), at(1199), grace),
            Some((endpoint(2).as_str(), at(1200)))
        );
        assert_eq!(standing.leaves_to(at(0), at(1200), grace), None);
    }

    /// A backup of somebody in the model of a cluster.
    #[derive(Debug, Clone, Copy)]
    struct Taken {
        by: usize,
        began: i64,
        ended: i64,
    }

    fn made(taken: &Taken) -> Made {
        Made {
            kind: BackupKind::Diff,
            sequence: 1,
            branch: 1,
            started: at(taken.began),
            finished: at(taken.ended),
            position: 0,
            writer: 0,
            last_event: None,
            bytes: 0,
            bytes_read: 0,
            bytes_stored: 0,
            is_sound: true,
        }
    }

    fn label(taken: &Taken) -> Label {
        Label::new(at(taken.began), BackupKind::Diff)
    }

    /// What an agent plans that has seen the backups that ended before `seen`.
    fn planned(
        who: usize,
        states: &[&str],
        taken: &[Taken],
        seen: i64,
        now: i64,
        left_since: Option<i64>,
        journal: &Journal,
    ) -> Plan {
        let rules = Rules {
            jobs: Job::ALL.map(|job| Rule {
                schedule: if job == Job::Diff {
                    "1h".parse().unwrap()
                } else {
                    Schedule::OFF
                },
                window: None,
            }),
            on_change: OnChange::OFF,
            jitter: Duration::ZERO,
            seed: endpoint(who),
            max_age: Duration::from_hours(26),
            scavenge_rest: Duration::ZERO,
            grace: Duration::from_secs(600),
        };
        let known = || taken.iter().filter(|taken| taken.ended <= seen);
        let points = known().filter(|taken| taken.by == who).map(|taken| Point {
            label: label(taken),
            made: Some(made(taken)),
            verified: None,
        });
        let others = known()
            .filter(|taken| taken.by != who)
            .max_by_key(|taken| taken.began);
        let sibling = |taken: &Taken| Sibling {
            member: endpoint(taken.by),
            place: String::new(),
            label: label(taken),
            made: made(taken),
        };
        let cluster = ClusterFacts {
            newest: others.map(sibling),
            ..ClusterFacts::default()
        };
        let members = states
            .iter()
            .enumerate()
            .map(|(number, state)| member(state, number, true))
            .collect();
        let repository = RepositoryFacts {
            place: String::new(),
            id: uuid::Uuid::nil(),
            points: points.collect(),
            free_bytes: None,
        };
        let situation = Situation {
            now: at(now).to_zoned(jiff::tz::TimeZone::UTC),
            started: at(0),
            journal,
            repository: Some(&repository),
            node: None,
            well_since: None,
            exposure: None,
            standing: Standing::of(&node(who, members)),
            left_since: left_since.map(at),
            turn: None,
            cluster: Some(&cluster),
        };
        plan(&rules, &situation)
            .into_iter()
            .find(|plan| plan.job == Job::Diff)
            .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// One backup in each period, whoever wakes when, whoever leads, however old what they have
        /// seen is, as long as one agent lives; never two at once.
        #[test]
        fn the_cluster_is_backed_up_once_in_each_period(
            agents in proptest::collection::vec((any::<bool>(), 0..AWAKE, 1..=AWAKE, 0..AWAKE), 1..5),
            leader_changes in 0..i64::from(4 * 3600_u32),
            lasts in 1..900_i64,
            alive in 0..5_usize,
        ) {
            let place = tempfile::tempdir().unwrap();
            let journal = Journal::open(place.path(), Path::new("/repo")).unwrap();
            let alive = alive % agents.len();
            let mut states: Vec<&str> = (0..agents.len()).map(|number| STATES[number.min(2)]).collect();
            let mut taken: Vec<Taken> = Vec::new();
            let mut left_since = vec![None; agents.len()];
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
                    left_since[who] = left_since[who].filter(|_| is_due).or_else(|| is_due.then_some(now));
                    let ready = |seen| plan(seen, left_since[who]).is_ready(at(now));
                    // The turn is another member's, or what was seen is too old.
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
}
