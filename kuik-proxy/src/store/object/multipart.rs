//! A blob on its way into the bucket, in parts.
//!
//! Invariant: nothing is visible before `complete`; one that is dropped is aborted. A process that is killed leaves
//! its parts behind, which a rule of the bucket has to remove (`AbortIncompleteMultipartUpload`): most providers do
//! not show them to us.

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use kuik_core::content::SourceError;
use object_store::{MultipartUpload, PutPayload, UploadPart};

use super::Shared;

/// The smallest part, but for the last, in bytes.
pub(super) const PART_BYTES: u64 = 8 << 20;

/// How many parts an object may have: S3 has 10,000.
const MAX_PARTS: u64 = 9_000;

/// How many parts are on their way while the next one is gathered.
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
    /// A blob of at most `size` bytes under `key`.
    pub(super) fn new(store: &'a Shared, attempted: &'a str, key: String, size: u64) -> Self {
        let part_bytes = PART_BYTES.max(size.div_ceil(MAX_PARTS));
        Self { store, attempted, key, part_bytes, gathered: Vec::new(), length: 0, begun: None }
    }

    /// Takes the next bytes, and waits until there is room for more.
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
        // They begin to move when they are looked at.
        if let Some(Some(sent)) = begun.in_flight.next().now_or_never() {
            sent.map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        // Parts under way first: one that arrives behind the abort would stay.
        self.in_flight.clear();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "the parts of a blob that was given up could not be removed");
                }
            });
        }
    }
}
