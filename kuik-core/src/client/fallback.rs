//! Ordered fallback over the upstreams of a repository.
//!
//! The role of an upstream decides what its failure means: a 404, denial or rate limit of a mirror falls through to the
//! next upstream; that of the origin is final. Each upstream gets a share of the remaining time, so that a slow one
//! leaves time for the next. Only the last upstream is retried, if its failure may be transient.

use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use tokio::time::{Instant, sleep};

use super::{RegistryClient, Upstream, api::endpoint::RepositoryEndpoint};
use crate::{
    content::{Digest, SourceError, SourceErrorKind, TagOrDigest},
    failover::{OnError, Role, most_actionable},
    reference::RepositoryName,
};

/// The longest time for an upstream that is not the last.
const LONGEST_SHARE: Duration = Duration::from_secs(6);

/// The kind of request, as far as the order of upstreams depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    Manifest(&'a TagOrDigest),
    Blob(&'a Digest),
    /// Lists of tags or referrers.
    Lists,
}

/// Sorts the upstreams for a request. `is_avoided` tells whether the upstream at a base URL recently sent corrupt
/// content for this digest.
fn order(upstreams: Vec<Upstream>, wanted: Wanted<'_>, is_avoided: impl Fn(&str) -> bool) -> Vec<Upstream> {
    let by_digest = match wanted {
        Wanted::Manifest(TagOrDigest::Digest(_)) | Wanted::Blob(_) => true,
        Wanted::Manifest(TagOrDigest::Tag(_)) | Wanted::Lists => false,
    };
    let mut upstreams: Vec<_> =
        upstreams.into_iter().filter(|one| by_digest || !one.is_for_digests_only()).collect();
    match wanted {
        // A mirror lists only what it has; the origin's list is complete.
        Wanted::Lists => upstreams.sort_by_key(|one| one.role() != Role::Origin),
        _ => upstreams.sort_by_key(|one| is_avoided(one.base())),
    }
    upstreams
}

/// Returns the share of the remaining time for an upstream if `remaining` upstreams remain, including itself.
fn share(left: Duration, remaining: usize) -> Duration {
    match u32::try_from(remaining) {
        Ok(remaining) if remaining > 1 => (left / remaining).min(LONGEST_SHARE),
        _ => left,
    }
}

/// Returns whether a failure may be transient. Not after a timeout, or if the host set a `Retry-After`.
fn may_pass(error: &SourceError) -> bool {
    error.kind() == SourceErrorKind::Unavailable && error.retry_after().is_none()
}

