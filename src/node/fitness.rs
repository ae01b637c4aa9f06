//! May this node be backed up now? (http-api §3.3.)

use std::fmt;
use std::time::{Duration, Instant};

use super::{Gossip, GossipMember, NodeState, Patience, Session};
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::run::Run;

const POLL: Duration = Duration::from_millis(500);
/// Asking the leader itself is worth this much; its position as this member knows it is the
/// fall-back.
const LEADER_LIMIT: Duration = Duration::from_secs(3);

/// Where fitness begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitnessLimits {
    /// Bytes by which the node may be behind its leader, and its processing behind its log.
    pub lag: u64,
    /// How long to wait until the node is fit.
    pub wait: Duration,
    /// Take a node that is not fit, and say what was overridden (`--allow-unfit`).
    pub allow_unfit: bool,
}

impl Default for FitnessLimits {
    fn default() -> Self {
        Self {
            lag: 16 * 1024 * 1024,
            wait: Duration::from_secs(60),
            allow_unfit: false,
        }
    }
}

/// Why a node is not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It does not call itself ready.
    NotReady,
    /// It is on its way to a stable role, or leaving it.
    State(NodeState),
    /// It does not count itself among the living.
    NotAlive,
    /// It tells no gossip although it belongs to a cluster.
    NoGossip,
    /// It knows of no leader.
    NoLeader,
    /// It knows of several leaders, at these endpoints.
    SeveralLeaders(Vec<String>),
    /// Its last election is not the leader's.
    OtherEpoch {
        /// Number of its last election.
        mine: i32,
        /// Number of the leader's.
        leaders: i32,
    },
    /// Its log is so many bytes behind the leader's.
    BehindLeader(u64),
    /// Its processing is so many bytes behind its own log.
    ChaserBehind(u64),
    /// It does not know its own position yet.
    NoPosition,
    /// Fewer members than a majority are alive.
    NoMajority {
        /// Living members that vote.
        alive: usize,
        /// How many there should be.
        of: u32,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => f.write_str("it does not call itself ready"),
            Self::State(state) => write!(
                f,
                "its state is {state}, not Leader, Follower or ReadOnlyReplica"
            ),
            Self::NotAlive => f.write_str("it is not alive in its own gossip"),
            Self::NoGossip => {
                f.write_str("it belongs to a cluster and tells no gossip (`DisableGossipOnHttp`)")
            }
            Self::NoLeader => f.write_str("it knows of no leader"),
            Self::SeveralLeaders(endpoints) => {
                write!(f, "it knows of several leaders: {}", endpoints.join(", "))
            }
            Self::OtherEpoch { mine, leaders } => {
                write!(
                    f,
                    "its last election is number {mine}, the leader's is {leaders}, or they are different ones"
                )
            }
            Self::BehindLeader(bytes) => write!(f, "its log is {bytes} bytes behind the leader's"),
            Self::ChaserBehind(bytes) => {
                write!(f, "its processing is {bytes} bytes behind its log")
            }
            Self::NoPosition => f.write_str("it does not know its own position yet"),
            Self::NoMajority { alive, of } => write!(
                f,
                "only {alive} of {of} members are alive, which is no majority"
            ),
        }
    }
}

/// A node that may be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitness {
    /// The part it plays.
    pub state: NodeState,
    /// L0: the leader's writer position before the backup, where another member leads. The backup
    /// should reach it.
    pub leader_position: Option<LogPosition>,
    /// What was overridden by `--allow-unfit`.
    pub overridden: Vec<Unfit>,
}

/// Judges a member of a cluster by its own gossip; empty where it is fit.
#[must_use]
pub fn judge(gossip: &Gossip, cluster_size: Option<u32>, lag: u64) -> Vec<Unfit> {
    let mut reasons = Vec::new();
    let Some(me) = gossip.me() else {
        return vec![Unfit::NotAlive];
    };
    if !me.state.is_stable() {
        reasons.push(Unfit::State(me.state.clone()));
    }
    if !me.is_alive {
        reasons.push(Unfit::NotAlive);
    }
    let leaders: Vec<&GossipMember> = leaders(gossip).collect();
    match leaders.as_slice() {
        [] => reasons.push(Unfit::NoLeader),
        [leader] => {
            if (leader.epoch_number, leader.epoch_id) != (me.epoch_number, me.epoch_id) {
                reasons.push(Unfit::OtherEpoch {
                    mine: me.epoch_number,
                    leaders: leader.epoch_number,
                });
            }
            // A stale view of the leader may lie behind this member; that is no lag.
            if let (Some(leaders), Some(mine)) = (leader.writer(), me.writer())
                && leaders.since(mine) > lag
            {
                reasons.push(Unfit::BehindLeader(leaders.since(mine)));
            }
        }
        several => reasons.push(Unfit::SeveralLeaders(
            several.iter().map(|leader| leader.endpoint()).collect(),
        )),
    }
    match (me.writer(), me.chaser()) {
        (Some(writer), Some(chaser)) if writer.since(chaser) > lag => {
            reasons.push(Unfit::ChaserBehind(writer.since(chaser)));
        }
        (Some(_), Some(_)) => {}
        _ => reasons.push(Unfit::NoPosition),
    }
    if let Some(size) = cluster_size {
        let alive = gossip
            .members
            .iter()
            .filter(|member| {
                member.is_alive && matches!(member.state, NodeState::Leader | NodeState::Follower)
            })
            .count();
        if alive < (size / 2 + 1) as usize {
            reasons.push(Unfit::NoMajority { alive, of: size });
        }
    }
    reasons
}

