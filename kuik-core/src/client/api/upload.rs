//! Blob upload body: hashed while it is sent, with a stall timeout.
//!
//! Invariant: a body that does not match its digest never completes. The stream fails instead of ending, so that no
//! registry accepts it as complete.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream as _;
use http::{
    Request,
    header::{AUTHORIZATION, USER_AGENT},
};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::client::{
    hosts::RateLimitKey,
    transport::{
        Body,
        sender::{AGENT, Answer, HttpSender, RegistryRequest, failed, forbidden},
    },
};
use crate::content::{BlobStream, Digest, SourceError, SourceErrorKind, Verifier};

/// The request body of a blob upload.
pub(crate) struct UploadBody {
    what: String,
    digest: Digest,
    size: u64,
    sent: u64,
    verifier: Option<Verifier>,
    body: BlobStream,
    progress: UploadProgress,
}

/// Progress of an upload. Clones share state.
#[derive(Clone, Default)]
pub(crate) struct UploadProgress(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    error: Mutex<Option<SourceError>>,
}

impl UploadProgress {
    /// Takes the error that ended the content early.
    pub(crate) fn take_error(&self) -> Option<SourceError> {
        self.0.error.lock().take()
    }

    fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }
}

impl UploadBody {
    pub(crate) fn new(
        what: &str,
        digest: &Digest,
        size: u64,
        body: BlobStream,
    ) -> Result<(Self, UploadProgress), SourceError> {
        let Some(verifier) = Verifier::new(digest) else {
            let problem = format!("{what}: the digest algorithm is not supported");
            return Err(SourceError::new(SourceErrorKind::Unsupported, problem));
        };
        let progress = UploadProgress::default();
        let (what, digest, sent) = (what.to_owned(), digest.clone(), 0);
        Ok((
            Self { what, digest, size, sent, verifier: Some(verifier), body, progress: progress.clone() },
            progress,
        ))
    }

    fn check(&mut self, next: Option<Result<Bytes, SourceError>>) -> Option<Result<Bytes, SourceError>> {
        match next {
            Some(Ok(bytes)) => {
                self.sent += bytes.len() as u64;
                self.progress.0.sent.store(self.sent, Ordering::Relaxed);
                if self.sent > self.size {
                    return Some(Err(self.invalid("it is larger than its manifest declares".into())));
                }
                if let Some(verifier) = &mut self.verifier {
                    verifier.update(&bytes);
                }
                // The last bytes complete the blob, so they are sent only if the digest matches.
                if self.sent == self.size
                    && let Some(Err(mismatch)) = self.verifier.take().map(Verifier::finish)
                {
                    return Some(Err(self.invalid(mismatch.into())));
                }
                Some(Ok(bytes))
            }
            None if self.sent < self.size => {
                Some(Err(self.invalid("it is smaller than its manifest declares".into())))
            }
            other => other,
        }
    }

    fn invalid(&self, cause: Box<dyn std::error::Error + Send + Sync>) -> SourceError {
        let attempted = format!("{}: read {}", self.what, self.digest);
        SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, cause)
    }
}

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_next(cx));
        let checked = self.check(next);
        if let Some(Err(error)) = &checked {
            *self.progress.0.error.lock() = Some(error.clone());
        }
        Poll::Ready(checked.map(|checked| checked.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size.saturating_sub(self.sent))
    }
}

impl HttpSender {
    /// Sends a request whose body cannot be replayed: only to its own host, for as long as bytes flow.
    pub(crate) async fn send_stream(
        &self,
        request: &RegistryRequest,
        authorization: Option<&http::HeaderValue>,
        upload_body: UploadBody,
        progress: &UploadProgress,
    ) -> Result<Answer, SourceError> {
        self.guard.check(&request.uri, request.over_http).map_err(|refused| forbidden(request, refused))?;
        let size = upload_body.size;
        let key = RateLimitKey { account: request.account.clone(), is_pull: false };
        let host = self.hosts.of(&request.uri);
        let permit = host.admit(&request.what, key, request.deadline).await?.for_upload();
        let mut http_request = Request::new(Body::new(upload_body));
        *http_request.method_mut() = request.method.clone();
        *http_request.uri_mut() = request.uri.clone();
        *http_request.headers_mut() = request.headers.clone();
        http_request.headers_mut().insert(USER_AGENT, AGENT);
        if let Some(authorization) = authorization {
            http_request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let mut responding = std::pin::pin!(self.transport.clone().oneshot(http_request));
        let mut sent = 0;
        loop {
            // Once everything is sent, the registry has the `headers` timeout; before that, `stall` applies.
            let limit = if sent == size { self.timeouts.headers } else { self.timeouts.stall };
            match timeout(limit, &mut responding).await {
                Ok(Ok(response)) => {
                    let body_permit = self.hosts.answered(permit, response.status(), response.headers());
                    let response = response.map(|body| body.with_permit(body_permit));
                    return Ok(Answer { response, redirected: false });
                }
                Ok(Err(error)) => {
                    let error = failed(request, error);
                    permit.failed(&error, false);
                    return Err(error);
                }
                Err(_) if progress.sent() > sent => sent = progress.sent(),
                Err(_) => {
                    let problem = format_args!("no progress for {limit:?} after {sent} of {size} bytes");
                    let error = request.error(SourceErrorKind::TimedOut, problem);
                    permit.failed(&error, sent == size);
                    return Err(error);
                }
            }
        }
    }
}
