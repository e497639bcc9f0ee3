//! Capacity of kuik's own cache: `/kuik/v1/capacity?bytes=N`, outside the OCI distribution API.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header::ACCEPT};
use serde::Deserialize;

use super::endpoint::RepositoryEndpoint;
use crate::{
    client::RegistryClient,
    content::{SourceError, SourceErrorKind},
    copy::SourceImage,
    reference::RepositoryName,
    retention::IMAGE_HEADER,
};

/// The part of the response that is needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Capacity {
    /// Whether the bytes fit.
    pub(crate) fits: bool,
    /// Whether the cache knows which images are needed, and evicts only others.
    #[serde(default)]
    pub(crate) retention: bool,
}

/// Whether a cache evicts to have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MakeRoom {
    /// Nothing: it answers for the space that is free.
    No,
    /// It evicts what it may, as a write would.
    Evict,
}

impl RegistryClient {
    /// Asks the cache whether it has room for `bytes` more; `None` if it cannot tell: another registry, or an older
    /// version. `repository` selects the credential. The bytes are of `image`: nothing is evicted for it while no cluster
    /// needs it.
    ///
    /// # Errors
    /// Fails if the cache does not respond.
    pub(crate) async fn capacity(
        &self,
        repository: &RepositoryName,
        image: &SourceImage,
        bytes: u64,
        make_room: MakeRoom,
    ) -> Result<Option<Capacity>, SourceError> {
        let origin = self.origin(repository).await?;
        let method = match make_room {
            MakeRoom::No => Method::GET,
            MakeRoom::Evict => Method::POST,
        };
        let what = format!("{method} capacity from {}", origin.upstream.base());
        let uri = uri(&origin, bytes)
            .map_err(|error| SourceError::caused_by(SourceErrorKind::Unsupported, &*what, error))?;
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        if let Some(name) = name(image) {
            headers.insert(HeaderName::from_static(IMAGE_HEADER), name);
        }
        let request = origin.build_request(what, method, uri, headers, Bytes::new());
        let response = origin.send_request(request).await?;
        if response.answer.status() != StatusCode::OK {
            origin.discard_body(response).await;
            return Ok(None);
        }
        let (_, _, body) = origin.small_body(response).await?;
        Ok(serde_json::from_slice(&body).ok())
    }
}

/// Returns the name of an image in the cache.
fn name(image: &SourceImage) -> Option<HeaderValue> {
    let repository = image.repository().encoded().ok()?;
    HeaderValue::try_from(format!("{repository}:{}", image.cache_tag())).ok()
}

/// Returns the URL of the endpoint: at the root of the host, whatever path the registry has.
fn uri(origin: &RepositoryEndpoint, bytes: u64) -> Result<Uri, http::Error> {
    let base: Uri = origin.upstream.base().parse()?;
    let mut parts = base.into_parts();
    parts.path_and_query = Some(format!("/kuik/v1/capacity?bytes={bytes}").parse()?);
    Ok(Uri::from_parts(parts)?)
}
