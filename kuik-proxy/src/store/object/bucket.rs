//! Bucket access for the rest of the backend: keys below a prefix, and errors by remedy.
//!
//! Keys are plain text with `/` between their parts; all their characters are ones that no provider or library
//! encodes, so that Docker's registry finds them under the same names. A provider's error message is included in
//! errors without the quoted request, which contains keys and signatures.

use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use kuik_core::content::{BlobLocation, SourceError, SourceErrorKind};
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, path::Path, signer::Signer,
};

/// Maximum length of a provider's message in an error, in characters.
const MAX_REASON: usize = 500;

/// Code in the body of S3's 404 for a missing bucket; for a missing key it is `NoSuchKey`.
const NO_BUCKET: &str = "<Code>NoSuchBucket</Code>";

/// A bucket, or the part of it below the prefix.
#[derive(Clone)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    name: String,
    prefix: String,
}

/// An object, as returned by a list or a HEAD request.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// Error from the provider of a bucket.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

impl Bucket {
    /// Creates a bucket for the part of `store` below `prefix`; `name` is for errors.
    pub(super) fn new(store: Arc<dyn ObjectStore>, name: String, prefix: String) -> Self {
        Self { store, signer: None, name, prefix }
    }

    /// Adds a signer for object URLs.
    pub(super) fn signed_by(self, signer: Arc<dyn Signer>) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// Returns a URL of an object of `size` bytes for the next `valid_for`; `None` without a signer. Does not check
    /// that the object exists.
    pub(super) async fn location(
        &self,
        attempted: &str,
        key: &str,
        size: u64,
        valid_for: Duration,
    ) -> Result<Option<BlobLocation>, SourceError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let signed = signer.signed_url(http::Method::GET, &self.path(key)?, valid_for).await;
        let signed = signed.map_err(|error| self.failed(attempted, &error))?;
        let location = BlobLocation::new(signed, size);
        location.map(Some).map_err(|error| {
            let attempted = format!("{attempted} in {}", self.name);
            SourceError::caused_by(SourceErrorKind::Storage, attempted, error)
        })
    }

    /// Returns whether it has a signer.
    pub(super) fn signs(&self) -> bool {
        self.signer.is_some()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns a whole object of at most `limit` bytes; `None` if it is absent or larger.
    pub(super) async fn read(
        &self,
        attempted: &str,
        key: &str,
        limit: u64,
    ) -> Result<Option<Bytes>, SourceError> {
        let found = self.get(attempted, key, None).await;
        let found = match found {
            Err(error) if error.is_not_found() => return Ok(None),
            found => found?,
        };
        if found.meta.size > limit {
            return Ok(None);
        }
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|error| self.failed(attempted, &error))?;
        if bytes.len() as u64 != size {
            let attempted = format!("{attempted}: received {} of {size} bytes", bytes.len());
            return Err(SourceError::new(SourceErrorKind::Storage, attempted));
        }
        Ok(Some(bytes))
    }

    /// Returns an object or a range of it as a stream.
    pub(super) async fn get(
        &self,
        attempted: &str,
        key: &str,
        range: Option<GetRange>,
    ) -> Result<GetResult, SourceError> {
        let options = GetOptions { range, ..GetOptions::default() };
        let got = self.store.get_opts(&self.path(key)?, options).await;
        got.map_err(|error| self.failed(attempted, &error))
    }

    /// Returns a range of an object.
    pub(super) async fn get_range(
        &self,
        attempted: &str,
        key: &str,
        range: Range<u64>,
    ) -> Result<Bytes, SourceError> {
        let got = self.store.get_range(&self.path(key)?, range).await;
        got.map_err(|error| self.failed(attempted, &error))
    }

    /// Returns the attributes of an object; `None` if it is absent.
    pub(super) async fn head(&self, attempted: &str, key: &str) -> Result<Option<Found>, SourceError> {
        match self.store.head(&self.path(key)?).await {
            Ok(meta) => {
                let (size, modified) = (meta.size, meta.last_modified.into());
                Ok(Some(Found { key: key.to_owned(), size, modified }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(attempted, &error)),
        }
    }

    /// Puts an object, replacing an existing one.
    pub(super) async fn put(
        &self,
        attempted: &str,
        key: &str,
        payload: impl Into<PutPayload>,
    ) -> Result<(), SourceError> {
        let put = self.store.put(&self.path(key)?, payload.into()).await;
        put.map(drop).map_err(|error| self.refused(attempted, &error))
    }

    /// Puts an object if the key is free; returns whether it was.
    pub(super) async fn create(
        &self,
        attempted: &str,
        key: &str,
        payload: impl Into<PutPayload>,
    ) -> Result<bool, SourceError> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.path(key)?, payload.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(self.refused(attempted, &error)),
        }
    }

    /// Begins a multipart upload.
    pub(super) async fn multipart(
        &self,
        attempted: &str,
        key: &str,
    ) -> Result<Box<dyn object_store::MultipartUpload>, SourceError> {
        let begun = self.store.put_multipart(&self.path(key)?).await;
        begun.map_err(|error| self.refused(attempted, &error))
    }

    /// Copies an object within the provider.
    pub(super) async fn copy(&self, attempted: &str, from: &str, to: &str) -> Result<(), SourceError> {
        let copied = self.store.copy_opts(&self.path(from)?, &self.path(to)?, CopyOptions::default()).await;
        copied.map_err(|error| self.failed(attempted, &error))
    }

    /// Removes an object; one that is absent counts as removed.
    pub(super) async fn delete(&self, attempted: &str, key: &str) -> Result<(), SourceError> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.refused(attempted, &error)),
        }
    }

    /// Removes every object below `prefix`, in batches if the provider supports that.
    pub(super) async fn delete_below(&self, attempted: &str, prefix: &str) -> Result<(), SourceError> {
        let listed = self.store.list(Some(&self.path(prefix)?));
        let mut deleted = self.store.delete_stream(listed.map_ok(|meta| meta.location).boxed());
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.refused(attempted, &error)),
            }
        }
        Ok(())
    }

    /// Returns the objects below `prefix` in the order of their keys, only those with keys after `after`, with one
    /// page in memory at a time.
    pub(super) fn list(
        &self,
        attempted: String,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Found, SourceError>> {
        let paths =
            self.path(prefix).and_then(|path| Ok((path, after.map(|after| self.path(after)).transpose()?)));
        let listed = match paths {
            Err(error) => return stream::once(std::future::ready(Err(error))).boxed(),
            Ok((prefix, None)) => self.store.list(Some(&prefix)),
            Ok((prefix, Some(after))) => self.store.list_with_offset(Some(&prefix), &after),
        };
        let bucket = self.clone();
        listed
            .map(move |found| {
                let meta = found.map_err(|error| bucket.failed(&attempted, &error))?;
                let key = bucket.key(&meta.location).to_owned();
                Ok(Found { key, size: meta.size, modified: meta.last_modified.into() })
            })
            .boxed()
    }

    /// Converts an error of a read request.
    pub(super) fn failed(&self, attempted: &str, error: &object_store::Error) -> SourceError {
        let attempted = format!("{attempted} in {}", self.name);
        match error {
            // Taken for an absent key, this would mean that everything in the store is gone.
            object_store::Error::NotFound { source, .. } if source.to_string().contains(NO_BUCKET) => {
                let attempted = format!("{attempted}: the bucket does not exist");
                SourceError::caused_by(SourceErrorKind::Storage, attempted, Reason(reason(error)))
            }
            object_store::Error::NotFound { .. } => SourceError::new(SourceErrorKind::NotFound, attempted),
            error if is_denied(error) => {
                let advice = "access is denied: check that the credentials are current, and that they may list, \
                              read, write and delete there";
                SourceError::caused_by(
                    SourceErrorKind::Storage,
                    format!("{attempted}: {advice}"),
                    Reason(reason(error)),
                )
            }
            error => SourceError::caused_by(SourceErrorKind::Storage, attempted, Reason(reason(error))),
        }
    }

    /// Converts an error of a write request: there, `NotFound` means the bucket itself.
    pub(super) fn refused(&self, attempted: &str, error: &object_store::Error) -> SourceError {
        match error {
            object_store::Error::NotFound { .. } => SourceError::caused_by(
                SourceErrorKind::Storage,
                format!("{attempted} in {}: the bucket does not exist", self.name),
                Reason(reason(error)),
            ),
            error => self.failed(attempted, error),
        }
    }

    fn path(&self, key: &str) -> Result<Path, SourceError> {
        let whole = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::parse(&whole).map_err(|error| {
            let attempted = format!("use the key {key:?} in {}", self.name);
            SourceError::caused_by(SourceErrorKind::Unsupported, attempted, error)
        })
    }

    fn key<'a>(&self, path: &'a Path) -> &'a str {
        let whole = path.as_ref();
        let below = whole.strip_prefix(self.prefix.as_str()).unwrap_or(whole);
        below.strip_prefix('/').unwrap_or(below)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns whether the provider denies access. For a list, the library reports that only in the message.
