//! `scavenging.db`: which scavenge it knows of. One that the log does not hold makes the next
//! scavenge remove what was written since (O34).

use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::record::Record;
use crate::format::{self, LogPosition, ReadAt, WriterPosition};
use crate::log::{ChunkSet, lookup, with_place};
use crate::manifest::{FileSet, RelativePath};
use crate::run::Run;

/// How the server's row about a scavenge begins; its JSON has no spaces (disk-format §2.6, and seen
/// in the files of 22.10 to 26.1).
const ROW: &[u8] = br#"{"scavengePoint":{"position":"#;
const NUMBER: &[u8] = br#","eventNumber":"#;
/// Bytes that are searched at once, and bytes of them that are searched again with the next.
const WINDOW: usize = 1024 * 1024;
const OVERLAP: usize = 256;

/// A scavenge point that the state names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    position: LogPosition,
    event_number: i64,
}

/// The first scavenge point that the state at `path` names and the log does not hold; none where
/// all is well, or there is no state.
///
/// The file is searched as bytes, so rows that were overwritten may be found as well: each was true
/// of the log once.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn foreign_scavenge(
    files: &dyn FileSet,
    path: &RelativePath,
    chunks: &ChunkSet,
    writer: WriterPosition,
    run: &Run,
) -> Result<Option<String>> {
    let Some(source) = files.open(path)? else {
        return Ok(None);
    };
    for Point {
        position,
        event_number,
    } in points(files, path, &*source, run)?
    {
        if position >= writer.0 {
            return Ok(Some(format!(
                "it knows of a scavenge at {position}, and the log ends at {writer}"
            )));
        }
        let Some(file) = chunks
            .holding(position)
            .filter(|file| file.file.header.transform == Transform::Identity)
        else {
            continue;
        };
        let opened = file.open(files)?;
        // Damage in a chunk is told elsewhere.
        let Ok(mut lookup) = lookup(file, &*opened) else {
            continue;
        };
        let agrees = match lookup.read_at_position(position) {
            Ok(Some(frame)) => match &frame.record {
                Record::Prepare(prepare) => {
                    prepare.stream == b"$scavengePoints"
                        && prepare.event_number() == Some(event_number)
                }
                Record::Commit(_) | Record::System(_) => false,
            },
            // A later scavenge has removed it.
            Ok(None) => true,
            Err(format::Error::Malformed(_)) => false,
            Err(error) => return with_place(files, &file.path, Err(error)),
        };
        if !agrees {
            return Ok(Some(format!(
                "it knows of a scavenge at {position}, and the log holds something else there"
            )));
        }
    }
    Ok(None)
}

fn points(
    files: &dyn FileSet,
    path: &RelativePath,
    source: &dyn ReadAt,
    run: &Run,
) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    let mut window = Vec::new();
    let mut offset = 0;
    while offset < source.size() {
        run.check()?;
        let length = usize::try_from(source.size() - offset)
            .unwrap_or(usize::MAX)
            .min(WINDOW);
        window.resize(length, 0);
        with_place(
            files,
            path,
            source
                .read_exact_at(offset, &mut window)
                .map_err(Into::into),
        )?;
        collect(&window, &mut points);
        if length < WINDOW {
            break;
        }
        offset += (WINDOW - OVERLAP) as u64;
    }
    Ok(points)
}

fn collect(window: &[u8], points: &mut Vec<Point>) {
    for start in places_of(ROW, window) {
        if let Some(point) = window.get(start + ROW.len()..).and_then(parse)
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

/// The numbers behind the beginning of a row; none where they are cut off.
fn parse(bytes: &[u8]) -> Option<Point> {
    let (position, rest) = digits(bytes)?;
    let (event_number, _) = digits(rest.strip_prefix(NUMBER)?)?;
    Some(Point {
        position: LogPosition::from_signed(position)?,
        event_number,
    })
}

/// A number, and what follows it; something has to.
fn digits(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let length = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = bytes.split_at(length);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
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
        format!(r#"{{"scavengePoint":{{"position":{position},"eventNumber":1,"effectiveNow":"2026-11-21T09:22:01.379463"}},"schemaVersion":"V0"}}"#)
            .into_bytes()
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
