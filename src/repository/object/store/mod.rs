//! The only door to an object store. Only the files of this folder name the crate `object_store`.
//!
//! A [`Store`] reads, creates, replaces, lists and deletes objects of a bounded size. It blocks, and
//! many threads may call it at once. Every object is written by one request; there are no multipart
//! uploads, because they take no precondition everywhere, and leave parts behind.
//!
//! `url` reads what the operator typed, and `options` holds the other settings. `backend` connects
//! to one of the providers, with credentials from `identity` and `profile`. `http` sends each
//! request, under the time limits of `options`, and keeps what the store answered (`answer`).
//! `repeat` decides what is sent again, `failure` says in words what went wrong, and `requests`
//! counts. `runtime` holds the threads. `probe` finds out whether a store honours preconditions.

mod answer;
mod backend;
mod failure;
#[cfg(feature = "faults")]
mod faults;
mod http;
mod identity;
mod options;
mod probe;
mod profile;
mod provider;
mod repeat;
#[cfg(feature = "faults")]
mod request_faults;
mod requests;
mod runtime;
#[cfg(feature = "faults")]
mod test_stores;
#[cfg(test)]
mod tests;
mod url;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path as Location;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, UpdateVersion,
};

#[cfg(test)]
pub(super) use self::options::Environment;
pub(super) use self::options::{Addressing, Limits, ServerSideEncryption, StoreOptions};
pub(super) use self::probe::{Preconditions, probe};
#[cfg(feature = "faults")]
pub use self::request_faults::{StoreFault, StoreFaults, StoreRequest};
pub use self::requests::Requests;
pub(super) use self::url::ObjectUrl;

use self::backend::Backend;
use self::failure::{Failure, Task};
use self::repeat::Patience;
use self::requests::{Counter, RequestKind};
use self::runtime::BackgroundRuntime;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::run::{Run, RunEnd};

/// An object store, or the part of it below a prefix. Keys are plain ASCII, and relative to the
/// prefix. Cheap to clone; clones share the connections and the count of requests.
#[derive(Clone)]
pub(super) struct Store {
    inner: Arc<Inner>,
    /// The end of the run that this clone works for.
    end: Option<RunEnd>,
}

struct Inner {
    runtime: BackgroundRuntime,
    backend: Backend,
    place: String,
    /// The beginning of each key in the store: nothing, or a name that ends with `/`.
    prefix: String,
    limits: Limits,
    storage_class: Option<String>,
    counter: Arc<Counter>,
    #[cfg(feature = "faults")]
    deletion_faults: faults::DeletionFaults,
    /// Makes a comparison and a write one step for the threads of this process, where the store
    /// cannot do it for all processes.
    replacing: Mutex<()>,
}

/// What [`Store::create`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// The object was not there, and is there now.
    New,
    /// An object of that name is there. It may also be this call's own: if an answer is lost, the
    /// request is sent again, and then finds what it wrote before. Callers that race for a name
    /// read the object, and look for what only they could have written.
    Exists,
}

/// What [`Store::replace`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// The object now has the new bytes.
    Done,
    /// The object is gone, or is not the expected version any more. It was left alone.
    Changed,
}

/// Which version of an object was read. It is compared by the store, and means nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    e_tag: Option<String>,
    generation: Option<String>,
}

/// What a store knows of an object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectInfo {
    /// Relative to the store's prefix.
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) version: Version,
    /// When the object was written, by the store's clock, in whole seconds or finer.
    pub(super) modified: Timestamp,
}

impl Store {
    /// Prepares the connection. It sends nothing yet.
    ///
    /// # Errors
    /// `Usage` if the settings do not fit together, `Denied` if a file with credentials cannot be
    /// read, `NotFound` if the directory of `object+file://` is not there.
    pub(super) fn connect(url: &ObjectUrl, options: &StoreOptions) -> Result<Self> {
        let counter = Arc::new(Counter::default());
        let backend = backend::connect(url, options, &counter)?;
        #[cfg(feature = "faults")]
        let backend = match request_faults::of_environment() {
            Some(faults) => backend.with_faults(faults),
            None => backend,
        };
        Self::new(
            backend,
            url.place(),
            url.prefix(),
            options.limits,
            options.storage_class.clone(),
            counter,
        )
    }

