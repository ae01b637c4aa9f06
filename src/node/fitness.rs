//! May this node be backed up now? (http-api §3.3.)
//!
//! kbackup judges a member of a cluster by the member's own gossip. If another member leads,
//! kbackup also asks the leader for its position.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Gossip, GossipMember, NodeState, Patience, Session};
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::run::Run;

const POLL: Duration = Duration::from_millis(500);
/// How long the leader may take to answer. After that, kbackup uses the position of the leader that
/// this member knows.
const LEADER_LIMIT: Duration = Duration::from_secs(3);

/// How fit a node has to be, and how long to wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitnessLimits {
    /// Bytes by which the node may be behind its leader, and its processing behind its log.
    pub lag: u64,
    /// How long to wait until the node is fit.
    pub wait: Duration,
    /// Back up a node that is not fit, and say what was overridden (`--allow-unfit`).
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
    /// Its own gossip says that it is not alive.
    NotAlive,
    /// It belongs to a cluster but does not answer `/gossip`.
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
    /// Its log is this many bytes behind the leader's.
    BehindLeader(u64),
    /// Its processing is this many bytes behind its own log.
    ChaserBehind(u64),
    /// It does not know its own position yet.
    NoPosition,
    /// The living members are no majority.
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
                f.write_str("it belongs to a cluster but reports no gossip (`DisableGossipOnHttp`)")
            }

            Self::NoLeader => f.write_str("it knows of no leader"),
            Self::SeveralLeaders(endpoints) => {
                write!(f, "it knows of several leaders: {}", endpoints.join(", "))
            }
            Self::OtherEpoch { mine, leaders } => write!(
                f,
                "its last election is number {mine}, the leader's is {leaders}, \
                 or they are different ones"
            ),

            Self::BehindLeader(bytes) => write!(f, "its log is {bytes} bytes behind the leader's"),
            Self::ChaserBehind(bytes) => {
                write!(f, "its processing is {bytes} bytes behind its log")
            }
            Self::NoPosition => f.write_str(
                "it does not tell its own position yet \
                 (`writerCheckpoint` and `chaserCheckpoint` of `/gossip`)",
            ),
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
    /// The part that the node plays in its cluster.
    pub state: NodeState,
    /// L0: the leader's writer position before the backup, if another member leads. The backup
    /// should reach it.
    pub leader_position: Option<LogPosition>,
    /// What `--allow-unfit` overrode.
    pub overridden: Vec<Unfit>,
}

/// Judges a member of a cluster by its own gossip. Returns the reasons why it is not fit.
#[must_use]
pub fn judge(gossip: &Gossip, cluster_size: Option<u32>, lag: u64) -> Vec<Unfit> {
    let Some(me) = gossip.me() else {
        return vec![Unfit::NotAlive];
    };

    let mut reasons = Vec::new();
    if !me.state.is_stable() {
        reasons.push(Unfit::State(me.state.clone()));
    }
    if !me.is_alive {
        reasons.push(Unfit::NotAlive);
    }

    let leaders: Vec<&GossipMember> = leaders(gossip).collect();
    match leaders.as_slice() {
        [] => reasons.push(Unfit::NoLeader),
        [leader] => compare_with_leader(me, leader, lag, &mut reasons),
        several => {
            let endpoints = several.iter().map(|leader| leader.endpoint());
            reasons.push(Unfit::SeveralLeaders(endpoints.collect()));
        }
    }

    match (me.writer(), me.chaser()) {
        (Some(writer), Some(chaser)) => {
            if writer.since(chaser) > lag {
                reasons.push(Unfit::ChaserBehind(writer.since(chaser)));
            }
        }
        _ => reasons.push(Unfit::NoPosition),
    }

    if let Some(size) = cluster_size {
        let alive = living_voters(gossip);
        if alive < (size / 2 + 1) as usize {
            reasons.push(Unfit::NoMajority { alive, of: size });
        }
    }
    reasons
}

fn compare_with_leader(
    me: &GossipMember,
    leader: &GossipMember,
    lag: u64,
    reasons: &mut Vec<Unfit>,
) {
    let is_other_epoch =
        differ(leader.epoch_number, me.epoch_number) || differ(leader.epoch_id, me.epoch_id);
    if is_other_epoch {
        reasons.push(Unfit::OtherEpoch {
            mine: me.epoch_number.unwrap_or(-1),
            leaders: leader.epoch_number.unwrap_or(-1),
        });
    }

    // A stale view of the leader may be behind this member. That is not a lag of this member.
    if let (Some(leaders), Some(mine)) = (leader.writer(), me.writer())
        && leaders.since(mine) > lag
    {
        reasons.push(Unfit::BehindLeader(leaders.since(mine)));
    }
}

/// Whether both are told, and are not the same.
fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one != other,
        _ => false,
    }
}

fn leaders(gossip: &Gossip) -> impl Iterator<Item = &GossipMember> {
    gossip
        .members
        .iter()
        .filter(|member| member.is_alive && member.state == NodeState::Leader)
}

