//! Where a repository is fetched from: by default its own registry over https.

use std::{collections::BTreeMap, fmt, str::FromStr as _};

use async_trait::async_trait;
use http::Uri;

use super::guard::{Guard, HostPort, InvalidHostPort};
use crate::{
    content::{SourceError, SourceErrorKind},
    reference::RepositoryName,
};

/// Says where a repository is fetched from.
#[async_trait]
pub trait UpstreamResolver: fmt::Debug + Send + Sync + 'static {
    /// Where `repository` is fetched from.
    ///
    /// # Errors
    /// `Forbidden` where it may not be fetched from anywhere, `Unavailable` where that is not known now.
    async fn upstream(&self, repository: &RepositoryName) -> Result<Upstream, SourceError>;

    /// The hosts that the configuration names, which are exempt from the rules of [`Guard`].
    fn guard(&self) -> Guard {
        Guard::default()
    }
}

/// An upstream registry, and what the repository is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    base: String,
    credentials_of: RepositoryName,
}

/// Resolves registries by name, with the exceptions that it is given.
///
/// Docker Hub (`docker.io`) is at `registry-1.docker.io`. Other registries are at `https://` and their name, those
/// that are configured as insecure at `http://`, and those with an override at its URL.
///
/// ```
/// use kuik_core::registry::Upstreams;
///
/// let upstreams = Upstreams::default()
///     .insecure("registry.test:5000")?
///     .overriding("docker.io=https://mirror.example")?;
/// # Ok::<(), kuik_core::registry::InvalidUpstream>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    insecure: Vec<HostPort>,
    overrides: BTreeMap<String, String>,
    guard: Guard,
}

