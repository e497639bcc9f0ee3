//! What a registry is sent: blobs, manifests, and the wish to forget a manifest (OCI distribution specification, "Push").
//!
//! Only what names its own digest is sent, and the registry compares: a blob that is not what its digest says is never
//! kept. A blob is streamed, so it cannot be sent twice; everything that comes before it can, and opens the door.

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION},
};
use tokio::time::Instant;

use super::{
    about::About,
    at::{Asked, At, escaped, invalid},
    body,
    client::RegistryClient,
    exchange::{Question, same_origin},
    redirect,
    sending::Sending,
};
use crate::{
    content::{BlobStream, Digest, Manifest, SourceError, SourceErrorKind, TagOrDigest, Verifier},
    failover::Role,
    reference::RepositoryName,
};

/// A blob of so many bytes at most is sent in one piece.
const MONOLITHIC: u64 = 256 * 1024;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Why a blob could not be sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Its bytes did not come, or were not what they should be.
    #[error("the content could not be read")]
    Content(#[source] SourceError),
    /// The registry did not take them.
    #[error("the registry did not take the content")]
    Registry(#[source] SourceError),
}

/// A manifest that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Whether the registry says that it lists the manifest as a referrer of its subject. One that does not, and whose
    /// manifest has a subject, has to be sent the list.
    pub lists_referrer: bool,
}

impl RegistryClient {
    /// Puts a manifest into a repository, under a tag or under its own digest.
    ///
    /// # Errors
    /// `NotFound` or `Unsupported` where the registry lacks what the manifest refers to, or does not like it; else why it
    /// could not be sent.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        at: &TagOrDigest,
    ) -> Result<Kept, SourceError> {
        let origin = self.origin(repository).await?;
        let mut about = About::manifest(Method::PUT, at, Default::default(), origin.deadline);
        about.headers = HeaderMap::new();
        let media_type = HeaderValue::from_str(manifest.media_type().as_str());
        about.headers.extend(media_type.ok().map(|value| (CONTENT_TYPE, value)));
        let asked = origin.ask_with(about, manifest.bytes().clone()).await?;
        if !asked.answer.status().is_success() {
            return Err(origin.failure(asked).await);
        }
        let lists_referrer = asked.answer.response.headers().contains_key(OCI_SUBJECT);
        origin.let_go(asked).await;
        Ok(Kept { lists_referrer })
    }

    /// Makes a repository forget a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// `NotFound` where it has no such thing, `Unsupported` where it forgets nothing of that kind.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
    ) -> Result<(), SourceError> {
        let origin = self.origin(repository).await?;
        let mut about = About::manifest(Method::DELETE, at, Default::default(), origin.deadline);
        about.headers = HeaderMap::new();
        let asked = origin.ask_with(about, Bytes::new()).await?;
        if !asked.answer.status().is_success() {
            return Err(origin.failure(asked).await);
        }
        origin.let_go(asked).await;
        Ok(())
    }

    /// Puts a blob of `size` bytes into a repository, out of `body`; or without it, where the registry has the blob in
    /// the repository `from`.
    ///
    /// Whether the repository has it already is for the caller to ask ([`blob_size`]).
    ///
    /// [`blob_size`]: crate::content::ContentSource::blob_size
    ///
    /// # Errors
    /// Whose fault it was that the blob is not there.
    pub async fn put_blob<F>(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        from: Option<&RepositoryName>,
        body: impl FnOnce() -> F + Send,
    ) -> Result<(), PushError>
    where
        F: Future<Output = Result<BlobStream, SourceError>> + Send,
    {
        let origin = self.origin(repository).await.map_err(PushError::Registry)?;
        let Some(session) = origin.start_upload(digest, from).await.map_err(PushError::Registry)? else {
            return Ok(());
        };
        let upload = Upload { origin, digest };
        let sent = async {
            let body = body().await.map_err(PushError::Content)?;
            if size <= MONOLITHIC {
                let whole = whole(repository, digest, body).await.map_err(PushError::Content)?;
                return upload.finish(&session, whole).await.map_err(PushError::Registry);
            }
            let next = upload.stream(&session, size, body).await?;
            upload.finish(&next, Bytes::new()).await.map_err(PushError::Registry)
        };
        let sent = sent.await;
        if sent.is_err() {
            // What was begun in vain is not left behind; where that fails too, the registry forgets it one day.
            let _ = upload.ask(&session, Method::DELETE, Bytes::new()).await;
        }
        sent
    }

    /// Where a repository is pushed to: the registry itself, never a copy of it.
    async fn origin(&self, repository: &RepositoryName) -> Result<At, SourceError> {
        let upstreams = self.resolver.upstreams(repository).await?;
        let origin = upstreams.into_iter().find(|upstream| upstream.role() == Role::Origin);
        let upstream = origin.ok_or_else(|| {
            let problem = format!("push to {repository}: only copies of its registry are configured");
            SourceError::new(SourceErrorKind::Forbidden, problem)
        })?;
        let deadline = Instant::now() + self.exchange.timeouts.answer;
        Ok(At { client: self.clone(), repository: repository.clone(), upstream, deadline })
    }
}