fn leaders(gossip: &Gossip) -> impl Iterator<Item = &GossipMember> {
    gossip
        .members
        .iter()
        .filter(|member| member.is_alive && member.state == NodeState::Leader)
}

/// Waits until the node is fit.
///
/// A member that does not lead is compared with its leader's own gossip, which is asked without
/// credentials at the address that the member's gossip names; where that cannot be had, with the
/// leader's position as the member knows it, which can be some seconds old.
///
/// # Errors
/// [`Kind::Unstable`] with the reasons where it does not become fit within the limit; what the node
/// answers.
pub fn wait_until_fit(session: &Session, limits: FitnessLimits, run: &Run) -> Result<Fitness> {
    let end = Instant::now() + limits.wait;
    loop {
        let (fitness, reasons) = look(session, limits, run)?;
        if reasons.is_empty() {
            return Ok(fitness);
        }
        if limits.allow_unfit {
            for reason in &reasons {
                run.warn(format!(
                    "{}: the node is not fit for a backup, which `--allow-unfit` overrides: {reason}",
                    session.client().place()
                ));
            }
            return Ok(Fitness {
                overridden: reasons,
                ..fitness
            });
        }
        if Instant::now() + POLL >= end {
            let text: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            return Err(Error::new(Kind::Unstable, "the node is not fit for a backup")
                .on(session.client().place())
                .because(text.join("; "))
                .hint("wait until the cluster is at rest, or back up another member; `--allow-unfit` overrides"));
        }
        run.pause(POLL)?;
    }
}

fn look(session: &Session, limits: FitnessLimits, run: &Run) -> Result<(Fitness, Vec<Unfit>)> {
    let patience = Patience::of(run);
    let mut reasons = Vec::new();
    if !session.client().is_healthy(patience)? {
        reasons.push(Unfit::NotReady);
    }
    let cluster_size = session.options().cluster_size();
    let Some(mut gossip) = session.gossip(patience)? else {
        let state = session.state(patience)?;
        if cluster_size.is_some_and(|size| size > 1) {
            reasons.push(Unfit::NoGossip);
        }
        if !state.is_stable() {
            reasons.push(Unfit::State(state.clone()));
        }
        return Ok((
            Fitness {
                state,
                leader_position: None,
                overridden: Vec::new(),
            },
            reasons,
        ));
    };
    let state = gossip.me().map_or_else(
        || NodeState::Other("unknown".to_owned()),
        |me| me.state.clone(),
    );
    let mut leader_position = None;
    if state != NodeState::Leader {
        let leader = leaders(&gossip).next().map(GossipMember::endpoint);
        let fresh = leader.and_then(|endpoint| ask_leader(session, &endpoint, run));
        if let Some(fresh) = fresh {
            // The leader's own line replaces the one that this member knows.
            for member in &mut gossip.members {
                if member.instance_id == fresh.instance_id {
                    *member = fresh.clone();
                }
            }
        }
        leader_position = leaders(&gossip).next().and_then(GossipMember::writer);
    }
    reasons.extend(judge(&gossip, cluster_size, limits.lag));
    Ok((
        Fitness {
            state,
            leader_position,
            overridden: Vec::new(),
        },
        reasons,
    ))
}