fn living_voters(gossip: &Gossip) -> usize {
    let mut voters = 0;
    for member in &gossip.members {
        let votes = matches!(member.state, NodeState::Leader | NodeState::Follower);
        if member.is_alive && votes {
            voters += 1;
        }
    }
    voters
}

/// Waits until the node is fit.
///
/// A member that does not lead is compared with its leader's own gossip. The leader is asked
/// without credentials, at the address that the member's gossip names. If the leader does not
/// answer, kbackup uses the position of the leader that the member knows, which can be some seconds
/// old.
///
/// # Errors
/// [`Kind::Unstable`], with the reasons, if the node does not become fit within the limit.
pub fn wait_until_fit(session: &Session, limits: FitnessLimits, run: &Run) -> Result<Fitness> {
    let end = Instant::now() + limits.wait;
    loop {
        let (fitness, reasons) = look(session, limits, run)?;
        if reasons.is_empty() {
            return Ok(fitness);
        }
        if limits.allow_unfit {
            return Ok(overridden(session, fitness, reasons, run));
        }

        if Instant::now() + POLL >= end {
            return Err(not_fit(session, &reasons));
        }
        run.pause(POLL)?;
    }
}

fn overridden(session: &Session, fitness: Fitness, reasons: Vec<Unfit>, run: &Run) -> Fitness {
    let place = session.client().place();
    for reason in &reasons {
        run.warn(format!(
            "{place}: the node is not fit for a backup, which `--allow-unfit` overrides: {reason}"
        ));
    }

    Fitness {
        overridden: reasons,
        ..fitness
    }
}

fn not_fit(session: &Session, reasons: &[Unfit]) -> Error {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    Error::new(Kind::Unstable, "the node is not fit for a backup")
        .on(session.client().place())
        .because(reasons.join("; "))
        .hint(
            "wait until the cluster is at rest, or back up another member; \
             `--allow-unfit` overrides",
        )
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
        reasons.extend(judge_without_gossip(&state, cluster_size));
        return Ok((fitness(state, None), reasons));
    };

    let state = match gossip.me() {
        Some(me) => me.state.clone(),
        None => NodeState::Other("unknown".to_owned()),
    };
    let mut leader_position = None;
    if state != NodeState::Leader {
        refresh_leader(session, &mut gossip, run);
        leader_position = leaders(&gossip).next().and_then(GossipMember::writer);
    }

    reasons.extend(judge(&gossip, cluster_size, limits.lag));
    Ok((fitness(state, leader_position), reasons))
}

fn fitness(state: NodeState, leader_position: Option<LogPosition>) -> Fitness {
    Fitness {
        state,
        leader_position,
        overridden: Vec::new(),
    }
}

fn judge_without_gossip(state: &NodeState, cluster_size: Option<u32>) -> Vec<Unfit> {
    let mut reasons = Vec::new();
    if matches!(cluster_size, Some(size) if size > 1) {
        reasons.push(Unfit::NoGossip);
    }
    if !state.is_stable() {
        reasons.push(Unfit::State(state.clone()));
    }
    reasons
}

/// Replaces the leader's entry in this member's gossip with the entry in the leader's own gossip.
fn refresh_leader(session: &Session, gossip: &mut Gossip, run: &Run) {
    let Some(leader) = leaders(gossip).next() else {
        return;
    };
    let Some(fresh) = ask_leader(session, &leader.endpoint(), run) else {
        return;
    };

    for member in &mut gossip.members {
        if member.endpoint() == fresh.endpoint() {
            *member = fresh.clone();
        }
    }
}

/// The leader's entry in its own gossip, if the leader can be reached from here and still leads.
fn ask_leader(session: &Session, endpoint: &str, run: &Run) -> Option<GossipMember> {
    let client = session.client().neighbour(endpoint).ok()?;
    let patience = Patience::of(run).within(LEADER_LIMIT);
    let gossip = client.gossip(patience).ok()??;

    let me = gossip.me()?;
    if me.state != NodeState::Leader {
        return None;
    }
    Some(me.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const EPOCH: &str = "c0504c9c-3610-4e78-bd9f-a2af2c94ff7c";

    fn member(port: u16, state: &str, writer: i64) -> Value {
        json!({
            "instanceId": format!("00000000-0000-0000-0000-00000000{port}"),
            "state": state,
            "isAlive": true,
            "httpEndPointIp": "10.0.0.1",
            "httpEndPointPort": port,
            "lastCommitPosition": writer - 100,
            "writerCheckpoint": writer,
            "chaserCheckpoint": writer,
            "epochPosition": 0,
            "epochNumber": 3,
            "epochId": EPOCH,
        })
    }

    /// The first member is the one that answers.
    fn gossip(members: &[Value]) -> Gossip {
        let gossip = json!({
            "members": members,
            "serverIp": "10.0.0.1",
            "serverPort": members[0]["httpEndPointPort"],
        });
        serde_json::from_value(gossip).unwrap()
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
