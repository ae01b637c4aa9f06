//! A disk that keeps only what POSIX promises: unsynced changes may be lost, each file and each name
//! independently.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The bytes that a disk writes at once. A write inside one sector is there or not.
const SECTOR: usize = 512;

/// One change that a run made, as `src/fs/recording.rs` writes it down.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Record {
    pub(super) at: u128,
    change: String,
    path: Option<PathBuf>,
    to: Option<PathBuf>,
    inode: Option<u64>,
    directory: Option<bool>,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    offset: Option<usize>,
    size: Option<usize>,
    bytes: usize,
    #[serde(skip)]
    data: Vec<u8>,
}

impl Record {
    /// True if this change gives the writes before it an order.
    pub(super) fn is_barrier(&self) -> bool {
        matches!(
            self.change.as_str(),
            "synced" | "renamed" | "linked" | "removed"
        )
    }

    pub(super) fn describe(&self) -> String {
        match self.to.as_ref().or(self.path.as_ref()) {
            Some(path) => format!("{} {}", self.change, path.display()),
            None => format!("{} ", self.change),
        }
    }

    pub(super) fn read_all(file: &Path) -> Vec<Self> {
        let bytes = std::fs::read(file).unwrap();
        let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let mut record: Self = serde_json::from_slice(&rest[..end]).unwrap();
            rest = &rest[end + 1..];
            record.data = rest[..record.bytes].to_vec();
            rest = &rest[record.bytes..];
            records.push(record);
        }

        assert!(
            rest.is_empty() && !records.is_empty(),
            "a recording ends in the middle, or there is none"
        );
        records
    }
}

type Id = usize;

#[derive(Clone)]
enum Body {
    /// The bytes, and a number that no other contents have.
    File(Rc<Vec<u8>>, u64),
    Directory(BTreeMap<OsString, Id>),
}

#[derive(Clone)]
struct Content {
    mode: u32,
    owner: (u32, u32),
    body: Body,
}

#[derive(Clone)]
struct Inode {
    /// The state at its last sync. A new inode was never synced and is empty.
    kept: Content,
    now: Content,
    /// The bytes before the last write, and the offset of that write. `None` if nothing was written
    /// since the sync.
    last_write: Option<(Rc<Vec<u8>>, usize)>,
}

/// One change of a directory. After a power loss, it is there or not.
#[derive(Clone)]
struct Entry {
    directory: Id,
    set: Option<(OsString, Id)>,
    unset: Option<OsString>,
}

/// Everything below one directory: the durable state, and the state that the system sees.
#[derive(Clone)]
pub(super) struct Disk {
    place: PathBuf,
    inodes: Vec<Inode>,
    numbers: HashMap<u64, Id>,
    /// The changes of directories since their last sync.
    pending: Vec<Entry>,
}

/// Which changes of directories reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Synced,
    All,
    Only(usize),
    AllBut(usize),
    /// Every change of one directory, and no change of the others.
    OfDirectory(usize),
}

/// Which unsynced bytes reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    None,
    All,
    /// The length, with zeros.
    Length,
    /// Everything but the second half of the last write to each file.
    Torn,
}

const DATA: [Data; 4] = [Data::None, Data::All, Data::Length, Data::Torn];

/// A state that a power loss may leave.
pub(super) struct Image {
    pub(super) names: Names,
    pub(super) data: Data,
    fingerprint: u64,
    directories: HashMap<Id, BTreeMap<OsString, Id>>,
}

thread_local! {
    static STAMP: Cell<u64> = const { Cell::new(0) };
}

fn file(bytes: Vec<u8>) -> Body {
    Body::File(Rc::new(bytes), STAMP.replace(STAMP.get() + 1))
}

impl Disk {
    /// Takes the present state of a directory as durable.
    pub(super) fn of(place: &Path) -> Self {
        let mut disk = Self {
            place: place.canonicalize().unwrap(),
            inodes: Vec::new(),
            numbers: HashMap::new(),
            pending: Vec::new(),
        };
        disk.take_in(place);
        disk
    }

