//! The input is a chunk file. Its records read forwards are the records read backwards and by position,
//! and no boundary lies outside them.

use kbackup::format::boundary::Boundaries;
use kbackup::format::chunk;
use kbackup::format::record::{Backwards, Forwards, Lookup, Record};
use kbackup::format::{Boundary, EpochRecord};

pub(crate) fn examine(bytes: &[u8]) {
    let bytes = bytes.to_vec();
    let Ok(chunk) = chunk::inspect(&bytes) else {
        return;
    };
    let header = chunk.header;
    let capacity = header.end_position().since(header.start_position());
    let data = chunk
        .completed_data()
        .unwrap_or(128..(bytes.len() as u64).min(128 + capacity));

    let (Ok(mut forwards), Ok(mut backwards)) = (
        Forwards::new(&bytes, &header, data.clone()),
        Backwards::new(&bytes, &header, data.clone()),
    ) else {
        return;
    };

    let lookup = Lookup::new(&bytes, &chunk, data.clone());
    let mut lookup = if header.scavenged {
        None
    } else {
        Some(lookup.unwrap())
    };

    let mut boundaries = Boundaries::starting_at(Boundary::ZERO);
    let mut seen = Vec::new();
    let whole = loop {
        match forwards.next() {
            Ok(Some(frame)) => {
                boundaries.add(&frame);
                assert!(boundaries.last().position() <= boundaries.end());
                if matches!(frame.record, Record::System(_)) {
                    let _ = EpochRecord::parse(&frame);
                }
                if let Some(lookup) = &mut lookup {
                    assert_eq!(
                        lookup.read_at_position(frame.position).unwrap(),
                        Some(frame)
                    );
                }
                seen.push((frame.offset, frame.length, frame.position));
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };

    loop {
        match backwards.next() {
            Ok(Some(frame)) if whole => assert_eq!(
                seen.pop(),
                Some((frame.offset, frame.length, frame.position))
            ),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                assert!(!whole, "{error}");
                break;
            }
        }
    }

    assert!(!whole || seen.is_empty());
}
