//! `kbackup release`: gives back to nodes what killed runs left on record.

use super::borrowed::Borrowed;
use super::give_back::{GIVE_BACK_LIMIT, give_back};
use crate::error::{Error, Kind, Result};
use crate::node::held_record::HeldRecord;
use crate::node::release_record::ReleaseRecord;
use crate::node::release_records::{ListedRecord, ReleaseRecords, UnreadableRecord};
use crate::node::same_node::{Comparison, recognise};
use crate::node::{Client, Session};
use crate::run::Run;

/// What `kbackup release` is going to do.
#[derive(Debug)]
pub struct ReleasePlan {
    chosen: Vec<ListedRecord>,
    /// The records of other nodes than the named one.
    others: Vec<ListedRecord>,
    unreadable: Vec<UnreadableRecord>,
    mode: ReleaseMode,
    /// No node was named.
    is_for_all: bool,
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
/// endpoint). If nothing is on record, the plan is empty.
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
            others.push(listed);
        }
    }

    Ok(ReleasePlan {
        chosen,
        others,
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
        for listed in &self.others {
            untouched.push(UntouchedRecord {
                record: listed.path.display().to_string(),
                node: Some(listed.record.node.to_string()),
                what: Some(PlannedRelease::from(listed).what()),
                why: "it is about another node".to_owned(),
            });
        }
        for unreadable in &self.unreadable {
            untouched.push(UntouchedRecord {
                record: unreadable.path.display().to_string(),
                node: None,
                what: None,
                why: unreadable.error.in_words(),
            });
        }
        untouched
    }

    /// Adds the records of the named node that were made when it had another address. A record that
    /// kbackup can neither prove nor disprove is added if there is only one.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] or [`Kind::Denied`] if the node cannot be asked.
    pub fn add_former_addresses(&mut self, client: Client, run: &Run) -> Result<()> {
        if self.others.is_empty() {
            return Ok(());
        }

        let session = Session::open(client, run)?;
        let (mut left, mut unproven) = (Vec::new(), Vec::new());
        for listed in std::mem::take(&mut self.others) {
            let (comparison, _) = recognise(&session, &listed.record.node, run)?;
            match comparison {
                Comparison::Same | Comparison::Moved => self.chosen.push(listed),
                Comparison::Unproven(_) => unproven.push(listed),
                Comparison::Another(_) => left.push(listed),
            }
        }

        if self.chosen.is_empty() && unproven.len() == 1 {
            self.chosen.append(&mut unproven);
        }
        left.append(&mut unproven);
        self.others = left;
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
            if let Err(error) = release_node(records, listed, &connect, self.mode, run) {
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
        Comparison::Unproven(_) if mode.new_address => held.move_to(here),
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
