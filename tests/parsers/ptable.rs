//! The input is a whole table. Its entries in order, single entries, and the latest entries agree.

use kbackup::format::ptable::Table;

pub(crate) fn examine(bytes: &[u8]) {
    let bytes = bytes.to_vec();
    let Ok(table) = Table::open(&bytes) else {
        return;
    };

    let _ = table.check_md5();
    let mut entries = Vec::new();
    for (index, entry) in (0..).zip(table.entries()) {
        let Ok(entry) = entry else {
            assert!(table.entry(index).is_err() && table.check_order().is_err());
            return;
        };
        assert_eq!(table.entry(index).unwrap(), Some(entry));
        entries.push(entry);
    }

    assert_eq!(entries.len() as u64, table.layout().entries);

    if let Ok(latest) = table.latest(5) {
        assert!(entries.is_sorted_by(|before, after| before >= after));
        entries.sort_by_key(|entry| (entry.position, *entry));
        assert!(latest.iter().eq(entries.iter().rev().take(5)));
    }
}
