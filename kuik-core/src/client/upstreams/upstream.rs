//! Upstream of a repository, and the resolver trait.

use std::{fmt, str::FromStr as _};

use async_trait::async_trait;
use http::Uri;

use crate::client::transport::{
    guard::Guard,
    host_port::{HostPort, InvalidHostPort},
};
use crate::{content::SourceError, failover::Role, reference::RepositoryName};

/// Resolves the upstreams of repositories.
///
/// It is called for every registry request, so it must answer from memory: a resolver that follows a cluster is updated
/// by a watch, and a pull costs no API call. [`LiveUpstreams`](crate::client::LiveUpstreams) is one.
#[async_trait]
pub trait UpstreamResolver: fmt::Debug + Send + Sync + 'static {
    /// Returns the upstreams of `repository` in the order in which they are tried. The role of each decides what its
    /// failure means for the next ([`Role::on_error`]).
    ///
    /// # Errors
    /// Returns `Forbidden` if no upstream is allowed, `Unavailable` if the upstreams are not known now.
    async fn upstreams(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError>;

    /// Returns the hosts that the configuration names, which are exempt from the rules of [`Guard`]. It is called once:
    /// a resolver that changes updates this guard too ([`Guard::become_like`]).
    fn guard(&self) -> Guard {
        Guard::default()
    }
}

/// An upstream registry, the repository's path at it, and its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    base: String,
    /// `None` is the repository's own path.
    path: Option<String>,
    credentials_of: RepositoryName,
    role: Role,
    digests_only: bool,
    /// Whether credentials are looked up for the requested repository at this registry.
    is_whole_registry: bool,
}

/// A mistake in the configuration of upstreams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpstream {
    /// An insecure registry that is not `HOST[:PORT]`.
    #[error("{0}")]
    Host(#[from] InvalidHostPort),
    /// An invalid URL.
    #[error("{text:?}: {problem}")]
    Url {
        /// The text, with possible passwords removed.
        text: String,
        /// The problem.
        problem: &'static str,
    },
    /// A text that is not `PREFIX=URL`.
    #[error("{text:?} is not PREFIX=URL: {problem}")]
    Override {
        /// The text, with possible passwords removed.
        text: String,
        /// The problem.
        problem: &'static str,
    },
    /// An invalid prefix.
    #[error("{text:?} is not a registry, with or without the beginning of a path: {problem}")]
    Prefix {
        /// The text.
        text: String,
        /// The problem.
        problem: String,
    },
    /// Two rules for one prefix.
    #[error("{0} already has upstreams")]
    Twice(String),
}

impl Upstream {
    /// Returns the registry at `base` (`https://registry.example`, with or without a path), with the role of origin.
    /// `credentials_of` is the name for the credential lookup.
    ///
    /// A path is inserted before `/v2/`, unless it has a `v2` component: with `https://harbor.example/v2/hub`, the
    /// request is for `/v2/hub/library/nginx/…`, as a proxy-cache project expects it.
    ///
    /// # Errors
    /// Fails if `base` is not an http or https URL without query.
    pub fn new(base: &str, credentials_of: RepositoryName) -> Result<Self, InvalidUpstream> {
        let (base, _) = checked_base(base)?;
        Ok(Self::at(base, credentials_of))
    }

    /// Like [`new`](Self::new), for a registry with all its repositories, such as a cache: credentials are looked up for
    /// the requested repository at the host of `base`.
    ///
    /// ```
    /// use kuik_core::client::Upstream;
    ///
    /// let cache = Upstream::registry("http://cache.example:5000")?;
    /// assert_eq!(cache.credentials_of().registry(), "cache.example:5000");
    /// # Ok::<(), kuik_core::client::InvalidUpstream>(())
    /// ```
    ///
    /// # Errors
    /// Fails if `base` is not an http or https URL without query, or its host is not a registry.
    pub fn registry(base: &str) -> Result<Self, InvalidUpstream> {
        let (checked, uri) = checked_base(base)?;
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let credentials_of = RepositoryName::new(host, "registry").map_err(|_| InvalidUpstream::Url {
            text: redacted(base),
            problem: "the host of the URL is not a registry",
        })?;
        Ok(Self { is_whole_registry: true, ..Self::at(checked, credentials_of) })
    }

