//! Pushes to a registry: blob uploads, manifests and manifest deletion (OCI distribution specification, "Push").
//!
//! Everything pushed is addressed by digest, and the registry verifies it: a blob that does not match its digest is
//! never stored. A blob is streamed, so it cannot be retried; the requests before it can, and they authenticate.

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION},
};
use tokio::time::Instant;

use super::{
    endpoint::{RepositoryEndpoint, ResponseContext, escaped, invalid},
    request::RequestSpec,
    upload::UploadBody,
};
use crate::client::{
    client::RegistryClient,
    transport::{
        body, redirect,
        sender::{RegistryRequest, same_origin},
    },
};
use crate::{
    content::{BlobStream, Digest, Manifest, SourceError, SourceErrorKind, TagOrDigest, Verifier},
    failover::Role,
    reference::RepositoryName,
    retention::{CLUSTER_HEADER, TAG_RETAINED},
};

const KUIK_CLUSTER: HeaderName = HeaderName::from_static(CLUSTER_HEADER);

/// Blobs up to this size are uploaded in one request.
const MONOLITHIC: u64 = 256 * 1024;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Why a blob push failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The content could not be read, or did not match its digest.
    #[error("failed to read the content")]
    Content(#[source] SourceError),
    /// The registry rejected the content.
    #[error("the registry rejected the content")]
    Registry(#[source] SourceError),
}

/// The result of a manifest push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushedManifest {
    /// Whether the registry lists the manifest as a referrer of its subject (`OCI-Subject`). If not, and the manifest
    /// has a subject, the caller has to push the referrers tag.
    pub lists_referrer: bool,
}

impl RegistryClient {
    /// Pushes a manifest under a tag or under its own digest.
    ///
    /// # Errors
    /// Returns `NotFound` or `Unsupported` if the registry lacks content that the manifest refers to, or rejects the
    /// manifest; otherwise the error of the request.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        at: &TagOrDigest,
    ) -> Result<PushedManifest, SourceError> {
        let origin = self.origin(repository).await?;
        let mut spec = RequestSpec::manifest(Method::PUT, at, Default::default(), origin.deadline);
        spec.headers = HeaderMap::new();
        let media_type = HeaderValue::from_str(manifest.media_type().as_str());
        spec.headers.extend(media_type.ok().map(|value| (CONTENT_TYPE, value)));
        let response = origin.send_with_body(spec, manifest.bytes().clone()).await?;
        if !response.answer.status().is_success() {
            return Err(origin.failure(response).await);
        }
        let lists_referrer = response.answer.response.headers().contains_key(OCI_SUBJECT);
        origin.discard_body(response).await;
        Ok(PushedManifest { lists_referrer })
    }

    /// Deletes a tag, or a manifest with all its tags.
    ///
    /// If the request names a cluster ([`RegistryClient::for_cluster`]), a tag that the cache keeps for another cluster
    /// counts as deleted.
    ///
    /// # Errors
    /// Returns `NotFound` if it does not exist, `Unsupported` if the registry does not support deletion.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
    ) -> Result<(), SourceError> {
        let origin = self.origin(repository).await?;
        let mut spec = RequestSpec::manifest(Method::DELETE, at, Default::default(), origin.deadline);
        spec.headers = HeaderMap::new();
        let cluster = self.cluster.as_ref().and_then(|cluster| HeaderValue::from_str(cluster.as_str()).ok());
        spec.headers.extend(cluster.map(|cluster| (KUIK_CLUSTER, cluster)));
        let response = origin.send_with_body(spec, Bytes::new()).await?;
        let status = response.answer.status();
        if !status.is_success() {
            let failure = origin.failure(response).await;
            if status == StatusCode::CONFLICT && failure.to_string().contains(TAG_RETAINED) {
                tracing::info!(%repository, %at, "the cache keeps the tag for another cluster");
                return Ok(());
            }
            return Err(failure);
        }
        origin.discard_body(response).await;
        Ok(())
    }

    /// Pushes a blob of `size` bytes from `body`, or mounts it if the registry has the blob in the repository `from`.
    ///
    /// The caller checks first whether the repository already has the blob ([`blob_size`]).
    ///
    /// [`blob_size`]: crate::content::ContentSource::blob_size
    ///
    /// # Errors
    /// Returns an error that tells whether the content or the registry failed.
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
            // Cancel the upload. If that fails too, the registry expires it.
            let _ = upload.send(&session, Method::DELETE, Bytes::new()).await;
        }
        sent
    }

    /// Returns the push target: the origin, never a copy.
    pub(super) async fn origin(
        &self,
        repository: &RepositoryName,
    ) -> Result<RepositoryEndpoint, SourceError> {
        let upstreams = self.resolver.upstreams(repository).await?;
        let origin = upstreams.into_iter().find(|upstream| upstream.role() == Role::Origin);
        let upstream = origin.ok_or_else(|| {
            let problem = format!("push to {repository}: the configuration has only copies of its registry");
            SourceError::new(SourceErrorKind::Forbidden, problem)
        })?;
        let deadline = Instant::now() + self.sender.timeouts.answer;
        Ok(RepositoryEndpoint { client: self.clone(), repository: repository.clone(), upstream, deadline })
    }
}

