//! `kbackup export` and `import`, as an operator uses them, beside the real `tar`.

use std::fs::File;
use std::process::{Command, Stdio};

use super::errors::flip;
use super::{NodeSite, Place, snapshots};

/// Runs a command whose standard output goes into a file. Returns its exit code and what it said.
fn into_file(place: &Place, line: &str, file: &str) -> (i32, String) {
    let output = place
        .process(line)
        .stdout(File::create(place.path(file)).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

fn tar(place: &Place, line: &str) -> bool {
    let mut command = Command::new("tar");
    command
        .args(line.split_whitespace())
        .current_dir(place.path(""));
    command.status().unwrap().success()
}

/// The two commands of the guide.
#[test]
fn tar_restores_an_archive_without_kbackup() {
    let site = NodeSite::backed_up("24.10-append");
    let place = &site.place;
    let (code, said) = into_file(place, "export --repo repo", "backup.tar");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("exported "), "{said}");

    std::fs::create_dir(place.path("data")).unwrap();
    assert!(tar(place, "-xf backup.tar -C data --strip-components=1 db"));
    assert!(tar(place, "-xf backup.tar -C data index"));
    place
        .kbackup("check data --deep --server-version 24.10")
        .assert()
        .code(0);
}

#[test]
fn an_archive_that_is_not_complete_is_refused_by_tar() {
    let site = NodeSite::backed_up("24.10-append");
    let place = &site.place;
    let label = place.listed().remove(0);
    let chunk = place
        .path("repo/backups")
        .join(label)
        .join("db/chunk-000000.000000");
    flip(&chunk, 5000);

    let (code, said) = into_file(place, "export --repo repo", "backup.tar");
    assert_eq!(code, 20, "{said}");
    assert!(said.contains("the archive is not complete"), "{said}");
    assert!(!tar(place, "-tf backup.tar"));
}

#[test]
fn an_export_says_what_it_cannot_do() {
    let site = NodeSite::backed_up("24.10-append");
    snapshots!(site.place,
        "error-export-json": site.transcript("export --repo repo --json"),
        "error-export-no-label": site.transcript("export 20200101T000000Z-full --repo repo"),
        "error-export-no-repository": site.transcript("export --repo missing"),
    );
}

/// Runs a command that reads a file from standard input, and writes down all its output.
fn transcript_of(place: &Place, line: &str, file: &str) -> String {
    let bytes = std::fs::read(place.path(file)).unwrap();
    let mut command = place.kbackup(line);
    super::transcript(&format!("{line} < {file}"), command.write_stdin(bytes))
}

#[test]
fn an_archive_becomes_a_backup_elsewhere() {
    let site = NodeSite::backed_up("24.10-append");
    let place = &site.place;
    for line in ["export --repo repo --zstd", "export --repo repo"] {
        assert_eq!(into_file(place, line, "backup.tar").0, 0);
        let _ = std::fs::remove_dir_all(place.path("second"));
        let _ = std::fs::remove_dir_all(place.path("state"));
        snapshots!(place,
            "import": transcript_of(place, "import --repo second", "backup.tar"),
            "import-again": transcript_of(place, "import --repo second", "backup.tar"),
        );
        place
            .kbackup("verify --repo second --deep")
            .assert()
            .code(0);
    }
    snapshots!(place,
        "import-json": transcript_of(place, "import --repo third --json", "backup.tar"),
    );

    place.write("notes.txt", "these are my notes");
    place.write("empty", "");
    snapshots!(place,
        "error-import-notes": transcript_of(place, "import --repo fourth", "notes.txt"),
        "error-import-empty": transcript_of(place, "import --repo fourth --json", "empty"),
    );
    assert!(!place.path("fourth").exists());

    let mut bytes = std::fs::read(place.path("backup.tar")).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(place.path("half.tar"), bytes).unwrap();
    snapshots!(place,
        "error-import-half": transcript_of(place, "import --repo fourth", "half.tar"),
    );
    let left = std::fs::read_dir(place.path("fourth/incoming")).unwrap();
    assert_eq!(left.count(), 0);
}
