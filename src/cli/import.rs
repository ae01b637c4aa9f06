//! `kbackup import`. Standard input is the archive.

use std::io::{self, IsTerminal, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::context::VerbContext;
use super::output::{count, size};
use crate::archive::ImportReport;
use crate::error::{Error, Kind, Result};
use crate::run::Run;
use crate::settings::options::ImportOptions;
use crate::verbs::import;

/// Bytes that are read at once, and how many such pieces may wait.
const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;
/// How often a wait for the input looks at its run.
const PATIENCE: Duration = Duration::from_millis(100);

pub(super) fn run(options: &ImportOptions, context: &VerbContext) -> Result<u8> {
    if io::stdin().is_terminal() {
        let what = "an archive does not come from a terminal";
        return Err(Error::new(Kind::Usage, what)
            .hint("read it from a file or a pipe: `kbackup import … < backup.tar`"));
    }

    let input = Input::start(&context.run);
    let report = import::import(options, &context.general, input, &context.run)?;
    context.output.answer(
        "kbackup.import/1",
        &context.with_warnings(&report)?,
        &text(&report),
    )?;
    Ok(context.done())
}

fn text(report: &ImportReport) -> String {
    let label = &report.label;
    let Some(imported) = &report.imported else {
        return format!("{label} is there already\n");
    };
    let mut text = format!(
        "{label}: imported {}, stored {}",
        count(imported.files_copied, "file"),
        size(imported.bytes_stored)
    );
    if let Some(parent) = &imported.parent {
        let reused = count(imported.files_linked, "file");
        text += &format!("; reused {reused} of {parent}");
    }
    if imported.files_resumed > 0 {
        text += &format!("; resumed {}", count(imported.files_resumed, "file"));
    }
    text + "\n"
}

/// Standard input, read by a thread of its own: a signal ends the run also while nothing comes.
struct Input {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    /// How much of the piece was read.
    at: usize,
    run: Arc<Run>,
}

impl Input {
    fn start(run: &Arc<Run>) -> Self {
        let (sender, pieces) = mpsc::sync_channel(PIECES);
        std::thread::spawn(move || read_all(&sender));
        Self {
            pieces,
            piece: Vec::new(),
            at: 0,
            run: Arc::clone(run),
        }
    }

    /// Waits for the next piece. Returns false at the end.
    fn next(&mut self) -> io::Result<bool> {
        loop {
            match self.pieces.recv_timeout(PATIENCE) {
                Ok(piece) => {
                    self.piece = piece?;
                    self.at = 0;
                    return Ok(true);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) if self.run.check().is_err() => {
                    return Err(io::Error::other("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Sends everything that comes. Ends early if nobody receives it.
fn read_all(sender: &SyncSender<io::Result<Vec<u8>>>) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut piece = vec![0; PIECE];
        let sent = match stdin.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                piece.truncate(count);
                sender.send(Ok(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let mut rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