    fn new(
        backend: Backend,
        place: &str,
        prefix: &str,
        limits: Limits,
        storage_class: Option<String>,
        counter: Arc<Counter>,
    ) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                runtime: BackgroundRuntime::new()?,
                backend,
                place: place.to_owned(),
                prefix: prefix.to_owned(),
                limits,
                storage_class,
                counter,
                #[cfg(feature = "faults")]
                deletion_faults: faults::DeletionFaults::default(),
                replacing: Mutex::new(()),
            }),
            end: None,
        })
    }

    /// The same store, for one run. Requests and waits end when the run is asked to end.
    pub(super) fn for_run(&self, run: &Run) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            end: Some(run.end()),
        }
    }

    /// The URL that the operator typed.
    pub(super) fn place(&self) -> String {
        self.inner.place.clone()
    }

    /// The requests so far, of this store and its clones.
    pub(super) fn requests(&self) -> Requests {
        self.inner.counter.requests()
    }

    /// How far the store's clock is ahead of this machine's, in seconds, by its last answer. `None`
    /// if it has not told its time.
    pub(super) fn clock_difference(&self) -> Option<i64> {
        self.inner.counter.clock_difference()
    }

    /// The time by the store's clock, as far as it is known: in it, the store says when objects were
    /// written.
    pub(super) fn now(&self) -> Timestamp {
        let now = clock::now();
        let ahead = SignedDuration::from_secs(self.clock_difference().unwrap_or_default());
        now.checked_add(ahead).unwrap_or(now)
    }

    /// Lets deletions below a prefix fail, after so many that go well. `None` ends that.
    #[cfg(feature = "faults")]
    pub(super) fn fail_deletions(&self, kind: Option<Kind>, after: usize, prefix: &'static str) {
        self.inner.deletion_faults.set(kind, after, prefix);
    }

    /// Reads an object. Returns `None` if there is no such object.
    ///
    /// # Errors
    /// `StoredCorrupt` if it has more than `limit` bytes. `Denied`, `NotFound` (the bucket),
    /// `Transient` and `Unreachable` as for every request.
    pub(super) fn get(&self, key: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let found = self.get_versioned(key, limit)?;
        Ok(found.map(|(bytes, _)| bytes))
    }

    /// Reads an object, and which version it is.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub(super) fn get_versioned(
        &self,
        key: &str,
        limit: u64,
    ) -> Result<Option<(Vec<u8>, Version)>> {
        let found = self.try_get(key, limit);
        self.or_missing(found, Task::Read, key)
    }

    fn try_get(&self, key: &str, limit: u64) -> Result<(Vec<u8>, Version), Failure> {
        let location = self.location(key);
        let read = async || {
            let found = self
                .objects()
                .get_opts(&location, GetOptions::default())
                .await?;
            if found.meta.size > limit {
                return Ok(None);
            }

            let version = Version::of(&found.meta);
            let length = usize::try_from(found.meta.size).unwrap_or_default();
            let mut bytes = Vec::with_capacity(length);
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.next().await {
                bytes.extend_from_slice(&piece?);
            }

            self.inner.counter.received(bytes.len());
            if bytes.len() != length {
                return Err(failure::cut_off());
            }
            Ok(Some((bytes, version)))
        };

        match self.repeat(RequestKind::Get, read)? {
            Some(found) => Ok(found),
            None => Err(Failure::too_large(limit)),
        }
    }

    /// Asks for size, version and time of an object. Returns `None` if there is no such object.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub(super) fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let location = self.location(key);
        let found = self.repeat(RequestKind::Get, async || {
            self.objects().head(&location).await
        });
        let Some(meta) = self.or_missing(found, Task::Read, key)? else {
            return Ok(None);
        };

        Ok(self.info(&meta))
    }

    /// Writes an object, if none of that name is there.
    ///
    /// # Errors
    /// `Denied`, `NotFound`, `Transient` and `Unreachable` as for every request.
    pub(super) fn create(&self, key: &str, bytes: Bytes) -> Result<Created> {
        self.try_create(key, bytes, Attributes::new())
            .map_err(|failure| self.error(failure, Task::Write, key))
    }

    /// Writes an object in the storage class that the operator chose, if none of that name is
    /// there. Only for objects that are kept long and read seldom.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn create_in_class(&self, key: &str, bytes: Bytes) -> Result<Created> {
        let mut attributes = Attributes::new();
        if let Some(class) = &self.inner.storage_class
            && self.inner.backend.has_classes()
        {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }

        self.try_create(key, bytes, attributes)
            .map_err(|failure| self.error(failure, Task::Write, key))
    }

    fn try_create(
        &self,
        key: &str,
        bytes: Bytes,
        attributes: Attributes,
    ) -> Result<Created, Failure> {
        let options = PutOptions {
            mode: PutMode::Create,
            attributes,
            ..PutOptions::default()
        };

        match self.try_put(key, bytes, &options) {
            Ok(()) => Ok(Created::New),
            Err(failure) if failure.says_exists() => Ok(Created::Exists),
            Err(failure) => Err(failure),
        }
    }

    /// Writes an object. It replaces one of that name.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.try_put(key, bytes, &PutOptions::default())
            .map_err(|failure| self.error(failure, Task::Write, key))
    }

    fn try_put(&self, key: &str, bytes: Bytes, options: &PutOptions) -> Result<(), Failure> {
        let location = self.location(key);
        let length = bytes.len();
        let payload = PutPayload::from_bytes(bytes);

        self.repeat(RequestKind::Put, async || {
            self.inner.counter.sends(length);
            self.objects()
                .put_opts(&location, payload.clone(), options.clone())
                .await
        })?;
        Ok(())
    }

    /// Writes an object if it still is the version that was read. If an answer is lost, or the
    /// version is another one, this reads the object again: an object with these very bytes counts
    /// as done.
    ///
    /// A directory (`object+file://`) cannot compare and write in one step. There another process
    /// can write between the comparison and the replacement.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn replace(&self, key: &str, bytes: Bytes, expected: &Version) -> Result<Replaced> {
        self.try_replace(key, bytes, expected)
            .map_err(|failure| self.error(failure, Task::Write, key))
    }

    fn try_replace(
        &self,
        key: &str,
        bytes: Bytes,
        expected: &Version,
    ) -> Result<Replaced, Failure> {
        if !self.inner.backend.compares_versions() {
            return self.compare_and_put(key, bytes, expected);
        }

        let options = PutOptions::from(PutMode::Update(UpdateVersion {
            e_tag: expected.e_tag.clone(),
            version: expected.generation.clone(),
        }));
        let failure = match self.try_put(key, bytes.clone(), &options) {
            Ok(()) => return Ok(Replaced::Done),
            Err(failure) => failure,
        };
        if !failure.says_changed() {
            return Err(failure);
        }

        // An answer may have been lost, so the other version can be the one that this call wrote.
        let limit = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match self.try_get(key, limit) {
            Ok((found, _)) if found == bytes => Ok(Replaced::Done),
            Ok(_) => Ok(Replaced::Changed),
            Err(failure) if failure.says_missing() || failure.says_too_large() => {
                Ok(Replaced::Changed)
            }
            Err(failure) => Err(failure),
        }
    }

    fn compare_and_put(
        &self,
        key: &str,
        bytes: Bytes,
        expected: &Version,
    ) -> Result<Replaced, Failure> {
        let _one_at_a_time = self
            .inner
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);

        let location = self.location(key);
        match self.repeat(RequestKind::Get, async || {
            self.objects().head(&location).await
        }) {
            Ok(meta) if Version::of(&meta) == *expected => {}
            Ok(_) => return Ok(Replaced::Changed),
            Err(failure) if failure.says_missing() => return Ok(Replaced::Changed),
            Err(failure) => return Err(failure),
        }

        self.try_put(key, bytes, &PutOptions::default())?;
        Ok(Replaced::Done)
    }

    /// Deletes an object. It is no error if there is none.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn delete(&self, key: &str) -> Result<()> {
        #[cfg(feature = "faults")]
        self.inner.deletion_faults.check(key)?;

        let location = self.location(key);
        let deleted = self.repeat(RequestKind::Delete, async || {
            self.objects().delete(&location).await
        });

        self.or_missing(deleted, Task::Delete, key)?;
        Ok(())
    }

    /// Every object below a prefix, sorted by key. The prefix is empty or names whole parts of a
    /// key, such as `data/ab`: it also stands for `data/ab/`.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.list_after(prefix, "")
    }

    /// Every object below a prefix whose key comes after `key`, sorted by key.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn list_after(&self, prefix: &str, key: &str) -> Result<Vec<ObjectInfo>> {
        let mut found: Vec<ObjectInfo> = Vec::new();
        self.visit_after(prefix, key, |info| found.push(info))?;

        found.sort_by(|one, other| one.key.cmp(&other.key));
        found.dedup_by(|one, other| one.key == other.key);
        Ok(found)
    }

    /// Shows every object below a prefix, as [`Self::list`] lists them, and keeps none. They come in
    /// any order, and may come twice.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(super) fn visit(&self, prefix: &str, see: impl FnMut(ObjectInfo)) -> Result<()> {
        self.visit_after(prefix, "", see)
    }

    fn visit_after(&self, prefix: &str, key: &str, mut see: impl FnMut(ObjectInfo)) -> Result<()> {
        let below = self.location(prefix);
        let mut count = 0;
        let mut after = (!key.is_empty()).then(|| self.location(key));

        // A listing that breaks off is taken up after the last key that it told.
        let listed = self.repeat(RequestKind::List, async || {
            let mut objects = match &after {
                Some(after) => self.objects().list_with_offset(Some(&below), after),
                None => self.objects().list(Some(&below)),
            };
            while let Some(object) = objects.next().await {
                let object = object?;
                // Not every store heeds where the list shall begin.
                if let Some(info) = self.info(&object)
                    && info.key.as_str() > key
                {
                    count += 1;
                    see(info);
                }
                if self.inner.backend.lists_in_order() {
                    after = Some(object.location);
                }
            }
            Ok(())
        });
        listed.map_err(|failure| self.error(failure, Task::List, prefix))?;
        self.inner.counter.listed(count);
        Ok(())
    }

    /// Sends a request until it is answered, or until it is not worth another attempt.
    fn repeat<T>(
        &self,
        kind: RequestKind,
        attempt: impl AsyncFnMut() -> object_store::Result<T>,
    ) -> Result<T, Failure> {
        let patience = Patience::new(self.inner.limits, &self.inner.counter);
        let work = repeat::until_answered(kind, patience, attempt);
        let Some(end) = &self.end else {
            return self.inner.runtime.handle.block_on(work);
        };

        self.inner.runtime.handle.block_on(async {
            tokio::select! {
                () = end.cancelled().cancelled() => Err(Failure::interrupted()),
                answer = work => answer,
            }
        })
    }

    fn objects(&self) -> &dyn ObjectStore {
        self.inner.backend.objects()
    }

    fn location(&self, key: &str) -> Location {
        // Keys are plain, so this encodes nothing.
        Location::from(format!("{}{key}", self.inner.prefix))
    }

    /// What is told of an object; `None` if it is not below the prefix.
    fn info(&self, meta: &ObjectMeta) -> Option<ObjectInfo> {
        let key = meta.location.as_ref().strip_prefix(&self.inner.prefix)?;
        let modified = Timestamp::from_millisecond(meta.last_modified.timestamp_millis());

        Some(ObjectInfo {
            key: key.to_owned(),
            size: meta.size,
            version: Version::of(meta),
            modified: modified.unwrap_or_default(),
        })
    }

    fn or_missing<T>(
        &self,
        result: Result<T, Failure>,
        task: Task,
        key: &str,
    ) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.says_missing() => Ok(None),
            Err(failure) => Err(self.error(failure, task, key)),
        }
    }

    fn error(&self, failure: Failure, task: Task, key: &str) -> Error {
        if failure.says_interrupted()
            && let Some(Err(interrupted)) = self.end.as_ref().map(RunEnd::check)
        {
            return interrupted;
        }

        let place = self.inner.place.trim_end_matches('/');
        let place = if key.is_empty() {
            place.to_owned()
        } else {
            format!("{place}/{key}")
        };
        failure.into_error(task, self.inner.backend.provider(), place)
    }
}

impl Version {
    /// The version as a text that a later run compares.
    pub(super) fn to_text(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{} {}", part(&self.e_tag), part(&self.generation))
    }

    fn of(meta: &ObjectMeta) -> Self {
        Self {
            e_tag: meta.e_tag.as_deref().map(quoted),
            generation: meta.version.clone(),
        }
    }
}

/// An entity tag as requests carry it. Azure lists tags without their quotes.
fn quoted(tag: &str) -> String {
    if tag.starts_with("0x") {
        format!("\"{tag}\"")
    } else {
        tag.to_owned()
    }
}
