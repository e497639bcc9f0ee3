//! HTTP endpoint that tells whether the store has room: `/kuik/v1/capacity?bytes=N`.
//!
//! A client that is about to fetch content through the registry asks first, so that nothing is downloaded that would
//! not be stored. `GET` (and `HEAD`) answer whether `N` more bytes fit without an eviction. `POST` evicts like a
//! write of that size would, and answers whether the bytes fit then; like every other write it needs the token. Space
//! is not reserved. If the header `Kuik-Image: REPOSITORY:TAG` names an image that clusters manage, and that none of
//! them needs, nothing is evicted for it: images without a use would evict each other indefinitely. The response of both:
//!
//! ```json
//! {"fits": true, "retention": true, "storedBytes": 1048576, "limitBytes": 18874368}
//! ```
//!
//! `retention` tells whether a cluster reports which images it needs: `POST` then evicts none of these.
//! `limitBytes` is absent if there is no limit; then the free space of the volume decides, if it is known.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use kuik_core::{content::RegistryStore, reference::RepositoryName, retention::IMAGE_HEADER};

use super::Usage;
use crate::{
    maintenance::retention::{RetentionIndex, Standing},
    service::{ProxyBody, Refusal},
};

/// Path of the endpoint.
const PATH: &str = "/kuik/v1/capacity";

/// Layer that adds the capacity endpoint to a registry.
#[derive(Debug, Clone)]
pub struct CapacityLayer {
    usage: Usage,
    store: Arc<dyn RegistryStore>,
    retention: RetentionIndex,
}

impl CapacityLayer {
    /// Returns a layer that answers for `usage`, and for the volume of `store`; `retention` decides what is evicted.
    #[must_use]
    pub fn new(usage: Usage, store: Arc<dyn RegistryStore>, retention: RetentionIndex) -> Self {
        Self { usage, store, retention }
    }

    async fn answer(
        &self,
        method: &Method,
        query: Option<&str>,
        image: Option<&str>,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let bytes = bytes(query)?;
        let fits = match *method {
            Method::GET | Method::HEAD => self.usage.fits(bytes),
            Method::POST if image.is_some_and(|image| self.is_unused(image)) => self.usage.fits(bytes),
            Method::POST => self.usage.make_room(bytes).await,
            _ => {
                let message = "the capacity supports GET, HEAD and POST";
                let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
                return Err(refusal.with(header::ALLOW, "GET, HEAD, POST"));
            }
        };
        // A store that cannot tell is assumed to have room; a write then finds out.
        let free = self.store.free_bytes().await.ok().flatten();
        let fits = fits && free.is_none_or(|free| bytes <= free);
        let mut answer = serde_json::json!({
            "fits": fits,
            "retention": self.retention.has_documents(),
            "storedBytes": self.usage.bytes(),
        });
        if let (Some(limit), Some(fields)) = (self.usage.limit(), answer.as_object_mut()) {
            fields.insert("limitBytes".to_owned(), limit.into());
        }
        Ok(json(&answer, *method == Method::HEAD))
    }

    /// Returns whether a cluster manages the image `REPOSITORY:TAG`, and none needs it.
    fn is_unused(&self, image: &str) -> bool {
        let Some((repository, tag)) = image.rsplit_once(':') else { return false };
        let Ok(repository) = RepositoryName::local(repository) else { return false };
        matches!(self.retention.standing(&repository, [tag]), Standing::Unused { .. })
    }
}

impl<S> tower::Layer<S> for CapacityLayer {
    type Service = CapacityService<S>;

    fn layer(&self, registry: S) -> Self::Service {
        CapacityService { capacity: self.clone(), registry }
    }
}

/// Serves requests for the capacity, and passes other requests on.
#[derive(Debug, Clone)]
pub struct CapacityService<S> {
    capacity: CapacityLayer,
    registry: S,
}

impl<S, B> tower::Service<Request<B>> for CapacityService<S>
where
    S: tower::Service<Request<B>, Response = Response<ProxyBody>, Error = Infallible>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.registry.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            return Either::Left(self.registry.call(request));
        }
        let (method, query) = (request.method().clone(), request.uri().query().map(str::to_owned));
        let image = request.headers().get(IMAGE_HEADER);
        let image = image.and_then(|image| image.to_str().ok()).map(str::to_owned);
        let capacity = self.capacity.clone();
        Either::Right(Box::pin(async move {
            let answer = capacity.answer(&method, query.as_deref(), image.as_deref()).await;
            Ok(answer.unwrap_or_else(|refused| refused.into_response(method == Method::HEAD)))
        }))
    }
}

/// Parses the query: `bytes=N` and nothing else.
fn bytes(query: Option<&str>) -> Result<u64, Refusal> {
    let number = query.and_then(|query| query.strip_prefix("bytes=")).and_then(|number| number.parse().ok());
    number.ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", "expected the query bytes=N, a number of bytes")
    })
}

fn json(answer: &serde_json::Value, head: bool) -> Response<ProxyBody> {
    let text = answer.to_string();
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(if head { ProxyBody::empty() } else { ProxyBody::full(text) });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}
