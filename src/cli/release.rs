//! `kbackup release`: gives back what a killed run still owes. Needs no repository.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::Session;
use crate::error::{Error, Kind, Result};
use crate::node::{Client, Connection, PlannedRelease, RecordedNode, ReleaseRecords, plan_release};
use crate::settings::arguments;
use crate::verbs::node;

#[derive(Serialize)]
struct Answer {
    released: bool,
    nodes: Vec<PlannedRelease>,
}

pub(super) fn run(options: &arguments::Release, session: &Session) -> Result<u8> {
    let records = node::state_directory(&session.common.general)?;
    let release_records = ReleaseRecords::open(&records)?;
    let connection = node::connection(&options.node, session.common.secrets)?;
    // Also where nothing is owed, an address that cannot be one is told.
    connection.as_ref().map(Client::new).transpose()?;
    let plan = plan_release(&release_records, node::name(&options.node).as_deref())?;
    let nodes = plan.nodes();
    let text = text(&nodes, options.dry_run, &records);
    if !options.dry_run {
        plan.execute(
            &release_records,
            |debt| connect(options, connection.as_ref(), &debt.node, session),
            &session.run,
        )?;
    }
    let answer = Answer {
        released: !options.dry_run,
        nodes,
    };
    session
        .output
        .answer("kbackup.release/1", &session.with_warnings(&answer)?, &text)?;
    Ok(session.done())
}

/// The record holds an address and no credentials: those are given as for a backup.
fn connect(
    options: &arguments::Release,
    named: Option<&Connection>,
    owed: &RecordedNode,
    session: &Session,
) -> Result<Client> {
    if let Some(connection) = named {
        return Client::new(connection);
    }
    let (node, node_socket) = (
        Some(arguments::Address(owed.url.clone())),
        owed.unix_socket.clone(),
    );
    let there = arguments::Node {
        node,
        node_socket,
        ..options.node.clone()
    };
    let connection = node::connection(&there, session.common.secrets)?
        .ok_or_else(|| Error::new(Kind::Usage, "no node is named").hint("name it with `--node`"))?;
    Client::new(&connection)
}

fn text(nodes: &[PlannedRelease], dry_run: bool, records: &Path) -> String {
    if nodes.is_empty() {
        return format!(
            "nothing is owed, by the records in `{}`\n",
            records.display()
        );
    }
    nodes.iter().fold(String::new(), |mut text, owed| {
        let state = match (owed.in_use, dry_run) {
            (true, _) => "a backup is under way, and gives it back itself",
            (false, true) => "owed",
            (false, false) => "given back",
        };
        let _ = writeln!(text, "{}: {}: {state}", owed.node, owed.what());
        text
    })
}
