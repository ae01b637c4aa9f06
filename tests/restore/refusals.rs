//! Restores that kbackup refuses, or that need the operator's consent.

use std::path::{Path, PathBuf};

use kbackup::error::{Kind, Result};
use kbackup::format::{ChunkNumber, LogPosition, ReadAt};
use kbackup::manifest::{FileSet, Label, Manifest, RestoreMark, Role, Row};
use kbackup::repository::{Held, Listed, Repository, Writer};
use kbackup::restore::{AcceptedRisks, RestoreRequest, RestoreTarget, plan};
use kbackup::run::Run;

use super::handmade::{HandmadeBackup, back_up, contents, request, run};
use crate::stores::in_every_store;

in_every_store! {
    a_target_that_holds_anything_is_refused,
    a_restored_database_is_never_resumed,
    a_target_inside_another_database_is_refused,
    a_separate_index_directory_gets_the_index,
    an_older_server_is_refused_if_its_version_is_known,
    a_backup_beside_an_archive_needs_consent,
    latest_is_the_newest_sound_backup_and_never_silently_an_older_one,
    a_newest_backup_that_ends_earlier_is_restored_with_a_warning,
    too_little_space_is_refused_before_anything_is_written,
    a_manifest_that_contradicts_itself_is_refused,
}

fn a_target_that_holds_anything_is_refused() {
    let handmade = HandmadeBackup::new("26.1-append");
    let target = handmade.target("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::create_dir(target.join("lost+found")).unwrap();
    handmade.plan(&handmade.request()).unwrap();

    std::fs::write(target.join(".hidden"), "").unwrap();
    assert!(handmade.refused(&handmade.request()).contains("not empty"));
    std::fs::remove_file(target.join(".hidden")).unwrap();

    std::fs::create_dir_all(target.join("index")).unwrap();
    handmade.plan(&handmade.request()).unwrap();
    std::fs::write(target.join("index/indexmap"), "").unwrap();
    assert!(handmade.refused(&handmade.request()).contains("not empty"));

    std::fs::remove_dir_all(&target).unwrap();
    std::fs::write(&target, "").unwrap();
    assert!(
        handmade
            .refused(&handmade.request())
            .contains("not a directory")
    );
}

fn a_restored_database_is_never_resumed() {
    let handmade = HandmadeBackup::new("26.1-append");
    handmade.restore(&handmade.request());
    let before = contents(&handmade.target("target"));

    assert!(
        handmade
            .refused(&handmade.request())
            .contains("restored database")
    );

    // A guard file that says that the restore is in progress does not change that.
    RestoreMark::begin(
        handmade.repository.id(),
        handmade.manifest.label.clone(),
        handmade.manifest.finished,
    )
    .write(&handmade.target("target"))
    .unwrap();
    assert!(
        handmade
            .refused(&handmade.request())
            .contains("restored database")
    );

    let mut after = contents(&handmade.target("target"));
    after.insert(
        RestoreMark::NAME.to_owned(),
        before[RestoreMark::NAME].clone(),
    );
    assert_eq!(after, before);
}

#[test]
fn directories_must_not_overlap() {
    let handmade = HandmadeBackup::new("26.1-append");
    let inside = |place: &Path| handmade.refused(&request(&[place]));
    assert!(
        inside(&Path::new(&handmade.repository.place()).join("incoming/x"))
            .contains("the repository")
    );
    assert!(inside(handmade.place.path()).contains("the repository"));

    let link = handmade.target("link");
    std::os::unix::fs::symlink(handmade.repository.place(), &link).unwrap();
    assert!(inside(&link).contains("the repository"));
    std::os::unix::fs::symlink(handmade.target("nowhere"), handmade.target("dangling")).unwrap();
    assert!(inside(&handmade.target("dangling")).contains("leads nowhere"));

    let target = handmade.target("target");
    assert!(
        handmade
            .refused(&request(&[&target, &target]))
            .contains("another target")
    );
    assert!(
        handmade
            .refused(&request(&[&target, &target.join("below")]))
            .contains("another target")
    );

    let with_index = |index: Option<PathBuf>| RestoreTarget {
        db: target.clone(),
        index,
    };
    let some = RestoreRequest {
        targets: vec![with_index(Some(handmade.target("index"))), with_index(None)],
        ..RestoreRequest::default()
    };
    assert!(handmade.refused(&some).contains("for some"));
    let same = RestoreRequest {
        targets: vec![with_index(Some(target.clone()))],
        ..RestoreRequest::default()
    };
    assert!(handmade.refused(&same).contains("overlap"));
}

fn a_target_inside_another_database_is_refused() {
    let handmade = HandmadeBackup::new("26.1-append");
    let (db, index) = (handmade.target("db"), handmade.target("index"));
    let apart = RestoreRequest {
        targets: vec![RestoreTarget {
            db: db.clone(),
            index: Some(index.clone()),
        }],
        ..RestoreRequest::default()
    };

    assert!(handmade.restore(&apart).failure().is_none());
    for inside in [
        db.join("copy"),
        db.join("index/deeper/copy"),
        index.join("copy"),
    ] {
        assert!(
            handmade
                .refused(&request(&[&inside]))
                .contains("inside the directory of another database"),
            "{}",
            inside.display()
        );
        let index_inside = RestoreRequest {
            targets: vec![RestoreTarget {
                db: handmade.target("new"),
                index: Some(inside),
            }],
            ..RestoreRequest::default()
        };
        assert!(
            handmade
                .refused(&index_inside)
                .contains("inside the directory of another database")
        );
    }

    assert!(
        handmade
            .restore(&request(&[&handmade.target("beside")]))
            .failure()
            .is_none()
    );
}

fn a_separate_index_directory_gets_the_index() {
    let handmade = HandmadeBackup::new("26.1-append");

    let (db, index) = (handmade.target("db"), handmade.target("index"));
    let request = RestoreRequest {
        targets: vec![RestoreTarget {
            db: db.clone(),
            index: Some(index.clone()),
        }],
        ..RestoreRequest::default()
    };
    assert!(handmade.restore(&request).failure().is_none());
    assert_eq!(contents(&index), contents(&handmade.data.index()));
    assert!(!db.join("index").exists());
}

fn an_older_server_is_refused_if_its_version_is_known() {
    let handmade = HandmadeBackup::new("24.10-append");
    let older = RestoreRequest {
        server_version: Some("23.10.8".to_owned()),
        ..handmade.request()
    };
    assert!(handmade.refused(&older).contains("older"));

    handmade
        .plan(&RestoreRequest {
            accept: AcceptedRisks {
                older_server: true,
                ..AcceptedRisks::default()
            },
            ..older
        })
        .unwrap();

    handmade
        .plan(&RestoreRequest {
            server_version: Some("24.10.0".to_owned()),
            ..handmade.request()
        })
        .unwrap();

    let nonsense = RestoreRequest {
        server_version: Some("new".to_owned()),
        ..handmade.request()
    };
    assert_eq!(handmade.plan(&nonsense).unwrap_err().kind(), Kind::Usage);
}

fn a_backup_beside_an_archive_needs_consent() {
    let handmade = HandmadeBackup::with("26.1-append", |manifest| manifest.contents.archive = true);
    assert!(handmade.refused(&handmade.request()).contains("archive"));
    let plan = handmade
        .plan(&RestoreRequest {
            accept: AcceptedRisks {
                archive: true,
                ..AcceptedRisks::default()
            },
            ..handmade.request()
        })
        .unwrap();

    assert!(
        plan.closing
            .to_do
            .iter()
            .any(|note| note.topic == "archive")
    );
}

fn latest_is_the_newest_sound_backup_and_never_silently_an_older_one() {
    let handmade = HandmadeBackup::new("26.1-append");
    let damaged = back_up(&handmade.repository, &handmade.data, 2, None, |manifest| {
        manifest.contents.damaged = vec!["db/chunk-000000.000000".parse().unwrap()];
    });
    let plan = handmade.plan(&handmade.request()).unwrap();
    assert_eq!(plan.backup.label, handmade.manifest.label);
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains(damaged.label.as_str())),
        "{:?}",
        plan.warnings
    );

    let named = RestoreRequest {
        label: Some(damaged.label.clone()),
        ..handmade.request()
    };
    assert_eq!(handmade.plan(&named).unwrap().backup.label, damaged.label);

    let newest = back_up(&handmade.repository, &handmade.data, 3, None, |_| ());
    assert_eq!(
        handmade.plan(&handmade.request()).unwrap().backup.label,
        newest.label
    );

    handmade.repository.damage_manifest(&newest.label);
    let error = handmade.plan(&handmade.request()).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(
        error
            .hints()
            .iter()
            .any(|hint| hint.contains(handmade.manifest.label.as_str())),
        "{:?}",
        error.hints()
    );
}

