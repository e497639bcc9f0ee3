//! A blob on its way to a registry: hashed as it goes, with an end to waiting.
//!
//! Invariant: bytes that are not what the digest names never end well. The stream breaks off instead of ending, so that
//! no registry takes them for complete.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
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
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::{
    exchange::{AGENT, Answer, Exchange, Question, failed, forbidden},
    hosts::Kind,
    transport::Body,
};
use crate::content::{BlobStream, Digest, SourceError, SourceErrorKind, Verifier};

/// The body of a request that sends a blob.
pub(super) struct Sending {
    what: String,
    digest: Digest,
    size: u64,
    sent: u64,
    verifier: Option<Verifier>,
    body: BlobStream,
    told: Told,
}

/// What is known of a blob that is being sent. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    error: Mutex<Option<SourceError>>,
}

impl Told {
    /// Why the bytes ended too early.
    pub(super) fn take_error(&self) -> Option<SourceError> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }
}

impl Sending {
    pub(super) fn new(
        what: &str,
        digest: &Digest,
        size: u64,
        body: BlobStream,
    ) -> Result<(Self, Told), SourceError> {
        let Some(verifier) = Verifier::new(digest) else {
            let problem = format!("{what}: its digest cannot be computed");
            return Err(SourceError::new(SourceErrorKind::Unsupported, problem));
        };
        let told = Told::default();
        let (what, digest, sent) = (what.to_owned(), digest.clone(), 0);
        Ok((Self { what, digest, size, sent, verifier: Some(verifier), body, told: told.clone() }, told))
    }

    fn check(&mut self, next: Option<Result<Bytes, SourceError>>) -> Option<Result<Bytes, SourceError>> {
        match next {
            Some(Ok(bytes)) => {
                self.sent += bytes.len() as u64;
                self.told.0.sent.store(self.sent, Ordering::Relaxed);
                if self.sent > self.size {
                    return Some(Err(self.wrong("it is larger than its manifest says".into())));
                }
                if let Some(verifier) = &mut self.verifier {
                    verifier.update(&bytes);
                }
                // The last bytes complete the blob, so they go only where it is the right one.
                if self.sent == self.size
                    && let Some(Err(mismatch)) = self.verifier.take().map(Verifier::finish)
                {
                    return Some(Err(self.wrong(mismatch.into())));
                }
                Some(Ok(bytes))
            }
            None if self.sent < self.size => {
                Some(Err(self.wrong("it is smaller than its manifest says".into())))
            }
            other => other,
        }
    }

    fn wrong(&self, cause: Box<dyn std::error::Error + Send + Sync>) -> SourceError {
        let attempted = format!("{}: read {}", self.what, self.digest);
        SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, cause)
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_next(cx));
        let checked = self.check(next);
        if let Some(Err(error)) = &checked {
            *self.told.0.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
        Poll::Ready(checked.map(|checked| checked.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size.saturating_sub(self.sent))
    }
}

impl Exchange {
    /// Sends a request with a body that cannot be sent twice: to its own host alone, and for as long as bytes flow.
    pub(super) async fn send_stream(
        &self,
        question: &Question,
        authorization: Option<&http::HeaderValue>,
        sending: Sending,
        told: &Told,
    ) -> Result<Answer, SourceError> {
        self.guard
            .check(&question.uri, question.over_http)
            .map_err(|refused| forbidden(question, refused))?;
        let size = sending.size;
        let kind = Kind { account: question.account.clone(), is_pull: false };
        let host = self.hosts.of(&question.uri);
        let admission = host.admit(&question.what, kind, question.deadline).await?.sending();
        let mut request = Request::new(Body::new(sending));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = question.uri.clone();
        *request.headers_mut() = question.headers.clone();
        request.headers_mut().insert(USER_AGENT, AGENT);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let mut answering = std::pin::pin!(self.transport.clone().oneshot(request));
        let mut sent = 0;
        loop {
            // Once everything is sent, the registry has the time for an answer; before that, something has to move.
            let limit = if sent == size { self.timeouts.headers } else { self.timeouts.stall };
            match timeout(limit, &mut answering).await {
                Ok(Ok(response)) => {
                    let receiving = self.hosts.answered(admission, response.status(), response.headers());
                    let response = response.map(|body| body.held_by(receiving));
                    return Ok(Answer { response, elsewhere: false });
                }
                Ok(Err(error)) => {
                    let error = failed(question, error);
                    admission.failed(&error, false);
                    return Err(error);
                }
                Err(_) if told.sent() > sent => sent = told.sent(),
                Err(_) => {
                    let problem = format_args!("nothing moved for {limit:?} after {sent} of {size} bytes");
                    let error = question.error(SourceErrorKind::TimedOut, problem);
                    admission.failed(&error, sent == size);
                    return Err(error);
                }
            }
        }
    }
}