impl RegistryClient {
    /// Returns the first successful result. `send` sends the request to one upstream.
    pub(super) async fn first_success<'a, T>(
        &'a self,
        repository: &RepositoryName,
        wanted: Wanted<'_>,
        send: impl Fn(RepositoryEndpoint) -> BoxFuture<'a, Result<T, SourceError>> + Send,
    ) -> Result<T, SourceError> {
        let end = Instant::now() + self.sender.timeouts.answer;
        let upstreams = self.resolver.upstreams(repository).await?;
        let digest = match wanted {
            Wanted::Manifest(TagOrDigest::Digest(digest)) | Wanted::Blob(digest) => Some(digest),
            _ => None,
        };
        let upstreams = order(upstreams, wanted, |base| {
            digest.is_some_and(|digest| self.corrupt.contains(base, digest, Instant::now()))
        });
        let mut failure = None;
        let count = upstreams.len();
        for (at, upstream) in upstreams.into_iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let deadline = Instant::now() + share(left, count - at);
            let endpoint = RepositoryEndpoint {
                client: self.clone(),
                repository: repository.clone(),
                upstream,
                deadline,
            };
            let is_last = at + 1 == count;
            let error = match self.with_retries(&endpoint, is_last, &send).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(digest) = digest
                && error.kind() == SourceErrorKind::InvalidContent
            {
                self.corrupt.add(endpoint.upstream.base(), digest, Instant::now());
            }
            if endpoint.upstream.role().on_error(error.kind()) == OnError::Return {
                return Err(error);
            }
            if !is_last {
                tracing::debug!(error = error.chain(), "upstream failed, trying the next one");
            }
            failure = Some(most_actionable(failure, error));
        }
        Err(failure.unwrap_or_else(|| {
            let attempted = format!("find {repository}: no upstream is allowed for this request");
            SourceError::new(SourceErrorKind::Forbidden, attempted)
        }))
    }

    /// Sends the request to one upstream; retries with exponential backoff if it is the last.
    async fn with_retries<'a, T>(
        &'a self,
        endpoint: &RepositoryEndpoint,
        is_last: bool,
        send: &(impl Fn(RepositoryEndpoint) -> BoxFuture<'a, Result<T, SourceError>> + Send),
    ) -> Result<T, SourceError> {
        let mut retries = 0;
        loop {
            let error = match send(endpoint.clone()).await {
                Err(error) if is_last && may_pass(&error) => error,
                answered => return answered,
            };
            let Ok(uri) = endpoint.upstream.base().parse::<Uri>() else { return Err(error) };
            let hosts = &self.sender.hosts;
            let Some(wait) = hosts.of(&uri).retry(retries, hosts.chance()) else { return Err(error) };
            if Instant::now() + wait >= endpoint.deadline {
                return Err(error);
            }
            tracing::debug!(error = error.chain(), ?wait, "upstream failed, retrying");
            sleep(wait).await;
            retries += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(base: &str) -> Upstream {
        Upstream::new(&format!("https://{base}"), "app".parse().unwrap()).unwrap()
    }

    #[test]
    fn order_depends_on_the_kind_of_request() {
        let upstreams = || {
            vec![
                upstream("mirror").as_copy(),
                upstream("digests").as_copy().digests_only(),
                upstream("origin"),
                upstream("replica").as_copy(),
            ]
        };
        let bases = |wanted, corrupt: &str| -> Vec<String> {
            let corrupt = format!("https://{corrupt}");
            let ordered = order(upstreams(), wanted, |base| base == corrupt);
            ordered.iter().map(|one| one.base().replace("https://", "")).collect()
        };
        let digest = Digest::sha256(b"x");
        let tag = TagOrDigest::Tag("v1".parse().unwrap());
        let by_digest = TagOrDigest::Digest(digest.clone());
        let all = ["mirror", "digests", "origin", "replica"];
        assert_eq!(bases(Wanted::Manifest(&tag), ""), ["mirror", "origin", "replica"]);
        assert_eq!(bases(Wanted::Manifest(&by_digest), ""), all);
        assert_eq!(bases(Wanted::Blob(&digest), ""), all);
        assert_eq!(bases(Wanted::Blob(&digest), "mirror"), ["digests", "origin", "replica", "mirror"]);
        assert_eq!(bases(Wanted::Lists, ""), ["origin", "mirror", "replica"]);
    }

    #[test]
    fn share_divides_the_remaining_time() {
        let seconds = Duration::from_secs;
        for (left, remaining, expected) in
            [(18, 1, 18), (18, 2, 6), (12, 1, 12), (18, 3, 6), (18, 6, 3), (4, 2, 2), (0, 2, 0)]
        {
            assert_eq!(share(seconds(left), remaining), seconds(expected), "{left} {remaining}");
        }
    }

    #[test]
    fn only_transient_failures_are_retried() {
        use SourceErrorKind as Kind;
        for (kind, expected) in [
            (Kind::Unavailable, true),
            (Kind::TimedOut, false),
            (Kind::RateLimited, false),
            (Kind::NotFound, false),
            (Kind::Unauthorized, false),
            (Kind::InvalidContent, false),
        ] {
            assert_eq!(may_pass(&SourceError::new(kind, "x")), expected, "{kind:?}");
        }
        let with_retry_after =
            SourceError::new(Kind::Unavailable, "x").to_be_retried_after(Duration::from_secs(1));
        assert!(!may_pass(&with_retry_after));
    }
}
