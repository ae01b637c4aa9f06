//! Names of users and groups, from `/etc/passwd` and `/etc/group` alone.
//!
//! The C library would also ask the machine's other sources of names (`nsswitch.conf`: systemd,
//! LDAP). It loads a module for each of them, which crashes a static binary. Numbers always work.

use std::path::Path;

use crate::fs;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The name of a user. Returns `None` if the file does not know the number.
#[must_use]
pub(crate) fn user_name(id: u32) -> Option<String> {
    name_of(id, &lines(USERS))
}

/// The name of a group. Returns `None` if the file does not know the number.
#[must_use]
pub(crate) fn group_name(id: u32) -> Option<String> {
    name_of(id, &lines(GROUPS))
}

/// The number of a user. `text` is a number, or a name that the file knows.
#[must_use]
pub(crate) fn user(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| id_of(text, &lines(USERS)))
}

/// The number of a group. `text` is a number, or a name that the file knows.
#[must_use]
pub(crate) fn group(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| id_of(text, &lines(GROUPS)))
}

/// The user that this process runs as, by name if there is one, else by number.
#[must_use]
pub(crate) fn this_user() -> String {
    let id = rustix::process::getuid().as_raw();
    user_name(id).unwrap_or_else(|| id.to_string())
}

/// The text of the file. A file that cannot be read counts as empty, and so knows no names.
fn lines(path: &str) -> String {
    let path = fs::canonical(Path::new(path)).unwrap_or_else(|_| path.into());
    let bytes = fs::read_small(&path, MAX_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(entry)
}

/// The name and the number in a line. Both files begin each line with the name, a field for a
/// password, and the number (`passwd(5)`, `group(5)`).
fn entry(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');

    let name = fields.next()?;
    if name.is_empty() || name.starts_with(['#', '+', '-']) {
        return None;
    }

    let number = fields.nth(1)?.parse().ok()?;
    Some((name, number))
}

fn name_of(id: u32, text: &str) -> Option<String> {
    let (name, _) = entries(text).find(|(_, other)| *other == id)?;
    Some(name.to_owned())
}

fn id_of(name: &str, text: &str) -> Option<u32> {
    let (_, id) = entries(text).find(|(other, _)| *other == name)?;
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment:x:7:7\n\
        +nis:x:8:8::\n\
        broken\n\
        kurrent:x:1001:1002::/:\n\
        again:x:1001:1::/:\n\
        odd:x:-1:0::/:\n";

    #[test]
    fn a_name_has_a_number_and_a_number_has_a_name() {
        assert_eq!(name_of(0, PASSWD), Some("root".to_owned()));
        assert_eq!(
            name_of(1001, PASSWD),
            Some("kurrent".to_owned()),
            "the first one counts"
        );

        assert_eq!(
            (name_of(7, PASSWD), name_of(8, PASSWD), name_of(5, PASSWD)),
            (None, None, None)
        );
        assert_eq!(
            (
                id_of("kurrent", PASSWD),
                id_of("again", PASSWD),
                id_of("odd", PASSWD)
            ),
            (Some(1001), Some(1001), None)
        );
        assert_eq!(
            (user("4294967295"), group("0"), user("no such user")),
            (Some(u32::MAX), Some(0), None)
        );
    }

    #[test]
    fn this_machine_knows_root() {
        assert_eq!(
            (user_name(0).as_deref(), user("root")),
            (Some("root"), Some(0))
        );
    }
}
