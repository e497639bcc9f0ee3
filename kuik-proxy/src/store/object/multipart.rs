//! Multipart upload of a blob into the bucket.
//!
//! Invariant: nothing is visible before `complete`; a dropped upload is aborted. A killed process leaves its parts
//! behind, which a lifecycle rule of the bucket must remove (`AbortIncompleteMultipartUpload`): most providers do not
//! list them.

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use kuik_core::content::SourceError;
use object_store::{MultipartUpload, PutPayload, UploadPart};

use super::Shared;

/// Minimum size of a part, except the last, in bytes.
pub(super) const PART_BYTES: u64 = 8 << 20;

/// Maximum number of parts of an object: S3 allows 10,000.
const MAX_PARTS: u64 = 9_000;

/// Number of parts in flight while the next one is gathered.
const IN_FLIGHT: usize = 2;

/// A blob that is being written.
pub(super) struct Multipart<'a> {
    store: &'a Shared,
    attempted: &'a str,
    key: String,
    part_bytes: u64,
    gathered: Vec<Bytes>,
    length: u64,
    begun: Option<Begun>,
}

struct Begun {
    upload: Option<Box<dyn MultipartUpload>>,
    in_flight: FuturesUnordered<UploadPart>,
}

impl<'a> Multipart<'a> {
    /// Begins a blob of at most `size` bytes under `key`.
    pub(super) fn new(store: &'a Shared, attempted: &'a str, key: String, size: u64) -> Self {
        let part_bytes = PART_BYTES.max(size.div_ceil(MAX_PARTS));
        Self { store, attempted, key, part_bytes, gathered: Vec::new(), length: 0, begun: None }
    }

    /// Adds the next bytes, and waits until there is capacity for more.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), SourceError> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.part_bytes - self.length).unwrap_or(usize::MAX);
            let taken = bytes.split_to(room.min(bytes.len()));
            self.length += taken.len() as u64;
            self.gathered.push(taken);
            if self.length == self.part_bytes {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Makes the blob visible.
    pub(super) async fn complete(mut self) -> Result<(), SourceError> {
        if self.begun.is_none() {
            let payload: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
            return self.store.bucket.put(self.attempted, &self.key, payload).await;
        }
        if self.length > 0 {
            self.send().await?;
        }
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let failed = |error| self.store.bucket.refused(self.attempted, &error);
        while let Some(sent) = begun.in_flight.next().await {
            sent.map_err(failed)?;
        }
        if let Some(upload) = &mut begun.upload {
            upload.complete().await.map_err(failed)?;
        }
        begun.upload = None;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), SourceError> {
        if self.begun.is_none() {
            let upload = Some(self.store.bucket.multipart(self.attempted, &self.key).await?);
            self.begun = Some(Begun { upload, in_flight: FuturesUnordered::new() });
        }
        let payload: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
        self.length = 0;
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let failed = |error| self.store.bucket.refused(self.attempted, &error);
        while begun.in_flight.len() >= IN_FLIGHT {
            if let Some(sent) = begun.in_flight.next().await {
                sent.map_err(failed)?;
            }
        }
        if let Some(upload) = &mut begun.upload {
            begun.in_flight.push(upload.put_part(payload));
        }
        // They start when they are polled.
        if let Some(Some(sent)) = begun.in_flight.next().now_or_never() {
            sent.map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        // Wait for parts in flight first: one that arrives after the abort would remain.
        self.in_flight.clear();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "cannot remove the parts of a canceled blob upload");
                }
            });
        }
    }
}
