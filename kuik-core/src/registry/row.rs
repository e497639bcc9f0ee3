//! The upstreams of a repository, asked in order until one can answer.
//!
//! What a failure means is the rule of the upstream's role: a mirror that lacks a thing, refuses it or is limited is
//! passed over, and the registry itself is believed. Each has its share of the time, so that one that hangs leaves some
//! for the next. Only the last that there is to ask is asked again, where it failed in a way that may pass.

use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use tokio::time::{Instant, sleep};

use super::{RegistryClient, Upstream, at::At};
use crate::{
    content::{Digest, SourceError, SourceErrorKind, TagOrDigest},
    failover::{Role, Verdict, most_useful},
    reference::RepositoryName,
};

/// How long an upstream has that is not the last.
const LONGEST_SHARE: Duration = Duration::from_secs(6);

/// What is asked for, as far as the order of upstreams depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    Manifest(&'a TagOrDigest),
    Blob(&'a Digest),
    /// Lists of tags or referrers.
    Lists,
}

/// The upstreams in the order in which they are asked. `is_avoided` says whether the base of one sent something else
/// than this content a moment ago.
fn order(row: Vec<Upstream>, wanted: Wanted<'_>, is_avoided: impl Fn(&str) -> bool) -> Vec<Upstream> {
    let by_digest = match wanted {
        Wanted::Manifest(TagOrDigest::Digest(_)) | Wanted::Blob(_) => true,
        Wanted::Manifest(TagOrDigest::Tag(_)) | Wanted::Lists => false,
    };
    let mut row: Vec<_> = row.into_iter().filter(|one| by_digest || !one.is_for_digests_only()).collect();
    match wanted {
        // A mirror lists what it happens to have: the registry itself knows what there is.
        Wanted::Lists => row.sort_by_key(|one| one.role() != Role::Origin),
        _ => row.sort_by_key(|one| is_avoided(one.base())),
    }
    row
}

/// How much of the time that is left an upstream has, where there are `asked` to ask, itself included.
fn share(left: Duration, asked: usize) -> Duration {
    match u32::try_from(asked) {
        Ok(asked) if asked > 1 => (left / asked).min(LONGEST_SHARE),
        _ => left,
    }
}

/// Whether a failure may have passed when the same is asked again. Who says when to come back, and who hung, has had
/// its chance.
fn may_pass(error: &SourceError) -> bool {
    error.kind() == SourceErrorKind::Unavailable && error.retry_after().is_none()
}

impl RegistryClient {
    /// The answer of the first upstream that has one; `ask` asks one of them.
    pub(super) async fn first<'a, T>(
        &'a self,
        repository: &RepositoryName,
        wanted: Wanted<'_>,
        ask: impl Fn(At) -> BoxFuture<'a, Result<T, SourceError>> + Send,
    ) -> Result<T, SourceError> {
        let end = Instant::now() + self.exchange.timeouts.answer;
        let row = self.resolver.upstreams(repository).await?;
        let digest = match wanted {
            Wanted::Manifest(TagOrDigest::Digest(digest)) | Wanted::Blob(digest) => Some(digest),
            _ => None,
        };
        let row = order(row, wanted, |base| {
            digest.is_some_and(|digest| self.avoided.contains(base, digest, Instant::now()))
        });
        let mut failure = None;
        let count = row.len();
        for (at, upstream) in row.into_iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let deadline = Instant::now() + share(left, count - at);
            let one = At { client: self.clone(), repository: repository.clone(), upstream, deadline };
            let is_last = at + 1 == count;
            let error = match self.patiently(&one, is_last, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(digest) = digest
                && error.kind() == SourceErrorKind::InvalidContent
            {
                self.avoided.add(one.upstream.base(), digest, Instant::now());
            }
            if one.upstream.role().verdict(error.kind()) == Verdict::Answer {
                return Err(error);
            }
            if !is_last {
                tracing::debug!(error = error.chain(), "an upstream cannot answer: the next one is asked");
            }
            failure = Some(most_useful(failure, error));
        }
        Err(failure.unwrap_or_else(|| {
            let attempted = format!("find {repository}: no upstream of it may be asked for this");
            SourceError::new(SourceErrorKind::Forbidden, attempted)
        }))
    }

    /// Asks one upstream, and again after a moment where there is nobody else to ask.
    async fn patiently<'a, T>(
        &'a self,
        one: &At,
        is_last: bool,
        ask: &(impl Fn(At) -> BoxFuture<'a, Result<T, SourceError>> + Send),
    ) -> Result<T, SourceError> {
        let mut made = 0;
        loop {
            let error = match ask(one.clone()).await {
                Err(error) if is_last && may_pass(&error) => error,
                answered => return answered,
            };
            let Ok(uri) = one.upstream.base().parse::<Uri>() else { return Err(error) };
            let hosts = &self.exchange.hosts;
            let Some(wait) = hosts.of(&uri).retry(made, hosts.chance()) else { return Err(error) };
            if Instant::now() + wait >= one.deadline {
                return Err(error);
            }
            tracing::debug!(error = error.chain(), ?wait, "an upstream failed: it is asked again");
            sleep(wait).await;
            made += 1;
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
    fn the_order_depends_on_what_is_asked_for() {
        let row = || {
            vec![
                upstream("mirror").as_copy(),
                upstream("digests").as_copy().digests_only(),
                upstream("origin"),
                upstream("replica").as_copy(),
            ]
        };
        let bases = |wanted, avoided: &str| -> Vec<String> {
            let avoided = format!("https://{avoided}");
            let ordered = order(row(), wanted, |base| base == avoided);
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
    fn each_has_its_share_of_the_time() {
        let seconds = Duration::from_secs;
        for (left, asked, expected) in
            [(18, 1, 18), (18, 2, 6), (12, 1, 12), (18, 3, 6), (18, 6, 3), (4, 2, 2), (0, 2, 0)]
        {
            assert_eq!(share(seconds(left), asked), seconds(expected), "{left} {asked}");
        }
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
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
        let told = SourceError::new(Kind::Unavailable, "x").to_be_retried_after(Duration::from_secs(1));
        assert!(!may_pass(&told));
    }
}