    fn take_in(&mut self, path: &Path) -> Id {
        let status = path.symlink_metadata().unwrap();
        if !status.is_dir()
            && let Some(id) = self.numbers.get(&status.ino())
        {
            return *id;
        }

        let body = if status.is_dir() {
            Body::Directory(BTreeMap::new())
        } else {
            file(std::fs::read(path).unwrap())
        };

        let id = self.add(
            status.ino(),
            status.mode() & 0o7777,
            (status.uid(), status.gid()),
            body,
        );

        if status.is_dir() {
            for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
                let below = self.take_in(&entry.path());
                self.entries(id).insert(entry.file_name(), below);
            }
            self.inodes[id].kept = self.inodes[id].now.clone();
        }
        id
    }

    fn add(&mut self, number: u64, mode: u32, owner: (u32, u32), body: Body) -> Id {
        let content = Content { mode, owner, body };
        self.inodes.push(Inode {
            kept: content.clone(),
            now: content,
            last_write: None,
        });
        // The system may give the number of a removed file again.
        self.numbers.insert(number, self.inodes.len() - 1);
        self.inodes.len() - 1
    }

    fn entries(&mut self, directory: Id) -> &mut BTreeMap<OsString, Id> {
        let Body::Directory(entries) = &mut self.inodes[directory].now.body else {
            panic!("a file is used as a directory")
        };
        entries
    }

    /// The directory and the name of a path.
    fn locate(&mut self, path: &Path) -> (Id, OsString) {
        let below = path
            .strip_prefix(&self.place)
            .unwrap_or_else(|_| panic!("{} lies outside the watched directory", path.display()));
        let mut directory = 0;
        for name in below.parent().unwrap() {
            directory = self.entries(directory)[name];
        }
        (directory, below.file_name().unwrap().to_owned())
    }

    fn entry(&mut self, directory: Id, set: Option<(OsString, Id)>, unset: Option<OsString>) {
        if let Some(name) = &unset {
            self.entries(directory).remove(name);
        }
        if let Some((name, id)) = set.clone() {
            self.entries(directory).insert(name, id);
        }
        self.pending.push(Entry {
            directory,
            set,
            unset,
        });
    }

    /// Advances the disk by one change of the run.
    pub(super) fn apply(&mut self, record: &Record) {
        let path = record.path.as_deref();
        match record.change.as_str() {
            "made" => {
                let body = if record.directory.unwrap() {
                    Body::Directory(BTreeMap::new())
                } else {
                    file(Vec::new())
                };
                let id = self.add(
                    record.inode.unwrap(),
                    record.mode.unwrap(),
                    record.owner.unwrap(),
                    body,
                );
                let (directory, name) = self.locate(path.unwrap());
                self.entry(directory, Some((name, id)), None);
            }
            "linked" | "renamed" => {
                let (from, old) = self.locate(path.unwrap());
                let (to, new) = self.locate(record.to.as_ref().unwrap());
                let id = self.entries(from)[&old];
                if record.change == "linked" {
                    self.entry(to, Some((new, id)), None);
                } else if from == to {
                    self.entry(to, Some((new, id)), Some(old));
                } else {
                    self.entry(to, Some((new, id)), None);
                    self.entry(from, None, Some(old));
                }
            }
            "removed" => {
                let (directory, name) = self.locate(path.unwrap());
                self.entry(directory, None, Some(name));
            }
            "synced" => {
                // Directories above the watched one do not matter.
                let Some(id) = self.numbers.get(&record.inode.unwrap()).copied() else {
                    return;
                };
                self.inodes[id].kept = self.inodes[id].now.clone();
                self.inodes[id].last_write = None;
                self.pending.retain(|entry| entry.directory != id);
            }
            change => self.apply_to_file(change, record),
        }
    }

    fn apply_to_file(&mut self, change: &str, record: &Record) {
        let Some(id) = self.numbers.get(&record.inode.unwrap()).copied() else {
            panic!("{change}: a file that is not watched")
        };
        let inode = &mut self.inodes[id];
        if change == "attributes" {
            inode.now.mode = record.mode.unwrap();
            inode.now.owner = record.owner.unwrap();
            return;
        }

        let Body::File(bytes, _) = &inode.now.body else {
            panic!("a directory is written to")
        };
        let (before, mut bytes) = (Rc::clone(bytes), Vec::clone(bytes));
        if change == "resized" {
            bytes.resize(record.size.unwrap(), 0);
        } else {
            let start = record.offset.unwrap();
            let end = start + record.data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(&record.data);
            inode.last_write = Some((before, start));
        }
        inode.now.body = file(bytes);
    }

    /// The disks that a power loss may leave now. `seen` holds those that were returned before.
    pub(super) fn after_power_loss(&self, seen: &mut HashSet<u64>) -> Vec<Image> {
        let count = self.pending.len();
        let mut names = vec![Names::Synced, Names::All];

        let directories: HashSet<Id> = self.pending.iter().map(|entry| entry.directory).collect();
        let mut directories: Vec<Id> = directories.into_iter().collect();
        directories.sort_unstable();
        names.extend(directories.into_iter().map(Names::OfDirectory));
        names.extend((0..count).map(Names::Only));
        names.extend((0..count).map(Names::AllBut));

        let mut images = Vec::new();
        for names in names {
            let directories = self.directories(names);
            for data in DATA {
                let fingerprint = self.fingerprint(&directories, data);
                if seen.insert(fingerprint) {
                    images.push(Image {
                        names,
                        data,
                        fingerprint,
                        directories: directories.clone(),
                    });
                }
            }
        }
        images
    }

    fn directories(&self, names: Names) -> HashMap<Id, BTreeMap<OsString, Id>> {
        let mut directories: HashMap<Id, BTreeMap<OsString, Id>> = HashMap::new();
        for (id, inode) in self.inodes.iter().enumerate() {
            if let Body::Directory(entries) = &inode.kept.body {
                directories.insert(id, entries.clone());
            }
        }

        for (number, entry) in self.pending.iter().enumerate() {
            let reached = match names {
                Names::Synced => false,
                Names::All => true,
                Names::Only(only) => number == only,
                Names::AllBut(but) => number != but,
                Names::OfDirectory(directory) => entry.directory == directory,
            };
            if reached {
                let entries = directories.get_mut(&entry.directory).unwrap();
                if let Some(name) = &entry.unset {
                    entries.remove(name);
                }
                entries.extend(entry.set.clone());
            }
        }
        directories
    }

    fn content(&self, id: Id, data: Data) -> Content {
        let Inode {
            kept,
            now,
            last_write,
        } = &self.inodes[id];
        let (Body::File(old, old_stamp), Body::File(new, new_stamp)) = (&kept.body, &now.body)
        else {
            // A directory has only attributes here.
            return if data == Data::All {
                now.clone()
            } else {
                kept.clone()
            };
        };

        let with = |bytes: Vec<u8>| Content {
            body: Body::File(Rc::new(bytes), 0),
            ..kept.clone()
        };

        match data {
            Data::None => kept.clone(),
            Data::All => now.clone(),
            _ if old_stamp == new_stamp => kept.clone(),
            Data::Length => {
                let mut bytes = Vec::clone(old);
                bytes.resize(new.len(), 0);
                with(bytes)
            }
            Data::Torn => {
                let Some((before, start)) = last_write else {
                    return with(Vec::clone(new));
                };
                let mut bytes = Vec::clone(new);
                // The half that did not reach the disk begins at a sector. A write inside one sector
                // is never torn.
                let torn = (start + bytes.len().saturating_sub(*start) / 2)
                    .next_multiple_of(SECTOR)
                    .min(bytes.len());
                for (at, byte) in bytes.iter_mut().enumerate().skip(torn) {
                    *byte = before.get(at).copied().unwrap_or(0);
                }
                with(bytes)
            }
        }
    }

    fn fingerprint(&self, directories: &HashMap<Id, BTreeMap<OsString, Id>>, data: Data) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut open = vec![0];
        while let Some(id) = open.pop() {
            let stamp = self.stamp(id, data);
            (id, stamp).hash(&mut hasher);
            if let Some(entries) = directories.get(&id) {
                entries.hash(&mut hasher);
                open.extend(entries.values());
            }
        }
        hasher.finish()
    }

    /// Identifies contents without looking at their bytes.
    fn stamp(&self, id: Id, data: Data) -> (u64, u32, (u32, u32)) {
        let Inode { kept, now, .. } = &self.inodes[id];
        let attributes = if data == Data::All { now } else { kept };
        let stamp = match (&kept.body, &now.body) {
            (Body::File(_, old), Body::File(_, new)) => match data {
                Data::None => *old,
                Data::All => *new,
                _ if old == new => *old,
                Data::Length => new.wrapping_mul(4) ^ (1 << 63),
                Data::Torn => new.wrapping_mul(4).wrapping_add(1) ^ (1 << 63),
            },
            _ => 0,
        };
        (stamp, attributes.mode, attributes.owner)
    }

    /// Writes an image into a real directory, for the next run.
    pub(super) fn write(&self, image: &Image, place: &Path) {
        let _ = std::fs::remove_dir_all(place);
        let mut written = HashMap::new();
        self.write_one(0, image, place, &mut written);
    }

    fn write_one(&self, id: Id, image: &Image, path: &Path, written: &mut HashMap<Id, PathBuf>) {
        let content = self.content(id, image.data);
        match (&content.body, written.get(&id)) {
            (Body::File(..), Some(other)) => {
                std::fs::hard_link(other, path).unwrap();
                return;
            }
            (Body::File(bytes, _), None) => {
                let mut file = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .unwrap();
                file.write_all(bytes).unwrap();
                written.insert(id, path.to_owned());
            }
            (Body::Directory(_), _) => {
                std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
                for (name, below) in &image.directories[&id] {
                    self.write_one(*below, image, &path.join(name), written);
                }
            }
        }

        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(path, Some(content.owner.0), Some(content.owner.1)).unwrap();
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(content.mode)).unwrap();
    }
}

impl Image {
    pub(super) fn describe(&self) -> String {
        format!(
            "names {:?}, unsynced data {:?}, {:016x}",
            self.names, self.data, self.fingerprint
        )
    }
}
