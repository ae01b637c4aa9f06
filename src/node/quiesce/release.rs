//! `kbackup release`: gives back to nodes what killed runs left on record.

use std::path::PathBuf;

use super::borrowed::Borrowed;
use super::give_back::{GIVE_BACK_LIMIT, give_back};
use crate::error::{Error, Kind, Result};
use crate::node::held_record::HeldRecord;
use crate::node::recognition::recognise;
use crate::node::release_record::RecordedNode;
use crate::node::release_record::ReleaseRecord;
use crate::node::release_records::{ListedRecord, ReleaseRecords, UnreadableRecord};
use crate::node::same_node::Comparison;
use crate::node::{Client, Session};
use crate::run::Run;

/// Why a record is left that was not compared with the named node.
const NOT_LOOKED_AT: &str = "not looked at";
/// What the operator can say of a record that kbackup cannot prove.
const SAY_IT: &str = "if it is about this node, use `kbackup release --node URL --new-address`";

/// What `kbackup release` is going to do.
#[derive(Debug)]
pub struct ReleasePlan {
    chosen: Vec<ListedRecord>,
    /// The records that are left as they are.
    others: Vec<LeftRecord>,
    /// The one record that kbackup cannot prove, and that the operator says is the named node's.
    asserted: Option<PathBuf>,
    unreadable: Vec<UnreadableRecord>,
    mode: ReleaseMode,
    /// No node was named.
    is_for_all: bool,
}

/// A record that is not chosen.
#[derive(Debug)]
struct LeftRecord {
    listed: ListedRecord,
    /// The record may be the named node's, as far as kbackup knows.
    may_be_of_node: bool,
    why: String,
}

/// A record, and what came of the comparison with the named node.
struct ComparedRecord {
    listed: ListedRecord,
    /// It names the node as the operator does.
    is_named: bool,
    comparison: Comparison,
}

impl ComparedRecord {
    const fn is_proven(&self) -> bool {
        matches!(self.comparison, Comparison::Same | Comparison::Moved)
    }

    /// The record as one that is left. `is_served`: another record is the node's.
    fn left(self, is_served: bool) -> LeftRecord {
        let (may_be_of_node, why) = match self.comparison {
            Comparison::Another(why) => (false, format!("it is about another node: {why}")),
            Comparison::Unproven(why) if is_served => (
                false,
                format!("kbackup cannot prove that it is about this node: {why}"),
            ),
            Comparison::Unproven(why) => {
                (true, format!("it may be about this node: {why}; {SAY_IT}"))
            }
            Comparison::Same | Comparison::Moved => (true, NOT_LOOKED_AT.to_owned()),
        };
        LeftRecord {
            listed: self.listed,
            may_be_of_node,
            why,
        }
    }
}

/// The path of the only record that is neither proven nor disproven.
fn only_unproven(compared: &[ComparedRecord]) -> Result<Option<PathBuf>> {
    let mut only = None;
    for record in compared {
        let Comparison::Unproven(why) = &record.comparison else {
            continue;
        };
        let Some(first) = only.replace(record.listed.path.clone()) else {
            continue;
        };

        let second = record.listed.path.display();
        return Err(Error::new(
            Kind::Refused,
            "more than one release record may be about this node",
        )
        .at(&first)
        .because(format!("`{second}` may be, too: {why}"))
        .hint(
            "give back to the other nodes first, with `kbackup release --node URL` at their \
             addresses; then one record is left",
        )
        .hint(
            "or give back by hand: resume auto-scavenge with `POST /auto-scavenge/resume`, and \
             remove the record of this node",
        ));
    }
    Ok(only)
}

fn is_interruption(error: &Error) -> bool {
    matches!(error.kind(), Kind::Interrupted(_))
}

/// How far a release goes beyond what kbackup can prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReleaseMode {
    /// Give back although another run holds the record: that run hangs (`--force`).
    pub force: bool,
    /// The operator says that a node which kbackup cannot recognise is the recorded one
    /// (`--new-address`).
    pub new_address: bool,
}

/// One node in a [`ReleasePlan`], for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlannedRelease {
    /// The node's URL or socket.
    pub node: String,
    /// The advertised `host:port`.
    pub endpoint: Option<String>,
    /// Id of the scavenge to start again.
    pub scavenge: Option<String>,
    /// True if auto-scavenge is to be resumed.
    pub auto_scavenge: bool,
    /// True if another run holds the record. That run gives everything back itself, so the plan
    /// skips this node, unless it is forced.
    pub in_use: bool,
}

/// A record that a release leaves as it is, for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UntouchedRecord {
    /// The file.
    pub record: String,
    /// The node's URL or socket. `None` if the record cannot be read.
    pub node: Option<String>,
    /// What has to be given back, in words. `None` if the record cannot be read.
    pub what: Option<String>,
    /// Why it is left.
    pub why: String,
    /// The record may be the named node's, as far as kbackup knows.
    #[serde(skip)]
    pub may_be_of_node: bool,
}