/// A mistake in the configuration of upstreams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpstream {
    /// An insecure registry that is not `HOST[:PORT]`.
    #[error("{0}")]
    Host(#[from] InvalidHostPort),
    /// An override that is not `REGISTRY=URL`.
    #[error("{text:?} is not REGISTRY=URL: {problem}")]
    Override {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Upstream {
    /// The registry at `base` (`https://registry.example`, with or without a path). `credentials_of` is the name
    /// under which its credentials are looked up.
    ///
    /// A path is put before `/v2/`, unless it has a `v2` component itself: `https://harbor.example/v2/hub` is asked
    /// for `/v2/hub/library/nginx/…`, as a project that proxies another registry wants it.
    ///
    /// # Errors
    /// Where `base` is not an http or https URL without query.
    pub fn new(base: &str, credentials_of: RepositoryName) -> Result<Self, InvalidUpstream> {
        Ok(Self { base: checked_base(base, base)?.0, credentials_of })
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
    async fn upstream(&self, _: &RepositoryName) -> Result<Upstream, SourceError> {
        Ok(self.clone())
    }

    fn guard(&self) -> Guard {
        let guard = Guard::default();
        let Ok((_, uri)) = checked_base(&self.base, &self.base) else { return guard };
        match named_host(&uri) {
            Ok(host) => guard.naming(host, uri.scheme_str() == Some("http")),
            Err(_) => guard,
        }
    }
}

impl Upstreams {
    /// Adds a registry that is contacted over plain http, `HOST[:PORT]`. It may be at any address.
    ///
    /// # Errors
    /// Where the text is not `HOST[:PORT]`.
    pub fn insecure(mut self, host: &str) -> Result<Self, InvalidUpstream> {
        let host = HostPort::from_str(host)?;
        self.guard = self.guard.naming(host.clone(), true);
        self.insecure.push(host);
        Ok(self)
    }

    /// Adds an override, `REGISTRY=URL`: the registry is fetched from there. The URL's host may be at any address.
    ///
    /// # Errors
    /// Where the text is not `REGISTRY=URL`.
    pub fn overriding(mut self, text: &str) -> Result<Self, InvalidUpstream> {
        let wrong = |problem| InvalidUpstream::Override { text: redacted(text), problem };
        let (registry, url) = text.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        if RepositoryName::new(registry, "image").is_err() {
            return Err(wrong("there is no registry before the '='"));
        }
        if self.overrides.contains_key(canonical(registry)) {
            return Err(wrong("this registry has an override already"));
        }
        let (base, uri) = checked_base(url, text)?;
        self.guard = self.guard.naming(named_host(&uri)?, uri.scheme_str() == Some("http"));
        self.overrides.insert(canonical(registry).to_owned(), base);
        Ok(self)
    }

    fn base_of(&self, registry: &str) -> String {
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let plain = format!("http://{host}");
        let insecure =
            plain.parse::<Uri>().is_ok_and(|uri| self.insecure.iter().any(|named| named.covers(&uri)));
        if insecure { plain } else { format!("https://{host}") }
    }

    fn find(&self, repository: &RepositoryName) -> Result<Upstream, SourceError> {
        let registry = canonical(repository.registry());
        let Some(base) = self.overrides.get(registry) else {
            return Ok(Upstream { base: self.base_of(registry), credentials_of: repository.clone() });
        };
        let host = base.split('/').nth(2).unwrap_or_default();
        let credentials_of = RepositoryName::new(host, repository.path()).map_err(|error| {
            SourceError::caused_by(SourceErrorKind::Forbidden, format!("{repository} at {base}"), error)
        })?;
        Ok(Upstream { base: base.clone(), credentials_of })
    }
}

#[async_trait]
impl UpstreamResolver for Upstreams {
    async fn upstream(&self, repository: &RepositoryName) -> Result<Upstream, SourceError> {
        self.find(repository)
    }

    fn guard(&self) -> Guard {
        self.guard.clone()
    }
}

fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    }
}

/// The host of a base URL, with its port. Without one, only the scheme's own is meant: naming a URL does not open
/// every port of its host.
fn named_host(uri: &Uri) -> Result<HostPort, InvalidHostPort> {
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let default_port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    match uri.port_u16() {
        Some(_) => authority.parse(),
        None => format!("{authority}:{default_port}").parse(),
    }
}

/// A base URL without the slash at its end, and as a URI. `text` is what the error names.
fn checked_base(url: &str, text: &str) -> Result<(String, Uri), InvalidUpstream> {
    let wrong = |problem| InvalidUpstream::Override { text: redacted(text), problem };
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
fn redacted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(upstreams: &Upstreams, registry: &str) -> String {
        let repository = RepositoryName::new(registry, "library/nginx").unwrap();
        let upstream = upstreams.find(&repository).unwrap();
        upstream.url(repository.path(), "tags/list").unwrap().to_string()
    }

    #[test]
    fn registries_are_at_their_names() {
        let upstreams = Upstreams::default()
            .insecure("plain.example:5000")
            .unwrap()
            .insecure("10.0.0.1")
            .unwrap()
            .overriding("ghcr.io=https://mirror.example/path/")
            .unwrap()
            .overriding("quay.io=http://harbor.example:8080/v2/quay")
            .unwrap();
        for (registry, expected) in [
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("index.docker.io", "https://registry-1.docker.io/v2/"),
            ("registry.example:5000", "https://registry.example:5000/v2/"),
            ("plain.example:5000", "http://plain.example:5000/v2/"),
            ("plain.example:5001", "https://plain.example:5001/v2/"),
            ("10.0.0.1:77", "http://10.0.0.1:77/v2/"),
            ("[::1]:77", "https://[::1]:77/v2/"),
            ("ghcr.io", "https://mirror.example/path/v2/"),
            ("quay.io", "http://harbor.example:8080/v2/quay/"),
        ] {
            assert_eq!(url(&upstreams, registry), format!("{expected}library/nginx/tags/list"), "{registry}");
        }
    }

    #[test]
    fn a_mirror_gets_its_own_credentials_and_exemption() {
        let upstreams = Upstreams::default().overriding("docker.io=http://127.0.0.1:5000").unwrap();
        let repository = RepositoryName::new("docker.io", "library/nginx").unwrap();
        let upstream = upstreams.find(&repository).unwrap();
        assert_eq!(upstream.credentials_of().registry(), "127.0.0.1:5000");
        let allowed = |uri: &str| upstreams.guard().check(&uri.parse().unwrap(), false).is_ok();
        assert!(allowed("http://127.0.0.1:5000/v2/"));
        assert!(!allowed("http://127.0.0.1:5001/v2/"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("docker.io", "no '='"),
            ("=https://a", "no registry before"),
            ("Bad Name=https://a", "no registry"),
            ("a.example=b.example", "https://"),
            ("a.example=ftp://b", "https://"),
            ("a.example=https://u:hunter2@b", "credentials"),
            ("a.example=https://b?x", "query"),
            ("a.example=https://b:/", "empty port"),
        ] {
            let error = Upstreams::default().overriding(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert!(Upstreams::default().insecure("http://a").is_err());
    }
}
