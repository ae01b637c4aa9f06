//! What went wrong with a request, and what to tell the operator.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;
use object_store::client::HttpError;

use super::answer::Answer;
use super::http::Exchange;
use super::provider::Provider;
use super::requests::RequestKind;
use crate::clock;
use crate::error::{Error, Kind, in_words};

/// Stores refuse requests of clocks that differ by more than a quarter of an hour.
const CLOCK_TOLERANCE: u64 = 15 * 60;

/// What kbackup was about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Read,
    Write,
    List,
    Delete,
}

/// A request that did not do what it should.
#[derive(Debug)]
pub(super) struct Failure {
    reason: Reason,
    /// What the store or the system said, in one line.
    cause: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    /// There is no such object.
    Missing,
    /// There is no such bucket or container.
    NoBucket,
    /// An object of that name is there.
    Exists,
    /// The object is not the expected version.
    Changed,
    /// The object is larger than any that kbackup writes.
    TooLarge,
    /// The object lies in an archive, and cannot be read at once.
    Archived,
    /// Another request for the same object was faster.
    Conflict,
    /// The store cannot serve now.
    Busy(StatusCode, Option<Duration>),
    /// There was no answer, or only a part of it.
    Silent,
    /// The store's certificate is not trusted.
    NotTrusted,
    /// The bucket is in another region, this one if the store tells.
    OtherRegion(Option<String>),
    /// The clocks differ by this many seconds.
    Clock(u64),
    /// The environment and the machine gave no credentials.
    NoCredentials,
    /// The store does not know these credentials.
    BadCredentials,
    /// The store knows who asks, and does not allow it.
    NotAllowed,
    /// The store does not know this kind of request.
    NotSupported,
    /// The disk is full.
    Full,
    /// The run was asked to end.
    Interrupted,
    Other,
}

impl Failure {
    /// Judges the error of one attempt, with what was heard meanwhile.
    pub(super) fn of(error: &object_store::Error, kind: RequestKind, heard: Exchange) -> Self {
        if heard.asked_for_credentials {
            return Self {
                reason: Reason::NoCredentials,
                cause: Some(innermost(error)),
            };
        }

        match heard.answer {
            Some(answer) => Self {
                reason: reason_of(&answer, error, kind),
                cause: Some(answer.in_words()),
            },
            None => Self {
                reason: reason_without_answer(error),
                cause: Some(innermost(error)),
            },
        }
    }

    pub(super) fn too_large(limit: u64) -> Self {
        Self {
            reason: Reason::TooLarge,
            cause: Some(format!("it has more than {limit} bytes")),
        }
    }

    pub(super) fn interrupted() -> Self {
        Self {
            reason: Reason::Interrupted,
            cause: None,
        }
    }

    pub(super) fn says_interrupted(&self) -> bool {
        self.reason == Reason::Interrupted
    }

    pub(super) fn says_missing(&self) -> bool {
        self.reason == Reason::Missing
    }

    pub(super) fn says_exists(&self) -> bool {
        self.reason == Reason::Exists
    }

    pub(super) fn says_changed(&self) -> bool {
        self.reason == Reason::Changed
    }

    pub(super) fn says_too_large(&self) -> bool {
        self.reason == Reason::TooLarge
    }

    pub(super) fn says_not_supported(&self) -> bool {
        self.reason == Reason::NotSupported
    }

    /// Whether the same request may succeed in a moment.
    pub(super) fn is_worth_another_attempt(&self) -> bool {
        matches!(
            self.reason,
            Reason::Conflict | Reason::Busy(..) | Reason::Silent
        )
    }