impl RepositoryEndpoint {
    /// Starts an upload and returns its location; `None` if the registry mounted the blob from `from`.
    async fn start_upload(
        &self,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Option<Uri>, SourceError> {
        let mount =
            from.map(|from| format!("?mount={}&from={}", escaped(digest.as_str()), escaped(from.path())));
        let spec = RequestSpec {
            method: Method::POST,
            name: ("upload of blob", format!("@{digest}")),
            rest: format!("blobs/uploads/{}", mount.unwrap_or_default()),
            headers: HeaderMap::new(),
            deadline: self.deadline,
        };
        let uri = self.url(&spec.rest, "start an upload")?;
        let response = self.send_with_body(spec, Bytes::new()).await?;
        match response.answer.status() {
            StatusCode::CREATED if from.is_some() => {
                self.discard_body(response).await;
                Ok(None)
            }
            StatusCode::ACCEPTED => {
                let uri = next(&response, &uri)?;
                self.discard_body(response).await;
                Ok(Some(uri))
            }
            _ => Err(self.failure(response).await),
        }
    }

    /// Reads and drops a short body, so that its connection can be reused.
    pub(super) async fn discard_body(&self, response: ResponseContext) {
        body::discard(response.answer.response.into_body(), self.client.sender.timeouts.stall).await;
    }
}

/// An upload in progress. Each of its requests has the `answer` timeout.
struct Upload<'a> {
    origin: RepositoryEndpoint,
    digest: &'a Digest,
}

impl Upload<'_> {
    /// Streams all bytes to `uri`. Returns the location to finish the upload.
    async fn stream(&self, uri: &Uri, size: u64, body: BlobStream) -> Result<Uri, PushError> {
        let (client, request) = (&self.origin.client, self.build_request(uri, Method::PATCH, Bytes::new()));
        let scope = self.origin.auth_scope();
        let authorization = client.authenticator.authorization(&client.sender, &request, &scope).await;
        let authorization = authorization.map_err(PushError::Registry)?;
        let (upload_body, progress) =
            UploadBody::new(&request.what, self.digest, size, body).map_err(PushError::Content)?;
        match client.sender.send_stream(&request, authorization.as_ref(), upload_body, &progress).await {
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                let response = ResponseContext { what: request.what, answer };
                let uri = next(&response, uri).map_err(PushError::Registry)?;
                self.origin.discard_body(response).await;
                Ok(uri)
            }
            Ok(answer) => {
                let response = ResponseContext { what: request.what, answer };
                Err(PushError::Registry(self.origin.failure(response).await))
            }
            // The connection breaks if the content ends early: that is not the registry's fault.
            Err(error) => Err(progress.take_error().map_or(PushError::Registry(error), PushError::Content)),
        }
    }

    /// Finishes an upload at `uri`, with `last` as its last bytes.
    async fn finish(&self, uri: &Uri, last: Bytes) -> Result<(), SourceError> {
        let separator = if uri.query().is_some() { '&' } else { '?' };
        let uri = format!("{uri}{separator}digest={}", escaped(self.digest.as_str()));
        let uri: Uri = uri.parse().map_err(|error: http::uri::InvalidUri| {
            let attempted = format!("finish the upload of {} to {}", self.digest, self.origin.repository);
            SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, error)
        })?;
        let response = self.send(&uri, Method::PUT, last).await?;
        if response.answer.status() != StatusCode::CREATED {
            return Err(self.origin.failure(response).await);
        }
        self.origin.discard_body(response).await;
        Ok(())
    }

    async fn send(&self, uri: &Uri, method: Method, body: Bytes) -> Result<ResponseContext, SourceError> {
        self.origin.send_request(self.build_request(uri, method, body)).await
    }

    fn build_request(&self, uri: &Uri, method: Method, body: Bytes) -> RegistryRequest {
        // Describe the request without its URL: the location of an upload can contain a credential.
        let what = format!("{method} upload of blob {}@{}", self.origin.repository.path(), self.digest);
        let octets = HeaderValue::from_static("application/octet-stream");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, octets)]);
        let deadline = Instant::now() + self.origin.client.sender.timeouts.answer;
        RegistryRequest { deadline, ..self.origin.build_request(what, method, uri.clone(), headers, body) }
    }
}

/// Returns the location of the next upload request. It must have the same origin.
fn next(response: &ResponseContext, uri: &Uri) -> Result<Uri, SourceError> {
    let location = response.answer.response.headers().get(LOCATION);
    let next = location.and_then(|location| redirect::target(uri, location.as_bytes()));
    match next {
        Some(next) if same_origin(&next, uri) => Ok(next),
        Some(_) => Err(invalid(&response.what, "the upload location is on another host")),
        None => Err(invalid(&response.what, "the response has no valid upload location")),
    }
}

/// Reads a small blob and verifies it.
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
                format!("{}: larger than its manifest declares", attempted()),
            ));
        }
        whole.extend_from_slice(&bytes);
    }
    let mut verifier = Verifier::new(digest).ok_or_else(|| {
        SourceError::new(
            SourceErrorKind::Unsupported,
            format!("{}: the digest algorithm is not supported", attempted()),
        )
    })?;
    verifier.update(&whole);
    verifier
        .finish()
        .map_err(|error| SourceError::caused_by(SourceErrorKind::InvalidContent, attempted(), error))?;
    Ok(whole.into())
}