/// The leader's line in its own gossip, if it can be reached from here and still leads.
fn ask_leader(session: &Session, endpoint: &str, run: &Run) -> Option<GossipMember> {
    let client = session.client().neighbour(endpoint).ok()?;
    let gossip = client
        .gossip(Patience::of(run).within(LEADER_LIMIT))
        .ok()??;
    gossip
        .me()
        .filter(|me| me.state == NodeState::Leader)
        .cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const EPOCH: &str = "c0504c9c-3610-4e78-bd9f-a2af2c94ff7c";

    fn member(port: u16, state: &str, writer: i64) -> Value {
        json!({
            "instanceId": format!("00000000-0000-0000-0000-00000000{port}"), "state": state, "isAlive": true,
            "httpEndPointIp": "10.0.0.1", "httpEndPointPort": port, "lastCommitPosition": writer - 100,
            "writerCheckpoint": writer, "chaserCheckpoint": writer, "epochPosition": 0, "epochNumber": 3, "epochId": EPOCH,
        })
    }

    /// The first member is the one that answers.
    fn gossip(members: &[Value]) -> Gossip {
        serde_json::from_value(json!({ "members": members, "serverIp": "10.0.0.1", "serverPort": members[0]["httpEndPointPort"] })).unwrap()
    }

    fn with(mut member: Value, name: &str, value: impl Into<Value>) -> Value {
        member[name] = value.into();
        member
    }

    const LAG: u64 = 1000;

    /// Name, members, cluster size, reasons.
    type Case = (&'static str, Vec<Value>, Option<u32>, Vec<Unfit>);

    #[test]
    fn judges_by_the_table() {
        let leader = || member(2001, "Leader", 50_000);
        let follower = |writer| member(2002, "Follower", writer);
        let replica = |writer| member(2003, "ReadOnlyReplica", writer);
        let seed = || {
            with(
                with(
                    member(2009, "Manager", -1),
                    "instanceId",
                    "00000000-0000-0000-0000-000000000000",
                ),
                "isAlive",
                true,
            )
        };
        let cases: Vec<Case> = vec![
            ("single", vec![leader()], Some(1), vec![]),
            (
                "leader of three",
                vec![leader(), follower(50_000), member(2004, "Follower", 40_000)],
                Some(3),
                vec![],
            ),
            (
                "seeds are ignored",
                vec![leader(), follower(50_000), seed()],
                Some(3),
                vec![],
            ),
            (
                "follower",
                vec![follower(49_500), leader()],
                Some(3),
                vec![],
            ),
            (
                "ahead of a stale view",
                vec![follower(60_000), leader()],
                Some(3),
                vec![],
            ),
            (
                "replica",
                vec![replica(50_000), leader(), follower(50_000)],
                Some(3),
                vec![],
            ),
            (
                "lagging replica",
                vec![replica(40_000), leader(), follower(50_000)],
                Some(3),
                vec![Unfit::BehindLeader(10_000)],
            ),
            (
                "catching up",
                vec![member(2002, "CatchingUp", 50_000), leader(), follower(1)],
                None,
                vec![Unfit::State(NodeState::Other("CatchingUp".to_owned()))],
            ),
            ("alone", vec![follower(50_000)], None, vec![Unfit::NoLeader]),
            (
                "the leader is dead",
                vec![follower(50_000), with(leader(), "isAlive", false)],
                None,
                vec![Unfit::NoLeader],
            ),
            (
                "two leaders",
                vec![leader(), member(2005, "Leader", 50_000)],
                None,
                vec![Unfit::SeveralLeaders(vec![
                    "10.0.0.1:2001".to_owned(),
                    "10.0.0.1:2005".to_owned(),
                ])],
            ),
            (
                "an older epoch",
                vec![with(follower(50_000), "epochNumber", 2), leader()],
                None,
                vec![Unfit::OtherEpoch {
                    mine: 2,
                    leaders: 3,
                }],
            ),
            (
                "another epoch of the same number",
                vec![
                    with(
                        follower(50_000),
                        "epochId",
                        "11111111-1111-1111-1111-111111111111",
                    ),
                    leader(),
                ],
                None,
                vec![Unfit::OtherEpoch {
                    mine: 3,
                    leaders: 3,
                }],
            ),
            (
                "chaser",
                vec![with(leader(), "chaserCheckpoint", 1)],
                None,
                vec![Unfit::ChaserBehind(49_999)],
            ),
            (
                "no position",
                vec![with(leader(), "writerCheckpoint", -1)],
                None,
                vec![Unfit::NoPosition],
            ),
            (
                "dead to itself",
                vec![with(follower(50_000), "isAlive", false), leader()],
                None,
                vec![Unfit::NotAlive],
            ),
            (
                "no majority",
                vec![leader(), replica(50_000)],
                Some(3),
                vec![Unfit::NoMajority { alive: 1, of: 3 }],
            ),
        ];
        for (name, members, size, expected) in cases {
            assert_eq!(judge(&gossip(&members), size, LAG), expected, "{name}");
        }
    }

    #[test]
    fn a_stranger_is_not_fit() {
        let mut gossip = gossip(&[member(2001, "Leader", 1)]);
        gossip.members.clear();
        assert_eq!(judge(&gossip, None, LAG), [Unfit::NotAlive]);
    }

    #[test]
    fn every_other_state_is_not_fit() {
        for state in [
            "Initializing",
            "DiscoverLeader",
            "Unknown",
            "PreLeader",
            "PreReplica",
            "CatchingUp",
            "Clone",
            "ResigningLeader",
            "ReadOnlyLeaderless",
            "ShuttingDown",
        ] {
            let reasons = judge(
                &gossip(&[member(2002, state, 1), member(2001, "Leader", 1)]),
                None,
                LAG,
            );
            assert_eq!(reasons, [Unfit::State(NodeState::Other(state.to_owned()))]);
        }
    }
}