    /// How long the store wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            Reason::Busy(_, wanted) => wanted,
            _ => None,
        }
    }

    /// The error for the user.
    pub(super) fn into_error(self, task: Task, provider: Provider, place: String) -> Error {
        let (kind, what) = self.sentence(task, provider);
        let mut error = Error::new(kind, what).on(place);
        if let Some(cause) = self.cause {
            error = error.because(cause);
        }
        match hint(&self.reason, task, provider) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn sentence(&self, task: Task, provider: Provider) -> (Kind, String) {
        let plain = |kind, what: &str| (kind, what.to_owned());
        match &self.reason {
            Reason::Missing => plain(Kind::NotFound, "there is no such object"),
            Reason::NoBucket if provider == Provider::Azure => {
                plain(Kind::NotFound, "there is no such container")
            }
            Reason::NoBucket => plain(Kind::NotFound, "there is no such bucket"),
            Reason::TooLarge => plain(Kind::StoredCorrupt, "the object is larger than it can be"),
            Reason::Archived => plain(Kind::Refused, "the object is in an archive"),
            Reason::Conflict => plain(
                Kind::Transient,
                "the object store has another request for this object",
            ),
            Reason::Busy(status, _) => (
                Kind::Transient,
                format!("the object store is not ready: it keeps answering {status}"),
            ),
            Reason::Silent => plain(Kind::Transient, "the object store cannot be reached"),
            Reason::NotTrusted => plain(
                Kind::Unreachable,
                "the certificate of the object store is not trusted",
            ),
            Reason::OtherRegion(_) => plain(Kind::Usage, "the bucket is in another region"),
            Reason::Clock(seconds) => (
                Kind::Denied,
                format!(
                    "this machine's clock and the object store's differ by {}",
                    clock::length(Duration::from_secs(*seconds))
                ),
            ),
            Reason::NoCredentials => plain(
                Kind::Denied,
                "there are no credentials for the object store",
            ),
            Reason::BadCredentials => plain(
                Kind::Denied,
                "the object store does not accept these credentials",
            ),
            Reason::NotAllowed => (Kind::Denied, format!("not allowed to {}", task.in_words())),
            Reason::NotSupported => plain(
                Kind::Refused,
                "the object store cannot do what kbackup needs",
            ),
            Reason::Exists
            | Reason::Changed
            | Reason::Full
            | Reason::Interrupted
            | Reason::Other => (Kind::Failed, format!("cannot {}", task.in_words())),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.as_deref().unwrap_or("no cause is known"))
    }
}

impl Task {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Read => "read from the object store",
            Self::Write => "write to the object store",
            Self::List => "list the object store",
            Self::Delete => "delete from the object store",
        }
    }
}

/// The error for a body that ends too early, which is worth another attempt.
pub(super) fn cut_off() -> object_store::Error {
    object_store::Error::Generic {
        store: "object store",
        source: Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

fn reason_of(answer: &Answer, error: &object_store::Error, kind: RequestKind) -> Reason {
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => reason_of_denial(answer),
        StatusCode::NOT_FOUND => reason_of_absence(answer, kind),
        StatusCode::CONFLICT => reason_of_conflict(answer),
        StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => match error {
            object_store::Error::AlreadyExists { .. } => Reason::Exists,
            _ => Reason::Changed,
        },
        StatusCode::BAD_REQUEST => reason_of_bad_request(answer),
        StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => Reason::NotSupported,
        StatusCode::INSUFFICIENT_STORAGE => Reason::Full,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => busy(answer),
        status if status.is_server_error() => busy(answer),
        status if status.is_redirection() => Reason::OtherRegion(answer.region.clone()),
        _ => Reason::Other,
    }
}

fn busy(answer: &Answer) -> Reason {
    Reason::Busy(answer.status, answer.retry_after)
}

fn reason_of_denial(answer: &Answer) -> Reason {
    let difference = answer.clock_difference.unwrap_or_default().unsigned_abs();
    if difference >= CLOCK_TOLERANCE || answer.code() == "RequestTimeTooSkewed" {
        return Reason::Clock(difference);
    }

    match answer.code() {
        "InvalidObjectState" => Reason::Archived,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "AuthenticationFailed"
        | "InvalidSecurity" => Reason::BadCredentials,
        _ if answer.status == StatusCode::UNAUTHORIZED => Reason::BadCredentials,
        "AuthorizationFailure" if answer.says("failed to authenticate") => Reason::BadCredentials,
        _ => Reason::NotAllowed,
    }
}

fn reason_of_absence(answer: &Answer, kind: RequestKind) -> Reason {
    if matches!(answer.code(), "NoSuchBucket" | "ContainerNotFound") {
        return Reason::NoBucket;
    }

    match (answer.code(), kind) {
        // Only an object that shall be replaced can be missing for a writer.
        ("NoSuchKey" | "BlobNotFound", RequestKind::Put) => Reason::Changed,
        ("NoSuchBucket" | "ContainerNotFound", _) | (_, RequestKind::Put | RequestKind::List) => {
            Reason::NoBucket
        }
        (_, RequestKind::Get | RequestKind::Delete) => Reason::Missing,
    }
}

/// A conflict that kbackup does not know must not count as "the object is there".
fn reason_of_conflict(answer: &Answer) -> Reason {
    match answer.code() {
        "BlobAlreadyExists" => Reason::Exists,
        "ConditionalRequestConflict" | "OperationAborted" => Reason::Conflict,
        "BlobArchived" | "BlobBeingRehydrated" => Reason::Archived,
        _ => Reason::Other,
    }
}

fn reason_of_bad_request(answer: &Answer) -> Reason {
    match answer.code() {
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => Reason::BadCredentials,
        "AuthorizationHeaderMalformed" if answer.region.is_some() => {
            Reason::OtherRegion(answer.region.clone())
        }
        // These bytes were damaged on the way.
        "BadDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch"
        | "Md5Mismatch"
        | "IncompleteBody"
        | "RequestTimeout" => busy(answer),
        "NotImplemented" => Reason::NotSupported,
        _ => Reason::Other,
    }
}

fn reason_without_answer(error: &object_store::Error) -> Reason {
    match error {
        object_store::Error::NotFound { .. } => return Reason::Missing,
        object_store::Error::AlreadyExists { .. } => return Reason::Exists,
        object_store::Error::Precondition { .. } => return Reason::Changed,
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            return Reason::NotSupported;
        }
        _ => {}
    }

    let mut is_http = false;
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        is_http = is_http || cause.is::<HttpError>();
        if is_http && cause.to_string().contains("certificate") {
            return Reason::NotTrusted;
        }
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && !is_http
        {
            return reason_of_system(error);
        }
        next = cause.source();
    }

    if is_http {
        Reason::Silent
    } else {
        Reason::Other
    }
}

