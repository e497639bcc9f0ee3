//! Blob uploads: in one request, in chunks, streamed, resumed, or mounted from another repository.
//!
//! Acknowledged chunks are durable within the upload. An upload that finishes with the wrong digest is removed, and
//! nothing is published; one whose disk is full frees its space.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use kuik_core::{
    content::{ContentSource as _, ContentStore as _, Digest, RegistryStore as _, SourceError, Upload},
    reference::RepositoryName,
};

use super::{
    Shared,
    content_range::ChunkRange,
    operation::{Start, UploadName},
    receive::{Incoming, ReceiveError},
    refusal, respond,
};
use crate::service::{ProxyBody, Refusal, is_full};

type Answer = Result<Response<ProxyBody>, Refusal>;

impl Shared {
    /// Starts an upload, or stores a blob without a session.
    pub(super) async fn start_upload(
        &self,
        base: &str,
        repository: &RepositoryName,
        how: Start,
        body: &mut Incoming,
    ) -> Answer {
        match how {
            Start::Whole(digest) => return self.upload_whole(base, repository, &digest, body).await,
            Start::Mount { digest, from } => {
                let mounted = self.mount(repository, &digest, from.as_ref()).await;
                if mounted.map_err(|error| refusal::upload(&error))? {
                    return Ok(respond::blob(base, &digest));
                }
            }
            Start::Session => {}
        }
        let id = self.store.start_upload(repository).await.map_err(|error| refusal::upload(&error))?;
        Ok(respond::upload(StatusCode::ACCEPTED, base, &id, 0))
    }