impl PlannedRelease {
    /// What is given back, in words.
    #[must_use]
    pub fn what(&self) -> String {
        match (&self.scavenge, self.auto_scavenge) {
            (Some(id), true) => format!("scavenge {id} and auto-scavenge"),
            (Some(id), false) => format!("scavenge {id}"),
            (None, true) => "auto-scavenge".to_owned(),
            (None, false) => String::new(),
        }
    }
}

impl From<&ListedRecord> for PlannedRelease {
    fn from(listed: &ListedRecord) -> Self {
        let record = &listed.record;
        Self {
            node: record.node.to_string(),
            endpoint: record.node.endpoint.clone(),
            scavenge: record.scavenge.as_ref().map(|stopped| stopped.id.clone()),
            auto_scavenge: record.auto_scavenge.is_some(),
            in_use: listed.in_use,
        }
    }
}

/// Plans to give back to all nodes, or to the one that `node` names (URL, socket or advertised
/// endpoint). If nothing is on record, the plan is empty. [`ReleasePlan::compare_with`] finds the
/// records of that node that do not name it so.
///
/// # Errors
/// As [`ReleaseRecords::list`].
pub fn plan_release(
    records: &ReleaseRecords,
    node: Option<&str>,
    mode: ReleaseMode,
) -> Result<ReleasePlan> {
    let listing = records.list()?;

    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for listed in listing.readable {
        let is_named = match node {
            Some(node) => listed.record.is_of(node),
            None => true,
        };
        if is_named {
            chosen.push(listed);
        } else {
            others.push(LeftRecord {
                listed,
                may_be_of_node: true,
                why: format!("{NOT_LOOKED_AT}; {SAY_IT}"),
            });
        }
    }

    Ok(ReleasePlan {
        chosen,
        others,
        asserted: None,
        unreadable: listing.unreadable,
        mode,
        is_for_all: node.is_none(),
    })
}

impl ReleasePlan {
    /// The nodes, in the order in which they are served.
    #[must_use]
    pub fn nodes(&self) -> Vec<PlannedRelease> {
        self.chosen.iter().map(PlannedRelease::from).collect()
    }

    /// The records that are left as they are, and why.
    #[must_use]
    pub fn untouched(&self) -> Vec<UntouchedRecord> {
        let mut untouched = Vec::new();
        for left in &self.others {
            let listed = &left.listed;
            untouched.push(UntouchedRecord {
                record: listed.path.display().to_string(),
                node: Some(listed.record.node.to_string()),
                what: Some(PlannedRelease::from(listed).what()),
                why: left.why.clone(),
                may_be_of_node: left.may_be_of_node,
            });
        }
        for unreadable in &self.unreadable {
            untouched.push(UntouchedRecord {
                record: unreadable.path.display().to_string(),
                node: None,
                what: None,
                why: unreadable.error.in_words(),
                may_be_of_node: true,
            });
        }
        untouched
    }

    /// What waits to be given back, in words: what the plan chose, and what it left of the nodes that
    /// `is_related` names. What a running run holds does not count.
    pub fn pending(&self, is_related: impl Fn(&RecordedNode) -> bool) -> Option<String> {
        for listed in &self.chosen {
            if !listed.in_use {
                return Some(PlannedRelease::from(listed).what());
            }
        }
        for left in &self.others {
            let listed = &left.listed;
            if !listed.in_use && is_related(&listed.record.node) {
                let what = PlannedRelease::from(listed).what();
                return Some(format!("{what}, taken at {}", listed.record.node));
            }
        }
        None
    }

    /// Asks the named node which records are its own, whatever their addresses are. Proven ones are
    /// chosen. If there is none, `--new-address` chooses the only one that kbackup can neither prove
    /// nor disprove.
    ///
    /// # Errors
    /// [`Kind::Refused`] if `--new-address` is asked for and more than one record may be meant.
    /// [`Kind::Unreachable`] or [`Kind::Denied`] if it is asked for and the node cannot be asked.
    pub fn compare_with(&mut self, client: Client, run: &Run) -> Result<()> {
        if self.others.is_empty() && !self.mode.new_address {
            return Ok(());
        }

        let session = match Session::open(client, run) {
            Ok(session) => session,
            Err(error) if self.mode.new_address || is_interruption(&error) => return Err(error),
            Err(error) => {
                for left in &mut self.others {
                    let why = error.in_words();
                    left.why = format!("{NOT_LOOKED_AT}, because {why}; {SAY_IT}");
                }
                return Ok(());
            }
        };

        let mut candidates = Vec::new();
        for listed in std::mem::take(&mut self.chosen) {
            candidates.push((listed, true));
        }
        for left in std::mem::take(&mut self.others) {
            candidates.push((left.listed, false));
        }

        let mut compared = Vec::new();
        for (listed, is_named) in candidates {
            let (comparison, _) = recognise(&session, &listed.record.node, run)?;
            compared.push(ComparedRecord {
                listed,
                is_named,
                comparison,
            });
        }
        self.choose(compared)
    }