fn reason_of_system(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Reason::NotAllowed,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::Full,
        io::ErrorKind::UnexpectedEof => Reason::Silent,
        _ => Reason::Other,
    }
}

/// What lies at the bottom of the library's error, in one line. The layers above repeat it, and
/// name the URL once more.
pub(super) fn innermost(error: &object_store::Error) -> String {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<HttpError>() {
            return match error.source() {
                Some(cause) => in_words(cause),
                None => error.to_string(),
            };
        }
        last = cause.to_string();
        next = cause.source();
    }
    last
}

fn hint(reason: &Reason, task: Task, provider: Provider) -> Option<String> {
    let text = match reason {
        Reason::NoBucket => "make it, or check its name and the region: kbackup makes none",
        Reason::Archived => {
            "bring it back from the archive with the provider's tools; keep lifecycle rules that \
             archive off the repository"
        }
        Reason::Busy(..) | Reason::Conflict => "try again later",
        Reason::Silent => {
            "check the address of the store (`endpoint=…` in the URL), the region and the network"
        }
        Reason::NotTrusted => {
            "name the file of the authority that signed it in the URL, by `ca-file=/PATH`; use an \
             address whose host name is in the certificate"
        }
        Reason::OtherRegion(Some(region)) => {
            return Some(format!("add `region={region}` to the URL"));
        }
        Reason::OtherRegion(None) => "name the bucket's own region in the URL, by `region=…`",
        Reason::Clock(_) => {
            "set this machine's clock: `timedatectl` shows whether it is kept right"
        }
        Reason::NoCredentials => where_credentials_come_from(provider),
        Reason::BadCredentials => {
            "check that the key is complete, not expired, and of this store; environment variables \
             count before files"
        }
        Reason::NotAllowed => needed_permission(task, provider),
        Reason::Full => "free space there; no listed backup was harmed",
        _ => return None,
    };
    Some(text.to_owned())
}

const fn where_credentials_come_from(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => {
            "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, name a profile with \
             `AWS_PROFILE`, or give this machine a role"
        }
        Provider::Azure => {
            "set `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or give this machine an identity"
        }
        _ => "set `GOOGLE_APPLICATION_CREDENTIALS`, or give this machine a service account",
    }
}

const fn needed_permission(task: Task, provider: Provider) -> &'static str {
    match (provider, task) {
        (Provider::S3, Task::Read) => {
            "the policy must allow `s3:GetObject` on the objects, and `s3:ListBucket` on the \
             bucket: without it, S3 answers so for objects that do not exist"
        }
        (Provider::S3, Task::Write) => "the policy must allow `s3:PutObject` on the objects",
        (Provider::S3, Task::List) => "the policy must allow `s3:ListBucket` on the bucket",
        (Provider::S3, Task::Delete) => {
            "the policy must allow `s3:DeleteObject` on the objects, and the object must not be \
             locked"
        }
        (Provider::Azure, _) => {
            "give this identity the role \"Storage Blob Data Contributor\" on the container; a SAS \
             token needs the permissions `rcwdl`"
        }
        (Provider::Google, _) => "give this account the role \"Storage Object User\" on the bucket",
        _ => "run kbackup as the user that owns the directory, or as root",
    }
}