/// The newest backup may be one of an older copy of the node.
fn a_newest_backup_that_ends_earlier_is_restored_with_a_warning() {
    let handmade = HandmadeBackup::new("26.1-append");
    let end = handmade
        .manifest
        .log
        .chunk_size
        .start_of(ChunkNumber(1))
        .to_signed();
    let shorter = back_up(&handmade.repository, &handmade.data, 2, Some(end), |_| ());

    let plan = handmade.plan(&handmade.request()).unwrap();
    assert_eq!(plan.backup.label, shorter.label);
    let warned = |warning: &String| {
        warning.contains(handmade.manifest.label.as_str()) && warning.contains("reaches further")
    };
    assert!(plan.warnings.iter().any(warned), "{:?}", plan.warnings);

    // In the other direction, there is nothing to warn about.
    let named = RestoreRequest {
        label: Some(handmade.manifest.label.clone()),
        ..handmade.request()
    };
    assert!(!handmade.plan(&named).unwrap().warnings.iter().any(warned));
}

/// A repository whose manifests name a larger file than it holds.
struct Boasting<'a>(&'a dyn Repository);

impl Repository for Boasting<'_> {
    fn id(&self) -> uuid::Uuid {
        self.0.id()
    }

    fn place(&self) -> String {
        self.0.place()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        self.0.list()
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        let mut manifest = self.0.manifest(label)?;
        let mut rows = manifest.files.iter_mut();
        rows.find(|row| row.role == Role::Chunk).unwrap().size = 1 << 60;
        Ok(manifest)
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        self.0.files(label)
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        self.0.open(label, row)
    }

    fn writer<'b>(&'b self, run: &'b Run) -> Result<Box<dyn Writer<'b> + 'b>> {
        self.0.writer(run)
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        self.0.hold(label)
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        self.0.is_held(label)
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        self.0.would_free(labels)
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.0.state(key)
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.0.set_state(key, value)
    }

    fn free_space(&self) -> Result<Option<u64>> {
        self.0.free_space()
    }

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        self.0.shares_device_with(path)
    }
}

fn too_little_space_is_refused_before_anything_is_written() {
    let handmade = HandmadeBackup::new("20.10-append");
    let error = plan(&Boasting(&handmade.repository), &handmade.request(), &run()).unwrap_err();
    assert_eq!(
        (error.kind(), error.what()),
        (Kind::Refused, "there is not enough space")
    );
    assert!(
        error.causes()[0].contains("1.0 EiB"),
        "{:?}",
        error.causes()
    );
    assert!(!handmade.target("target").exists());
}

fn a_manifest_that_contradicts_itself_is_refused() {
    let handmade = HandmadeBackup::with("20.10-append", |manifest| {
        manifest.log.stored.epoch = LogPosition::new(77);
    });
    let error = handmade.plan(&handmade.request()).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(error.to_string().contains("epoch.chk"), "{error}");

    let handmade = HandmadeBackup::with("20.10-append", |manifest| {
        let mut chunks = manifest
            .files
            .iter_mut()
            .filter_map(|row| row.chunk.as_mut());
        let last = chunks.next_back().unwrap();
        last.start = last.start.next().unwrap();
    });
    assert!(
        handmade
            .plan(&handmade.request())
            .unwrap_err()
            .to_string()
            .contains("behind the end")
    );
}
