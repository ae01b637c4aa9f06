//! `scavenging.db`: the scavenges that it knows of. If the log does not hold one of them, the file
//! comes from another log. Then the next scavenge removes events that were written since (O34).

use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::record::Record;
use crate::format::{self, LogPosition, ReadAt, WriterPosition};
use crate::log::{ChunkSet, LogFile, lookup, with_place};
use crate::manifest::{FileSet, RelativePath};
use crate::run::Run;

/// How the server's row about a scavenge begins. Its JSON has no spaces (disk-format §2.6, and seen
/// in the files of 22.10 to 26.1).
const ROW: &[u8] = br#"{"scavengePoint":{"position":"#;
const NUMBER: &[u8] = br#","eventNumber":"#;
/// Bytes that are searched at once.
const WINDOW: usize = 1024 * 1024;
/// Bytes at the end of a window that are searched again with the next one.
const OVERLAP: usize = 256;

/// A scavenge that the state knows of: its point in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KnownScavenge {
    position: LogPosition,
    event_number: i64,
}

/// Looks for a scavenge point that the state at `path` names and the log does not hold. Says what
/// the log holds instead. Returns `None` if there is no such point, or no state.
///
/// The file is searched as bytes, so this may also find rows that the server has deleted. They do
/// no harm: each of them was true of the log once.
pub(super) fn foreign_scavenge(
    files: &dyn FileSet,
    path: &RelativePath,
    chunks: &ChunkSet,
    writer: WriterPosition,
    run: &Run,
) -> Result<Option<String>> {
    let Some(source) = files.open(path)? else {
        return Ok(None);
    };

    for point in points(files, path, &*source, run)? {
        let position = point.position;
        if position >= writer.0 {
            return Ok(Some(format!(
                "it knows of a scavenge at {position}, and the log ends at {writer}"
            )));
        }

        let Some(file) = chunks.holding(position) else {
            continue;
        };
        if !is_in_log(files, file, point)? {
            return Ok(Some(format!(
                "it knows of a scavenge at {position}, and the log holds something else there"
            )));
        }
    }

    Ok(None)
}

/// Whether the log holds the scavenge point. Also returns true if the chunk is encrypted or
/// damaged, because then nobody can know it. Another finding reports that.
fn is_in_log(files: &dyn FileSet, file: &LogFile, point: KnownScavenge) -> Result<bool> {
    if file.header().transform != Transform::Identity {
        return Ok(true);
    }
    let source = file.open(files)?;
    let Ok(mut lookup) = lookup(file, &*source) else {
        return Ok(true);
    };

    match lookup.read_at_position(point.position) {
        Ok(Some(frame)) => match &frame.record {
            Record::Prepare(prepare) => Ok(prepare.stream == b"$scavengePoints"
                && prepare.event_number() == Some(point.event_number)),
            Record::Commit(_) | Record::System(_) => Ok(false),
        },
        // A later scavenge has removed it.
        Ok(None) => Ok(true),
        Err(format::Error::Malformed(_)) => Ok(false),
        Err(error) => with_place(files, &file.path, Err(error)),
    }
}

/// The scavenge points that the state names, each once.
fn points(
    files: &dyn FileSet,
    path: &RelativePath,
    source: &dyn ReadAt,
    run: &Run,
) -> Result<Vec<KnownScavenge>> {
    let mut points = Vec::new();
    let mut window = Vec::new();

    let mut offset = 0;
    while offset < source.size() {
        run.check()?;

        let rest = usize::try_from(source.size() - offset).unwrap_or(usize::MAX);
        let length = rest.min(WINDOW);
        window.resize(length, 0);
        let read = source.read_exact_at(offset, &mut window);
        with_place(files, path, read.map_err(format::Error::Read))?;
        collect(&window, &mut points);

        if length < WINDOW {
            break;
        }
        offset += (WINDOW - OVERLAP) as u64;
    }

    Ok(points)
}

fn collect(window: &[u8], points: &mut Vec<KnownScavenge>) {
    for start in places_of(ROW, window) {
        let row = window.get(start + ROW.len()..).unwrap_or_default();
        if let Some(point) = parse(row)
            && !points.contains(&point)
        {
            points.push(point);
        }
    }
}

/// Where `needle` begins in `bytes`.
fn places_of<'a>(needle: &'a [u8], bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(needle.len())
        .enumerate()
        .filter(move |(_, window)| *window == needle)
        .map(|(at, _)| at)
}

/// The numbers behind the beginning of a row. Returns `None` if they are cut off.
fn parse(bytes: &[u8]) -> Option<KnownScavenge> {
    let (position, rest) = digits(bytes)?;
    let (event_number, _) = digits(rest.strip_prefix(NUMBER)?)?;
    Some(KnownScavenge {
        position: LogPosition::from_signed(position)?,
        event_number,
    })
}

/// A number, and the bytes behind it. Returns `None` if there are none: the number may be cut off.
fn digits(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let length = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = bytes.split_at(length);
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;
    use crate::manifest::Directories;

    fn found(bytes: &[u8]) -> Vec<(u64, i64)> {
        let directory = tempfile::tempdir().unwrap();
        let files = Directories::new(directory.path(), None);
        let path = RelativePath::scavenge_state();
        let points = points(&files, &path, &bytes.to_vec(), &Run::new(Silent)).unwrap();
        points
            .iter()
            .map(|point| (point.position.get(), point.event_number))
            .collect()
    }

    fn row(position: u64) -> Vec<u8> {
        let point = format!(
            r#"{{"position":{position},"eventNumber":1,"effectiveNow":"2026-11-21T09:22:01.379463"}}"#
        );
        format!(r#"{{"scavengePoint":{point},"schemaVersion":"V0"}}"#).into_bytes()
    }

    #[test]
    fn rows_are_found_wherever_they_stand() {
        assert_eq!(found(&row(1_489_180)), [(1_489_180, 1)]);
        for before in [
            WINDOW - 100,
            WINDOW - OVERLAP - 10,
            WINDOW,
            2 * WINDOW - OVERLAP - 60,
        ] {
            let mut bytes = vec![b'7'; before];
            bytes.extend(row(5));
            bytes.extend([0; 3000]);
            assert_eq!(found(&bytes), [(5, 1)], "{before}");
        }
    }

    #[test]
    fn pieces_of_overwritten_rows_say_nothing() {
        for piece in [
            &row(1_489_180)[..30],
            &row(1_489_180)[..38],
            br#"{"scavengePoint":{"position":-5,"eventNumber":1}"#,
        ] {
            assert_eq!(found(piece), []);
        }
    }
}