    /// Makes a blob that the store has, in `from` or anywhere, readable in `repository`; returns whether the store
    /// has it.
    async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, SourceError> {
        let found = match from {
            Some(from) => self.store.blob_size(from, digest).await.map(drop),
            None => Ok(()),
        };
        let mounted = match found {
            Ok(()) => self.store.link_blob(repository, digest).await,
            absent => absent,
        };
        match mounted {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn upload_whole(
        &self,
        base: &str,
        repository: &RepositoryName,
        digest: &Digest,
        body: &mut Incoming,
    ) -> Answer {
        computable(digest)?;
        let _place = self.upload_slot()?;
        let failed = |error| refusal::upload(&error);
        let id = self.store.start_upload(repository).await.map_err(failed)?;
        let mut upload = self.store.upload(repository, &id).await.map_err(failed)?;
        if let Err(refused) = receive(upload.as_mut(), body, self.options.max_blob_bytes).await {
            // The client never received the location of this upload, so it cannot be resumed.
            cancel(upload).await;
            return Err(refused.into());
        }
        if let Err(error) = upload.finish(digest).await {
            match self.store.upload(repository, &id).await {
                Ok(upload) => cancel(upload).await,
                // The bytes did not match the digest, and the upload is gone.
                Err(absent) if absent.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(error = error.chain(), "failed to open an upload for removal");
                }
            }
            return Err(failed(error));
        }
        Ok(respond::blob(base, digest))
    }

    /// Appends a chunk to an upload.
    pub(super) async fn append(
        &self,
        base: &str,
        name: &UploadName,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Answer {
        let _place = self.upload_slot()?;
        let upload = self.resume(name).await?;
        let upload = self.receive_chunk(base, name, upload, headers, body).await?;
        Ok(respond::upload(StatusCode::ACCEPTED, base, &name.id, upload.offset()))
    }

    /// Finishes an upload; the body, if there is one, has its last bytes.
    pub(super) async fn finish(
        &self,
        base: &str,
        name: &UploadName,
        digest: &Digest,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Answer {
        computable(digest)?;
        let _place = self.upload_slot()?;
        let mut upload = self.resume(name).await?;
        if body.length() != Some(0) {
            upload = self.receive_chunk(base, name, upload, headers, body).await?;
        }
        upload.finish(digest).await.map_err(|error| refusal::upload(&error))?;
        Ok(respond::blob(base, digest))
    }

    /// Returns the progress of an upload.
    pub(super) async fn upload_status(&self, base: &str, name: &UploadName) -> Answer {
        let upload = self.resume(name).await?;
        Ok(respond::upload(StatusCode::NO_CONTENT, base, &name.id, upload.offset()))
    }

    /// Cancels an upload.
    pub(super) async fn cancel(&self, name: &UploadName) -> Answer {
        let upload = self.resume(name).await?;
        upload.cancel().await.map_err(|error| refusal::upload(&error))?;
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }

    async fn resume(&self, name: &UploadName) -> Result<Box<dyn Upload>, Refusal> {
        self.store.upload(&name.repository, &name.id).await.map_err(|error| refusal::upload(&error))
    }

    /// Appends a body to an upload, if its `Content-Range` fits.
    async fn receive_chunk(
        &self,
        base: &str,
        name: &UploadName,
        mut upload: Box<dyn Upload>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Box<dyn Upload>, Refusal> {
        let offset = upload.offset();
        let mut most = self.options.max_blob_bytes.saturating_sub(offset);
        let range = ChunkRange::from_headers(headers).map_err(refusal::chunk_range)?;
        if let Some(range) = range {
            if range.first != offset {
                // The response has the offset at which to resume.
                return Err(refusal::out_of_order(range.first, offset)
                    .with(header::LOCATION, respond::location(base, &name.id))
                    .with(header::RANGE, respond::range(offset)));
            }
            if let Some(found) = body.length().filter(|found| *found != range.length) {
                return Err(refusal::wrong_length(range.length, found));
            }
            most = most.min(range.length);
        }
        if let Err(stopped) = receive(upload.as_mut(), body, most).await {
            if stopped.is_full() {
                cancel(upload).await;
            }
            return Err(stopped.into());
        }
        let received = upload.offset().saturating_sub(offset);
        match range.filter(|range| range.length != received) {
            Some(range) => Err(refusal::wrong_length(range.length, received)),
            None => Ok(upload),
        }
    }
}

/// Refuses digests that cannot be verified, before a gigabyte is sent in vain.
fn computable(digest: &Digest) -> Result<(), Refusal> {
    digest.algorithm().map(drop).ok_or_else(|| refusal::unknown_algorithm(digest))
}

/// Why an upload did not receive a complete body.
enum Stopped {
    Client(ReceiveError),
    Store(SourceError),
}

impl Stopped {
    fn is_full(&self) -> bool {
        matches!(self, Self::Store(error) if is_full(error))
    }
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Client(error) => refusal::received(&error, "BLOB_UPLOAD_INVALID"),
            Stopped::Store(error) => refusal::upload(&error),
        }
    }
}

/// Writes a body of at most `most` bytes to an upload. If the body ends early, its bytes are kept: the client resumes
/// from there.
async fn receive(upload: &mut dyn Upload, body: &mut Incoming, most: u64) -> Result<(), Stopped> {
    if body.length().is_some_and(|length| length > most) {
        return Err(Stopped::Client(ReceiveError::TooLarge(most)));
    }
    let mut batch: Vec<Bytes> = Vec::new();
    let (mut waiting, mut received) = (0_usize, 0_u64);
    loop {
        let next = body.next().await;
        if let Ok(Some(bytes)) = &next {
            received = received.saturating_add(bytes.len() as u64);
            if received > most {
                return Err(Stopped::Client(ReceiveError::TooLarge(most)));
            }
            waiting += bytes.len();
            batch.push(bytes.clone());
        }
        let more = matches!(next, Ok(Some(_)));
        if waiting >= upload.batch_bytes() || (!more && waiting > 0) {
            upload.append(&batch).await.map_err(Stopped::Store)?;
            batch.clear();
            waiting = 0;
        }
        match next {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(Stopped::Client(error)),
        }
    }
}

async fn cancel(upload: Box<dyn Upload>) {
    if let Err(error) = upload.cancel().await {
        tracing::warn!(error = error.chain(), "failed to remove an upload");
    }
}