fn is_denied(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => true,
        object_store::Error::Generic { source, .. } => {
            let said = source.to_string();
            ["status code: 401", "status code: 403"].iter().any(|status| said.contains(status))
        }
        _ => false,
    }
}

/// Returns the message of a provider without the request it quotes.
fn reason(error: &object_store::Error) -> String {
    without_quotes(&error.to_string())
}

fn without_quotes(text: &str) -> String {
    let shortened = |text: &str| text.chars().take(MAX_REASON).collect::<String>();
    let Some(at) = text.find('<') else { return shortened(text) };
    let before = text.get(..at).unwrap_or_default();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value)
    };
    let said: Vec<&str> = ["Code", "Message"].into_iter().filter_map(element).collect();
    shortened(&format!("{before}{}", said.join(": ")))
}

#[cfg(test)]
mod tests {
    use super::without_quotes;

    #[test]
    fn error_message_omits_the_quoted_request() {
        let text = "Server returned 403: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
                    <Message>It differs.</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>s3cret\
                    </StringToSign></Error>";
        assert_eq!(without_quotes(text), "Server returned 403: SignatureDoesNotMatch: It differs.");
        assert_eq!(without_quotes("connection refused"), "connection refused");
        assert_eq!(without_quotes(&"x".repeat(1000)).len(), 500);
    }
}
