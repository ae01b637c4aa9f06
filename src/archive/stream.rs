//! An archive that is read: one member after the other, once, from its beginning to its end.
//!
//! The archive may come from anywhere. Nothing in it is believed: the reader takes only plain files,
//! never a link, a device, a long name or any other extension of tar, and never a length that it
//! has not compared with the manifest.

use std::io::{self, Cursor, Read};
use std::sync::{Mutex, PoisonError};

use tar::{EntryType, Header};

use super::member::{BLOCK, padding};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::run::Run;

/// How every zstd frame begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What may follow the end of an archive: tar fills its last record with zeros.
const MAX_FILLER: u64 = 1 << 20;
/// Where the checksum of a header stands. It counts as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// The bytes of an archive.
pub(super) struct ArchiveStream<'a> {
    input: Box<dyn Read + Send + 'a>,
    run: &'a Run,
}

/// What a header says of its member.
pub(super) struct MemberHeader {
    pub(super) name: String,
    pub(super) size: u64,
}

impl<'a> ArchiveStream<'a> {
    /// Begins to read an archive: a plain tar, or one in zstd.
    ///
    /// # Errors
    /// `StoredCorrupt` if there is nothing to read.
    pub(super) fn new(mut input: impl Read + Send + 'a, run: &'a Run) -> Result<Self> {
        let mut begin = [0; 4];
        input
            .read_exact(&mut begin)
            .map_err(|error| unreadable(&error, run))?;
        let whole = Cursor::new(begin).chain(input);

        if begin != ZSTD {
            let input = Box::new(whole);
            return Ok(Self { input, run });
        }
        let decoder = zstd::Decoder::new(whole).map_err(|error| unreadable(&error, run))?;
        let input = Box::new(decoder);
        Ok(Self { input, run })
    }

    /// The header of the next member. Returns `None` at the end of the archive.
    ///
    /// # Errors
    /// `StoredCorrupt` if there is no header, or if the member is not a plain file.
    pub(super) fn next(&mut self) -> Result<Option<MemberHeader>> {
        let mut block = [0; BLOCK];
        self.read(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }

        let header = Header::from_byte_slice(&block);
        let is_header = header.cksum().ok() == Some(checksum(&block));
        if !is_header {
            return Err(
                broken("this is not an archive of kbackup, or it is damaged")
                    .because("a member has no header with the right checksum"),
            );
        }
        member_of(header).map(Some)
    }

    /// Reads the bytes of a small member into memory.
    ///
    /// # Errors
    /// `StoredCorrupt` if the archive ends too early.
    pub(super) fn bytes(&mut self, size: u64) -> Result<Vec<u8>> {
        // The memory grows with what arrives, and not with what the header promises.
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(size).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(&error, self.run))?;
        if bytes.len() as u64 != size {
            return Err(too_early());
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    /// Reads past the member that comes next.
    ///
    /// # Errors
    /// As for [`Self::bytes`].
    pub(super) fn skip_member(&mut self, size: u64) -> Result<()> {
        self.skip(size)?;
        self.skip(padding(size))
    }

    /// The content of the member that comes next.
    pub(super) fn content(&mut self, size: u64) -> MemberContent<'_> {
        MemberContent {
            size,
            state: Mutex::new(ContentState {
                input: &mut *self.input,
                position: 0,
                failure: None,
            }),
            run: self.run,
        }
    }

    /// Reads past what fills a member of so many bytes.
    ///
    /// # Errors
    /// As for [`Self::bytes`].
    pub(super) fn skip_padding(&mut self, size: u64) -> Result<()> {
        self.skip(padding(size))
    }

    /// Reads what is behind the end: the second block of zeros, and what fills the last record.
    ///
    /// # Errors
    /// `StoredCorrupt` if the archive goes on.
    pub(super) fn finish(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        self.read(&mut block)?;

        let mut filler = 0;
        loop {
            if block.iter().any(|byte| *byte != 0) || filler > MAX_FILLER {
                return Err(broken("the archive goes on behind its end"));
            }
            block.fill(0);
            let count = self.read_some(&mut block)?;
            if count == 0 {
                return Ok(());
            }
            filler += count as u64;
        }
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let mut skipped = 0;
        let mut buffer = vec![0; 64 * 1024];
        while skipped < bytes {
            self.run.check()?;
            let left = usize::try_from(bytes - skipped).unwrap_or(usize::MAX);
            let piece = left.min(buffer.len());
            self.read(buffer.get_mut(..piece).unwrap_or_default())?;
            skipped += piece as u64;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input
            .read_exact(buffer)
            .map_err(|error| unreadable(&error, self.run))
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.input.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&error, self.run)),
            }
        }
    }
}

fn member_of(header: &Header) -> Result<MemberHeader> {
    let name = header.path_bytes();
    let Ok(name) = std::str::from_utf8(&name) else {
        return Err(broken("the name of a member is not text"));
    };

    if header.entry_type() != EntryType::Regular {
        return Err(broken("a member of the archive is not a plain file")
            .on(name)
            .because(format!("it is {}", kind_in_words(header.entry_type()))));
    }
    let size = header.entry_size().map_err(|error| {
        broken("the length of a member is not a number")
            .on(name)
            .because(error)
    })?;
    Ok(MemberHeader {
        name: name.to_owned(),
        size,
    })
}

fn kind_in_words(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Directory => "a directory",
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block | EntryType::Fifo => "a device or a pipe",
        EntryType::GNUSparse => "a sparse file",
        EntryType::GNULongName
        | EntryType::GNULongLink
        | EntryType::XGlobalHeader
        | EntryType::XHeader => "an extension of the next header",
        _ => "of a kind that kbackup does not know",
    }
}

fn checksum(block: &[u8]) -> u32 {
    let mut sum = 0;
    for (index, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&index) {
            b' '
        } else {
            *byte
        };
        sum += u32::from(byte);
    }
    sum
}

/// The content of one member. It can be read once: whoever stores it reads it from its beginning to
/// its end.
pub(super) struct MemberContent<'a> {
    size: u64,
    state: Mutex<ContentState<'a>>,
    run: &'a Run,
}

struct ContentState<'a> {
    input: &'a mut (dyn Read + Send),
    position: u64,
    /// Why the archive could not be read.
    failure: Option<Error>,
}

impl MemberContent<'_> {
    /// Why storing the content failed: the archive could not be read, or else `error`.
    pub(super) fn blame(self, error: Error) -> Error {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        state.failure.unwrap_or(error)
    }

    /// Whether all of it was read.
    pub(super) fn is_read(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.position == self.size
    }
}

impl ReadAt for MemberContent<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if offset != state.position {
            return Err(io::Error::other("an archive can be read only once"));
        }

        let left = usize::try_from(self.size - state.position).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let error = match state.input.read(buffer) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(count) => {
                state.position += count as u64;
                return Ok(count);
            }
            Err(error) => error,
        };

        if error.kind() != io::ErrorKind::Interrupted {
            state.failure = Some(unreadable(&error, self.run));
        }
        Err(error)
    }
}

/// The error for an archive that is not one of kbackup's, or not whole.
pub(super) fn broken(what: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, what).hint("nothing was imported")
}

fn too_early() -> Error {
    broken("the archive ends too early").hint("export it again, and look at the exit codes")
}

fn unreadable(error: &io::Error, run: &Run) -> Error {
    // The input ends its reads when the run is interrupted.
    if let Err(interrupted) = run.check() {
        return interrupted;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return too_early();
    }
    broken("the archive cannot be read").because(error.to_string())
}
