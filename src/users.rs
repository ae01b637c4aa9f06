//! Names of users and groups, from `/etc/passwd` and `/etc/group` alone.
//!
//! The C library would ask what else the machine has for names (`nsswitch.conf`: systemd, LDAP),
//! and loads its modules for that; in a static binary that ends in a crash. Numbers always work.

use std::path::Path;

use crate::fs;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The name of a user; none where the file does not know it.
#[must_use]
pub fn user_name(id: u32) -> Option<String> {
    name_of(id, &lines(USERS))
}

/// The name of a group; none where the file does not know it.
#[must_use]
pub fn group_name(id: u32) -> Option<String> {
    name_of(id, &lines(GROUPS))
}

/// The id of a user, by number or by a name that the file knows.
#[must_use]
pub fn user(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| id_of(text, &lines(USERS)))
}

/// The id of a group, by number or by a name that the file knows.
#[must_use]
pub fn group(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| id_of(text, &lines(GROUPS)))
}

/// The user that this process runs as, by name where there is one.
#[must_use]
pub fn this_user() -> String {
    let id = rustix::process::getuid().as_raw();
    user_name(id).unwrap_or_else(|| id.to_string())
}

fn lines(path: &str) -> String {
    // Where there is no such file, or it is a link to what cannot be read, there are no names.
    let path = fs::canonical(Path::new(path)).unwrap_or_else(|_| path.into());
    String::from_utf8_lossy(&fs::read_small(&path, MAX_BYTES).unwrap_or_default()).into_owned()
}

/// Both files begin each line with the name, a field for a password, and the number (`passwd(5)`,
/// `group(5)`).
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with(['#', '+', '-']))?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

fn name_of(id: u32, text: &str) -> Option<String> {
    entries(text)
        .find(|(_, other)| *other == id)
        .map(|(name, _)| name.to_owned())
}

fn id_of(name: &str, text: &str) -> Option<u32> {
    entries(text)
        .find(|(other, _)| *other == name)
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a comment:x:7:7\n+nis:x:8:8::\nbroken\nkurrent:x:1001:1002::/:\nagain:x:1001:1::/:\nodd:x:-1:0::/:\n";

    #[test]
    fn names_and_numbers() {
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
    fn of_this_machine() {
        assert_eq!(
            (user_name(0).as_deref(), user("root")),
            (Some("root"), Some(0))
        );
    }
}