impl At {
    /// Begins an upload, and says where it goes on. There is none where the registry has the blob in `from`.
    async fn start_upload(
        &self,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Option<Uri>, SourceError> {
        let mount =
            from.map(|from| format!("?mount={}&from={}", escaped(digest.as_str()), escaped(from.path())));
        let about = About {
            method: Method::POST,
            name: ("upload of blob", format!("@{digest}")),
            rest: format!("blobs/uploads/{}", mount.unwrap_or_default()),
            headers: HeaderMap::new(),
            deadline: self.deadline,
        };
        let uri = self.url(&about.rest, "begin an upload")?;
        let asked = self.ask_with(about, Bytes::new()).await?;
        match asked.answer.status() {
            StatusCode::CREATED if from.is_some() => {
                self.let_go(asked).await;
                Ok(None)
            }
            StatusCode::ACCEPTED => {
                let uri = next(&asked, &uri)?;
                self.let_go(asked).await;
                Ok(Some(uri))
            }
            _ => Err(self.failure(asked).await),
        }
    }

    /// Reads a short answer away, so that its connection can be used again.
    async fn let_go(&self, asked: Asked) {
        body::discard(asked.answer.response.into_body(), self.client.exchange.timeouts.stall).await;
    }
}

/// A blob on its way to a registry. Every request of an upload has the time of one answer.
struct Upload<'a> {
    origin: At,
    digest: &'a Digest,
}

impl Upload<'_> {
    /// Sends all bytes to `uri`, as they come. Returns where the upload is finished.
    async fn stream(&self, uri: &Uri, size: u64, body: BlobStream) -> Result<Uri, PushError> {
        let (client, question) = (&self.origin.client, self.question(uri, Method::PATCH, Bytes::new()));
        let door = self.origin.door();
        let authorization = client.authenticator.authorization(&client.exchange, &question, &door).await;
        let authorization = authorization.map_err(PushError::Registry)?;
        let (sending, told) =
            Sending::new(&question.what, self.digest, size, body).map_err(PushError::Content)?;
        match client.exchange.send_stream(&question, authorization.as_ref(), sending, &told).await {
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                let asked = Asked { what: question.what, answer };
                let uri = next(&asked, uri).map_err(PushError::Registry)?;
                self.origin.let_go(asked).await;
                Ok(uri)
            }
            Ok(answer) => {
                let asked = Asked { what: question.what, answer };
                Err(PushError::Registry(self.origin.failure(asked).await))
            }
            // The connection breaks where the bytes end too early: that is not the registry's fault.
            Err(error) => Err(told.take_error().map_or(PushError::Registry(error), PushError::Content)),
        }
    }

    /// Ends an upload at `uri`, with `last` as its last bytes.
    async fn finish(&self, uri: &Uri, last: Bytes) -> Result<(), SourceError> {
        let separator = if uri.query().is_some() { '&' } else { '?' };
        let uri = format!("{uri}{separator}digest={}", escaped(self.digest.as_str()));
        let uri: Uri = uri.parse().map_err(|error: http::uri::InvalidUri| {
            let attempted = format!("finish the upload of {} to {}", self.digest, self.origin.repository);
            SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, error)
        })?;
        let asked = self.ask(&uri, Method::PUT, last).await?;
        if asked.answer.status() != StatusCode::CREATED {
            return Err(self.origin.failure(asked).await);
        }
        self.origin.let_go(asked).await;
        Ok(())
    }

    async fn ask(&self, uri: &Uri, method: Method, body: Bytes) -> Result<Asked, SourceError> {
        self.origin.ask_question(self.question(uri, method, body)).await
    }

    fn question(&self, uri: &Uri, method: Method, body: Bytes) -> Question {
        // The address of an upload can hold what opens it.
        let what = format!("{method} upload of blob {}@{}", self.origin.repository.path(), self.digest);
        let octets = HeaderValue::from_static("application/octet-stream");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, octets)]);
        let deadline = Instant::now() + self.origin.client.exchange.timeouts.answer;
        Question { deadline, ..self.origin.question(what, method, uri.clone(), headers, body) }
    }
}

/// Where an upload goes on: only ever at the host that was asked.
fn next(asked: &Asked, uri: &Uri) -> Result<Uri, SourceError> {
    let location = asked.answer.response.headers().get(LOCATION);
    let next = location.and_then(|location| redirect::target(uri, location.as_bytes()));
    match next {
        Some(next) if same_origin(&next, uri) => Ok(next),
        Some(_) => Err(invalid(&asked.what, "the upload is to go on at another host")),
        None => Err(invalid(&asked.what, "the answer does not say where the upload goes on")),
    }
}

/// A small blob, whole and verified.
async fn whole(
    repository: &RepositoryName,
    digest: &Digest,
    mut body: BlobStream,
) -> Result<Bytes, SourceError> {
    let attempted = || format!("read blob {digest} of {repository}");
    let mut whole = Vec::new();
    while let Some(bytes) = body.try_next().await? {
        if (whole.len() + bytes.len()) as u64 > MONOLITHIC {
            let kind = SourceErrorKind::InvalidContent;
            return Err(SourceError::new(
                kind,
                format!("{}: it is larger than its manifest says", attempted()),
            ));
        }
        whole.extend_from_slice(&bytes);
    }
    let mut verifier = Verifier::new(digest).ok_or_else(|| {
        SourceError::new(
            SourceErrorKind::Unsupported,
            format!("{}: its digest cannot be computed", attempted()),
        )
    })?;
    verifier.update(&whole);
    verifier
        .finish()
        .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, attempted(), error))?;
    Ok(whole.into())
}