    /// Like [`new`](Self::new), with a checked base.
    pub(crate) fn at(base: String, credentials_of: RepositoryName) -> Self {
        let (role, digests_only, is_whole_registry) = (Role::Origin, false, false);
        Self { base, path: None, credentials_of, role, digests_only, is_whole_registry }
    }

    /// Sets the repository's path at this upstream; by default it is the same everywhere.
    #[must_use]
    pub fn with_path(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// Marks it as a copy: its 404 is not final.
    #[must_use]
    pub fn as_copy(self) -> Self {
        Self { role: Role::Copy, ..self }
    }

    /// Restricts it to requests by digest, for a copy with possibly stale tags.
    #[must_use]
    pub fn digests_only(self) -> Self {
        Self { digests_only: true, ..self }
    }

    /// Returns the base URL, for messages.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the name for the credential lookup: the credentials of a registry are not sent to its mirror.
    #[must_use]
    pub fn credentials_of(&self) -> &RepositoryName {
        &self.credentials_of
    }

    /// Returns its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns whether it is used only for requests by digest.
    #[must_use]
    pub fn is_for_digests_only(&self) -> bool {
        self.digests_only
    }

    /// Returns the path of `repository` at this upstream.
    #[must_use]
    pub fn path_of<'a>(&'a self, repository: &'a RepositoryName) -> &'a str {
        self.path.as_deref().unwrap_or_else(|| repository.path())
    }

    /// Returns the URL of the version check (`/v2/`): whether the registry responds at all.
    ///
    /// # Errors
    /// Fails if the base is no URL, which [`Upstream::new`] has checked.
    pub fn ping(&self) -> Result<Uri, http::uri::InvalidUri> {
        if self.is_versioned() {
            let origin: Vec<_> = self.base.split('/').take(3).collect();
            return Uri::from_str(&format!("{}/v2/", origin.join("/")));
        }
        Uri::from_str(&format!("{}/v2/", self.base))
    }

    /// Whether the base has a `v2` component.
    fn is_versioned(&self) -> bool {
        self.base.split('/').skip(3).any(|component| component == "v2")
    }

    /// Returns the URL of `rest` (`manifests/latest`) in the repository at `path`.
    pub(crate) fn url(&self, path: &str, rest: &str) -> Result<Uri, http::uri::InvalidUri> {
        let version = if self.is_versioned() { "" } else { "/v2" };
        Uri::from_str(&format!("{}{version}/{path}/{rest}", self.base))
    }
}

/// A single registry with every repository under its own path: a cache. No other host is contacted, and it may have any
/// address.
#[async_trait]
impl UpstreamResolver for Upstream {
    async fn upstreams(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError> {
        let mut upstream = self.clone();
        let registry = self.credentials_of.registry();
        if self.is_whole_registry
            && let Ok(name) = RepositoryName::new(registry, self.path_of(repository))
        {
            upstream.credentials_of = name;
        }
        Ok(vec![upstream])
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

/// Returns the host of a base URL, with its port. Without an explicit port, only the scheme's default is meant: naming
/// a URL does not exempt every port of its host.
pub(crate) fn named_host(uri: &Uri) -> Result<HostPort, InvalidHostPort> {
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let default_port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    match uri.port_u16() {
        Some(_) => authority.parse(),
        None => format!("{authority}:{default_port}").parse(),
    }
}

/// Parses a base URL; returns it without trailing slash.
pub(crate) fn checked_base(url: &str) -> Result<(String, Uri), InvalidUpstream> {
    let wrong = |problem| InvalidUpstream::Url { text: redacted(url), problem };
    let base = url.trim_end_matches('/');
    let uri: Uri = base.parse().map_err(|_| wrong("the URL cannot be parsed"))?;
    let authority = uri.authority().ok_or_else(|| wrong("the URL has no host"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("the URL does not begin with https:// or http://"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("the URL contains credentials: put them into the docker config instead"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(wrong("the URL has no host, or an empty port"));
    }
    if base.contains(['?', '#']) {
        return Err(wrong("the URL has a query or a fragment"));
    }
    Ok((base.to_owned(), uri))
}

/// Returns the text without anything before an `@`, which may be a password.
pub(crate) fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}
