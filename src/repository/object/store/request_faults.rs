//! Faults for tests: requests that fail, lose their answer, or are the last ones of the process.
//! They happen between the client and the store, so everything above them is the real thing.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A request that a store is about to get.
#[derive(Debug, Clone, Copy)]
pub struct StoreRequest<'a> {
    /// The first request has number 1. Repeated requests count.
    pub number: u64,
    /// `put`, `get`, `list` or `delete`.
    pub kind: &'static str,
    /// The key, or the prefix of a list.
    pub key: &'a str,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// It fails, and is not worth another attempt: as if the process ended before it.
    Fail,
    /// The store does it, and then it fails like [`Self::Fail`].
    FailAfter,
    /// The store cannot serve now. The request is repeated.
    Busy,
    /// The store does it, and the answer is lost. The request is repeated.
    LoseAnswer,
    /// The store says that it has done it, and has not.
    Forget,
    /// The store does it twice, and answers to the second time.
    Twice,
    /// The store does not heed the precondition of a write.
    IgnoreCondition,
    /// A list lacks the object that was written last.
    HideNewest,
    /// The process ends before it.
    Abort,
    /// The process ends after it.
    AbortAfter,
}

/// Says what happens to each request; `None` is the usual. Many threads ask at once. It must not
/// call the store.
pub type StoreFaults = Arc<dyn Fn(&StoreRequest<'_>) -> Option<StoreFault> + Send + Sync>;

/// A store with faults.
#[derive(Clone)]
pub(super) struct FaultyObjects {
    objects: Arc<dyn ObjectStore>,
    faults: StoreFaults,
    number: Arc<AtomicU64>,
}

impl FaultyObjects {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, faults: StoreFaults) -> Self {
        Self {
            objects,
            faults,
            number: Arc::default(),
        }
    }

    fn fault(&self, kind: &'static str, key: &str) -> Option<StoreFault> {
        let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        (self.faults)(&StoreRequest { number, kind, key })
    }
}

/// The faults that `KBACKUP_FAULT=kind:key part:n:effect` asks for. The kind is `put`, `get`, `list`,
/// `delete`, or `request` for all of them. The effect on the n-th such request is `abort`,
/// `abort-after`, `lose` or `busy`. Other kinds are operations of the file system.
pub(super) fn of_environment() -> Option<StoreFaults> {
    let text = std::env::var("KBACKUP_FAULT").ok()?;
    let mut parts = text.splitn(4, ':').map(str::to_owned);
    let (kind, part) = (parts.next()?, parts.next()?);
    let wanted: u64 = parts.next()?.parse().ok()?;
    let effect = match parts.next()?.as_str() {
        "abort" => StoreFault::Abort,
        "abort-after" => StoreFault::AbortAfter,
        "lose" => StoreFault::LoseAnswer,
        "busy" => StoreFault::Busy,
        _ => return None,
    };
    if !["put", "get", "list", "delete", "request"].contains(&kind.as_str()) {
        return None;
    }

    let count = AtomicU64::new(0);
    Some(Arc::new(move |request| {
        let is_kind = kind == "request" || kind == request.kind;
        if !is_kind || !request.key.contains(&part) {
            return None;
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        (number == wanted).then_some(effect)
    }))
}

fn before(fault: Option<StoreFault>) -> Result<()> {
    match fault {
        Some(StoreFault::Fail) => Err(failed()),
        Some(StoreFault::Busy) => Err(super::failure::cut_off()),
        Some(StoreFault::Abort) => std::process::abort(),
        _ => Ok(()),
    }
}

fn after(fault: Option<StoreFault>) -> Result<()> {
    match fault {
        Some(StoreFault::FailAfter) => Err(failed()),
        Some(StoreFault::LoseAnswer) => Err(super::failure::cut_off()),
        Some(StoreFault::AbortAfter) => std::process::abort(),
        _ => Ok(()),
    }
}

/// An error that no other attempt can help.
fn failed() -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty store",
        source: Box::new(io::Error::other("injected")),
    }
}

impl fmt::Debug for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyObjects({:?})", self.objects)
    }
}

impl fmt::Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.objects)
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.fault("put", location.as_ref());
        before(fault)?;
        match fault {
            Some(StoreFault::Forget) => {
                return Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions: object_store::Extensions::default(),
                });
            }
            Some(StoreFault::IgnoreCondition) => options.mode = PutMode::Overwrite,
            Some(StoreFault::Twice) => {
                let (payload, options) = (payload.clone(), options.clone());
                // The store answers to the second time.
                drop(self.objects.put_opts(location, payload, options).await);
            }
            _ => {}
        }

        let put = self.objects.put_opts(location, payload, options).await;
        after(fault)?;
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        let fault = self.fault("get", location.as_ref());
        before(fault)?;
        let found = self.objects.get_opts(location, options).await;
        after(fault)?;
        found
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Location>>,
    ) -> BoxStream<'static, Result<Location>> {
        let this = self.clone();
        let deleted = locations.then(move |location| {
            let this = this.clone();
            async move {
                let location = location?;
                let fault = this.fault("delete", location.as_ref());
                before(fault)?;
                let mut deleted = Ok(());
                if fault != Some(StoreFault::Forget) {
                    deleted = this.objects.delete(&location).await;
                }
                after(fault)?;
                deleted.map(|()| location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        let key = prefix.map(Location::as_ref).unwrap_or_default();
        listed(self.fault("list", key), self.objects.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Location>,
        offset: &Location,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let key = prefix.map(Location::as_ref).unwrap_or_default();
        let objects = self.objects.list_with_offset(prefix, offset);
        listed(self.fault("list", key), objects)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// A list with a fault. A lost answer is cut off after its first object.
fn listed(
    fault: Option<StoreFault>,
    objects: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    if let Err(error) = before(fault) {
        return stream::once(async { Err(error) }).boxed();
    }

    let objects = match fault {
        Some(StoreFault::LoseAnswer) => objects.take(1).boxed(),
        Some(StoreFault::HideNewest) => stream::once(without_newest(objects))
            .flat_map(stream::iter)
            .boxed(),
        _ => objects,
    };
    let end = stream::once(async move { after(fault) });
    let end = end.filter_map(async |end| end.err().map(Err));
    objects.chain(end).boxed()
}

async fn without_newest(
    objects: BoxStream<'static, Result<ObjectMeta>>,
) -> Vec<Result<ObjectMeta>> {
    let mut objects: Vec<Result<ObjectMeta>> = objects.collect().await;
    let age = |object: &Result<ObjectMeta>| {
        let object = object.as_ref().ok()?;
        Some((object.last_modified, object.location.clone()))
    };
    let newest = objects.iter().map(age).max().flatten();
    objects.retain(|object| newest.is_none() || age(object) != newest);
    objects
}
