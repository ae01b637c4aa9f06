//! The input is the JSON of an epoch record.

use kbackup::format::record::{Frame, Record, System, Ticks};
use kbackup::format::{Chain, EpochRecord, LogPosition};

pub(crate) fn examine(data: &[u8]) {
    let system = System {
        timestamp: Ticks::MAX,
        subtype: System::EPOCH,
        serialization: System::JSON,
        data,
    };

    for position in [0, 588, 613_167] {
        let position = LogPosition::new(position).unwrap();
        let frame = Frame {
            position,
            offset: 128,
            length: 100,
            record: Record::System(system),
        };

        if let Ok(epoch) = EpochRecord::parse(&frame) {
            assert!(epoch.previous.is_none_or(|previous| previous < position));
            let mut chain = Chain::starting_at(Some(position));
            chain.add(&epoch).unwrap();
            assert_eq!(chain.wanted(), epoch.previous);
            assert_eq!(chain.finish().first(), Some(&epoch.epoch));
        }
    }
}