    fn choose(&mut self, compared: Vec<ComparedRecord>) -> Result<()> {
        let has_own = compared.iter().any(ComparedRecord::is_proven);
        if self.mode.new_address && !has_own {
            self.asserted = only_unproven(&compared)?;
        }
        let is_served = has_own || self.asserted.is_some();

        for record in compared {
            let is_asserted = self.asserted.as_ref() == Some(&record.listed.path);
            // If the node has no other record, the release of the one that names it says why it
            // fails.
            let is_tried = record.is_named && !is_served;
            if record.is_proven() || is_asserted || is_tried {
                self.chosen.push(record.listed);
            } else {
                self.others.push(record.left(is_served));
            }
        }
        Ok(())
    }

    /// Gives back to each node that is not in use. `connect` finds a node again; the record holds
    /// no credentials.
    ///
    /// # Errors
    /// The first error. The other nodes are served nevertheless, and what could not be given back
    /// stays on record. If no node was named, a record that cannot be read is an error, too.
    pub fn execute(
        &self,
        records: &ReleaseRecords,
        connect: impl Fn(&ReleaseRecord) -> Result<Client>,
        run: &Run,
    ) -> Result<()> {
        let mut problems = Vec::new();
        for listed in &self.chosen {
            if listed.in_use && !self.mode.force {
                continue;
            }

            run.check()?;
            let is_asserted = self.asserted.as_ref() == Some(&listed.path);
            let mode = ReleaseMode {
                new_address: is_asserted,
                ..self.mode
            };
            if let Err(error) = release_node(records, listed, &connect, mode, run) {
                problems.push(error);
            }
        }
        if self.is_for_all {
            problems.extend(self.unreadable.iter().map(unreadable_error));
        }

        let mut problems = problems.into_iter();
        let Some(first) = problems.next() else {
            return Ok(());
        };
        for problem in problems {
            run.warn(problem.in_words());
        }
        Err(first)
    }
}

fn unreadable_error(unreadable: &UnreadableRecord) -> Error {
    let source = &unreadable.error;
    let mut error = Error::new(source.kind(), source.what()).at(&unreadable.path);
    if let [cause, ..] = source.causes().as_slice() {
        error = error.because(cause.clone());
    }
    for hint in source.hints() {
        error = error.hint(hint);
    }
    error
}

fn release_node(
    records: &ReleaseRecords,
    listed: &ListedRecord,
    connect: impl Fn(&ReleaseRecord) -> Result<Client>,
    mode: ReleaseMode,
    run: &Run,
) -> Result<()> {
    // Another run may have given everything back since the plan was made.
    let Some(mut held) = hold(records, listed, mode)? else {
        return Ok(());
    };

    let client = connect(held.record())?;
    let session = Session::open(client, run)?;
    find_again(&session, &mut held, mode, run)?;

    let mut borrowed = Borrowed::new(held, run);
    give_back(
        session.client(),
        session.version(),
        &mut borrowed,
        GIVE_BACK_LIMIT,
    )
}

fn hold(
    records: &ReleaseRecords,
    listed: &ListedRecord,
    mode: ReleaseMode,
) -> Result<Option<HeldRecord>> {
    match records.hold_listed(listed) {
        Err(error) if error.kind() == Kind::Locked && mode.force => records.seize(listed),
        result => result,
    }
}

/// Checks that the node of the session is the recorded one. If it has another address now, the
/// record moves there.
fn find_again(
    session: &Session,
    held: &mut HeldRecord,
    mode: ReleaseMode,
    run: &Run,
) -> Result<()> {
    let (comparison, here) = recognise(session, &held.record().node, run)?;

    match comparison {
        Comparison::Same => Ok(()),
        Comparison::Moved => {
            run.note(format!(
                "{here}: this is the node of the release record, at another address"
            ));
            held.move_to(here)
        }
        Comparison::Unproven(_) if mode.new_address => {
            // The operator says that it is the same node, and so the same database.
            let database = here.database.or(held.record().node.database);
            held.move_to(RecordedNode { database, ..here })
        }
        Comparison::Unproven(why) => Err(another_node(session, &why).hint(
            "if it is the same node, and only its address or its directory has changed, use \
             `kbackup release --node URL --new-address`",
        )),
        Comparison::Another(why) => Err(another_node(session, &why)),
    }
}

fn another_node(session: &Session, why: &str) -> Error {
    Error::new(Kind::Refused, format!("another node answers: {why}"))
        .on(session.client().place())
        .hint("give the recorded node's own address with `--node`")
}
