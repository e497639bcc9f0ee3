//! Where a repository is fetched from: an upstream, and the trait of whoever knows the upstreams of a repository.

use std::{fmt, str::FromStr as _};

use async_trait::async_trait;
use http::Uri;

use super::guard::{Guard, HostPort, InvalidHostPort};
use crate::{content::SourceError, failover::Role, reference::RepositoryName};

/// Says where repositories are fetched from.
///
/// It is asked for every question that goes to a registry, so it answers from memory: one that follows a cluster is
/// kept up to date by whoever watches it, and a pull costs no call. [`LiveUpstreams`](super::LiveUpstreams) is such a one.
#[async_trait]
pub trait UpstreamResolver: fmt::Debug + Send + Sync + 'static {
    /// Where `repository` is fetched from: its upstreams in the order in which they are asked. What the failure of one
    /// means for the next is a rule of its role ([`Role::verdict`]).
    ///
    /// # Errors
    /// `Forbidden` where it may not be fetched from anywhere, `Unavailable` where that is not known now.
    async fn upstreams(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError>;

    /// The hosts that the configuration names, which are exempt from the rules of [`Guard`]. It is asked for once: a
    /// resolver that changes changes this guard too ([`Guard::become_like`]).
    fn guard(&self) -> Guard {
        Guard::default()
    }
}

/// An upstream registry, what the repository is called there, and what its word is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    base: String,
    /// `None` is the repository's own.
    path: Option<String>,
    credentials_of: RepositoryName,
    role: Role,
    digests_only: bool,
}

/// A mistake in the configuration of upstreams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpstream {
    /// An insecure registry that is not `HOST[:PORT]`.
    #[error("{0}")]
    Host(#[from] InvalidHostPort),
    /// A URL that no registry can be at.
    #[error("{text:?}: {problem}")]
    Url {
        /// What was given, without what may be a password.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A text that is not `PREFIX=URL`.
    #[error("{text:?} is not PREFIX=URL: {problem}")]
    Override {
        /// What was given, without what may be a password.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A prefix that no repository has.
    #[error("{text:?} is not a registry, with or without the beginning of a path: {problem}")]
    Prefix {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two rules for one prefix.
    #[error("{0} has upstreams already")]
    Twice(String),
}

impl Upstream {
    /// The registry at `base` (`https://registry.example`, with or without a path), as the origin of what it has.
    /// `credentials_of` is the name under which its credentials are looked up.
    ///
    /// A path is put before `/v2/`, unless it has a `v2` component itself: `https://harbor.example/v2/hub` is asked
    /// for `/v2/hub/library/nginx/…`, as a project that proxies another registry wants it.
    ///
    /// # Errors
    /// Where `base` is not an http or https URL without query.
    pub fn new(base: &str, credentials_of: RepositoryName) -> Result<Self, InvalidUpstream> {
        let (base, _) = checked_base(base)?;
        Ok(Self::at(base, credentials_of))
    }

    /// The same with a base that was checked.
    pub(super) fn at(base: String, credentials_of: RepositoryName) -> Self {
        Self { base, path: None, credentials_of, role: Role::Origin, digests_only: false }
    }

    /// The same, where the repository is called `path`; without this, it has the path that it has everywhere.
    #[must_use]
    pub fn with_path(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same, which may have a copy, and whose word is not the last.
    #[must_use]
    pub fn as_copy(self) -> Self {
        Self { role: Role::Copy, ..self }
    }

    /// The same, which is asked only for what is named by its digest: what tags it has may be old.
    #[must_use]
    pub fn digests_only(self) -> Self {
        Self { digests_only: true, ..self }
    }

    /// The base URL, for messages.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The name under which credentials are looked up: those of a registry are not sent to its mirror.
    #[must_use]
    pub fn credentials_of(&self) -> &RepositoryName {
        &self.credentials_of
    }

    /// What it is to the content.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it is asked only for what is named by its digest.
    #[must_use]
    pub fn is_for_digests_only(&self) -> bool {
        self.digests_only
    }

    /// What `repository` is called there.
    #[must_use]
    pub fn path_of<'a>(&'a self, repository: &'a RepositoryName) -> &'a str {
        self.path.as_deref().unwrap_or_else(|| repository.path())
    }

    /// The URL of `rest` (`manifests/latest`) in the repository at `path`.
    pub(super) fn url(&self, path: &str, rest: &str) -> Result<Uri, http::uri::InvalidUri> {
        let versioned = self.base.split('/').skip(3).any(|component| component == "v2");
        let version = if versioned { "" } else { "/v2" };
        Uri::from_str(&format!("{}{version}/{path}/{rest}", self.base))
    }
}

/// One registry that has everything, under the repositories' paths: a cache. Nothing else is ever contacted, and it may
/// be at any address.
#[async_trait]
impl UpstreamResolver for Upstream {
    async fn upstreams(&self, _: &RepositoryName) -> Result<Vec<Upstream>, SourceError> {
        Ok(vec![self.clone()])
    }

    fn guard(&self) -> Guard {
        let guard = Guard::default();
        let Ok((_, uri)) = checked_base(&self.base) else { return guard };
        match named_host(&uri) {
            Ok(host) => guard.naming(host, uri.scheme_str() == Some("http")),
            Err(_) => guard,
        }
    }
}

/// The host of a base URL, with its port. Without one, only the scheme's own is meant: naming a URL does not open
/// every port of its host.
pub(super) fn named_host(uri: &Uri) -> Result<HostPort, InvalidHostPort> {
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let default_port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    match uri.port_u16() {
        Some(_) => authority.parse(),
        None => format!("{authority}:{default_port}").parse(),
    }
}

/// A base URL without the slash at its end, and as a URI.
pub(super) fn checked_base(url: &str) -> Result<(String, Uri), InvalidUpstream> {
    let wrong = |problem| InvalidUpstream::Url { text: redacted(url), problem };
    let base = url.trim_end_matches('/');
    let uri: Uri = base.parse().map_err(|_| wrong("the URL cannot be parsed"))?;
    let authority = uri.authority().ok_or_else(|| wrong("the URL has no host"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("the URL does not begin with https:// or http://"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("the URL has credentials in it: put them into the docker config"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(wrong("the URL has no host, or an empty port"));
    }
    if base.contains(['?', '#']) {
        return Err(wrong("the URL has a query or a fragment"));
    }
    Ok((base.to_owned(), uri))
}

/// The text without what stands before an `@`, which may be a password.
pub(super) fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}
