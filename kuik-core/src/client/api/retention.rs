//! Retention documents at a cache: requests of kuik's own API, outside the OCI distribution API.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_TYPE, ETAG},
    uri::PathAndQuery,
};

use super::endpoint::ResponseContext;
use crate::{
    client::RegistryClient,
    content::{SourceError, SourceErrorKind},
    reference::RepositoryName,
    retention::{ClusterId, RETENTION_PATH},
};

/// Repository for which the requests authenticate. It need not exist.
const REPOSITORY: &str = "kuik/retention";

/// A request for a retention document failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// The registry has no such API: it is not kuik's, or an older version.
    #[error("the cache does not support retention documents")]
    Unsupported,
    /// The request failed.
    #[error("retention request failed")]
    Failed(#[source] SourceError),
}

impl From<SourceError> for RetentionError {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

impl RetentionError {
    /// Returns the error with its source chain, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        crate::error::chain(self)
    }
}

impl RegistryClient {
    /// Replaces the retention document of a cluster, which is renewed by that.
    ///
    /// # Errors
    /// Returns `Unsupported` if the registry has no such API.
    pub async fn put_retention(&self, cluster: &ClusterId, document: Bytes) -> Result<(), RetentionError> {
        let response = self.send_retention(Method::PUT, cluster, document).await?;
        match response.answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Err(RetentionError::Unsupported)
            }
            _ => Err(self.origin(&repository()?).await?.failure(response).await.into()),
        }
    }

    /// Returns the `ETag` of the retention document of a cluster; `None` if the cache has none that counts.
    ///
    /// # Errors
    /// Fails if the request fails.
    pub async fn retention_etag(&self, cluster: &ClusterId) -> Result<Option<String>, RetentionError> {
        let response = self.send_retention(Method::HEAD, cluster, Bytes::new()).await?;
        match response.answer.status() {
            StatusCode::OK => {
                let etag = response.answer.response.headers().get(ETAG);
                Ok(etag.and_then(|etag| etag.to_str().ok()).map(str::to_owned))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.origin(&repository()?).await?.failure(response).await.into()),
        }
    }

    async fn send_retention(
        &self,
        method: Method,
        cluster: &ClusterId,
        body: Bytes,
    ) -> Result<ResponseContext, SourceError> {
        let origin = self.origin(&repository()?).await?;
        let what = format!("{method} retention document of cluster {cluster} at {}", origin.upstream.base());
        let invalid =
            |error: http::Error| SourceError::caused_by(SourceErrorKind::Unsupported, what.clone(), error);
        let base = origin.url("", &what)?.into_parts();
        let path: PathAndQuery = format!("{RETENTION_PATH}{cluster}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| invalid(error.into()))?;
        let uri = Uri::builder()
            .scheme(base.scheme.unwrap_or(http::uri::Scheme::HTTP))
            .authority(base.authority.map_or_else(String::new, |authority| authority.to_string()))
            .path_and_query(path)
            .build()
            .map_err(invalid)?;
        let mut headers = HeaderMap::new();
        if method == Method::PUT {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        origin.send_request(origin.build_request(what.clone(), method, uri, headers, body)).await
    }
}

fn repository() -> Result<RepositoryName, SourceError> {
    RepositoryName::local(REPOSITORY).map_err(|error| {
        SourceError::caused_by(SourceErrorKind::Unsupported, "name a retention document", error)
    })
}
