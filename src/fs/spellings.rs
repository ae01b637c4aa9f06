//! Where a path leads, although its last parts may not exist: a disk that is not mounted takes the
//! target of a link away, and not the link.

use std::path::{Component, Path, PathBuf};

use super::names::link_target;
use super::status::{FileKind, status};

/// The kernel follows no more links than this in one path.
const MOST_LINKS: usize = 40;

/// The absolute path without symbolic links, as far as they can be followed.
#[must_use]
pub fn real(path: &Path) -> PathBuf {
    let mut spellings = spellings(path);
    spellings.pop().unwrap_or_else(|| path.to_owned())
}

/// Every absolute path on the way to where `path` leads: first `path` itself, then what each link
/// makes of it, and last the real path. Each stands there once.
#[must_use]
pub fn spellings(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut next = without_slash(&absolute);
    let mut found = vec![next.clone()];

    for _ in 0..MOST_LINKS {
        let Some((before, after)) = follow_first_link(&next) else {
            break;
        };
        add(&mut found, before);
        add(&mut found, after.clone());
        next = after;
    }

    // No link is left, so `..` leads to the directory before it.
    let real = without_dots(&next);
    found.retain(|spelling| *spelling != real);
    found.push(real);
    found
}

fn add(found: &mut Vec<PathBuf>, spelling: PathBuf) {
    if !found.contains(&spelling) {
        found.push(spelling);
    }
}

/// Follows the first link of an absolute path. Returns the path up to there without `..`, and the
/// path that the link makes of it. `None` if nothing in it is known to be a link.
fn follow_first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut walked = PathBuf::new();
    let mut rest = path.components();

    while let Some(component) = rest.next() {
        if component == Component::ParentDir {
            walked.pop();
            continue;
        }
        let here = walked.join(component);

        // What cannot be looked at is taken as it is written.
        let is_link = matches!(status(&here), Ok(Some(status)) if status.kind == FileKind::Link);
        if is_link && let Ok(target) = link_target(&here) {
            let before = here.join(rest.as_path());
            let after = walked.join(target).join(rest.as_path());
            return Some((without_slash(&before), without_slash(&after)));
        }
        walked = here;
    }
    None
}

/// The path without a slash at its end: such paths are equal, but their bytes are not.
fn without_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

/// An absolute path without links, with `..` taken away.
fn without_dots(path: &Path) -> PathBuf {
    let mut walked = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            walked.pop();
        } else {
            walked.push(component);
        }
    }
    walked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_leads_through_links_to_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("disk")).unwrap();
        symlink("second", top.join("first")).unwrap();
        symlink(top.join("disk/missing/../gone"), top.join("second")).unwrap();

        assert_eq!(real(&top.join("first/repo")), top.join("disk/gone/repo"));
        let expected = [
            "first/repo",
            "second/repo",
            "disk/missing/../gone/repo",
            "disk/gone/repo",
        ];
        assert_eq!(
            spellings(&top.join("first/repo")),
            expected.map(|path| top.join(path))
        );
    }

    #[test]
    fn what_leads_out_of_a_link_leads_out_of_its_target() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        symlink("a/b", top.join("link")).unwrap();

        assert_eq!(real(&top.join("link/../repo")), top.join("a/repo"));
        for path in spellings(&top.join("link/")) {
            assert!(!path.as_os_str().to_str().unwrap().ends_with('/'));
        }
        assert_eq!(real(&top.join("x/../a/./b/")), top.join("a/b"));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let directory = tempfile::tempdir().unwrap();
        symlink("one", directory.path().join("two")).unwrap();
        symlink("two", directory.path().join("one")).unwrap();

        assert!(spellings(&directory.path().join("one/repo")).len() < 10);
    }
}
