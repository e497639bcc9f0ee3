//! The upstreams that a configuration names: by default, each repository's own registry over https.

use std::{
    str::FromStr as _,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use http::Uri;

use super::{
    InvalidUpstream, Upstream, UpstreamResolver, UpstreamRule,
    guard::{Guard, HostPort},
    rule::canonical,
};
use crate::{
    content::{SourceError, SourceErrorKind},
    reference::RepositoryName,
};

/// Resolves registries by name, with the exceptions that it is given.
///
/// Docker Hub (`docker.io`) is at `registry-1.docker.io`. Other registries are at `https://` and their name, those
/// that are configured as insecure at `http://`. What a rule covers has the upstreams of that rule.
///
/// ```
/// use kuik_core::registry::{Alternative, Upstreams, UpstreamRule};
///
/// let upstreams = Upstreams::default()
///     .insecure("registry.test:5000")?
///     .overriding("quay.io=https://mirror.example")?
///     .with_rule(UpstreamRule::new("docker.io")?.with_alternative(Alternative::new("https://mirror.gcr.io")?))?;
/// # Ok::<(), kuik_core::registry::InvalidUpstream>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    insecure: Vec<HostPort>,
    /// The most specific one first.
    rules: Vec<UpstreamRule>,
    guard: Guard,
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

    /// Adds an override, `PREFIX=URL`: what begins with the prefix is fetched from there alone. The URL's host may be at
    /// any address.
    ///
    /// # Errors
    /// Where the text is not `PREFIX=URL`, or the prefix has upstreams already.
    pub fn overriding(self, text: &str) -> Result<Self, InvalidUpstream> {
        self.with_rule(UpstreamRule::moved(text)?)
    }

    /// Adds a rule. The hosts that it names may be at any address.
    ///
    /// # Errors
    /// Where there is a rule for its prefix already.
    pub fn with_rule(mut self, rule: UpstreamRule) -> Result<Self, InvalidUpstream> {
        if self.rules.iter().any(|other| other.prefix() == rule.prefix()) {
            return Err(InvalidUpstream::Twice(rule.prefix()));
        }
        self.guard = rule.named().fold(self.guard, |guard, (host, http)| guard.naming(host, http));
        self.rules.push(rule);
        self.rules.sort_by_key(|rule| std::cmp::Reverse(rule.weight()));
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

    fn find(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError> {
        let registry = canonical(repository.registry());
        let itself = Upstream::at(self.base_of(registry), repository.clone());
        let rule = self.rules.iter().find(|rule| rule.covers(registry, repository.path()));
        let row =
            rule.map_or_else(|| vec![itself.clone()], |rule| rule.row(registry, repository, itself.clone()));
        if row.is_empty() {
            let attempted = format!("find {repository}: the configuration leaves it no upstream");
            return Err(SourceError::new(SourceErrorKind::Forbidden, attempted));
        }
        Ok(row)
    }
}

#[async_trait]
impl UpstreamResolver for Upstreams {
    async fn upstreams(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError> {
        self.find(repository)
    }

    fn guard(&self) -> Guard {
        self.guard.clone()
    }
}

/// Upstreams that change while they are used: the clones are one, and what one of them is set to, the next question to
/// any of them sees. For whoever follows a cluster's configuration by watching it.
#[derive(Debug, Clone)]
pub struct LiveUpstreams {
    now: Arc<RwLock<Arc<Upstreams>>>,
    guard: Guard,
}

impl LiveUpstreams {
    /// These, until it is set to others.
    #[must_use]
    pub fn new(upstreams: Upstreams) -> Self {
        let guard = Guard::default();
        guard.become_like(&upstreams.guard);
        Self { now: Arc::new(RwLock::new(Arc::new(upstreams))), guard }
    }

    /// These from now on.
    pub fn set(&self, upstreams: Upstreams) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        self.guard.become_like(&upstreams.guard);
        *now = Arc::new(upstreams);
    }

    fn now(&self) -> Arc<Upstreams> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl UpstreamResolver for LiveUpstreams {
    async fn upstreams(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError> {
        self.now().find(repository)
    }

    fn guard(&self) -> Guard {
        self.guard.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(upstreams: &Upstreams, registry: &str) -> String {
        let repository = RepositoryName::new(registry, "library/nginx").unwrap();
        let upstream = upstreams.find(&repository).unwrap().remove(0);
        upstream.url(upstream.path_of(&repository), "tags/list").unwrap().to_string()
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
        let upstream = upstreams.find(&repository).unwrap().remove(0);
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

    #[test]
    fn the_longest_prefix_counts_and_each_has_one_rule() {
        let to = |prefix: &str, url: &str| UpstreamRule::moved(&format!("{prefix}={url}")).unwrap();
        let upstreams = Upstreams::default()
            .with_rule(to("docker.io", "https://all.example"))
            .unwrap()
            .with_rule(to("docker.io/library/nginx", "https://nginx.example"))
            .unwrap()
            .with_rule(to("docker.io/library", "https://library.example"))
            .unwrap();
        for (repository, host) in [
            ("nginx", "nginx.example"),
            ("alpine", "library.example"),
            ("team/app", "all.example"),
            ("quay.io/team/app", "quay.io"),
        ] {
            let repository: RepositoryName = repository.parse().unwrap();
            let row = upstreams.find(&repository).unwrap();
            assert_eq!(row[0].base(), format!("https://{host}"), "{repository}");
        }
        let twice = upstreams.with_rule(to("index.docker.io/library", "https://other.example"));
        assert_eq!(twice.unwrap_err().to_string(), "docker.io/library has upstreams already");
    }

    #[tokio::test]
    async fn what_changes_is_seen_by_the_next_question() {
        let live = LiveUpstreams::new(Upstreams::default());
        let (seen, guard) = (live.clone(), UpstreamResolver::guard(&live));
        let nginx: RepositoryName = "nginx".parse().unwrap();
        let base = async || seen.upstreams(&nginx).await.unwrap()[0].base().to_owned();
        assert_eq!(base().await, "https://registry-1.docker.io");
        let uri = "http://127.0.0.1:5000/v2/".parse().unwrap();
        assert!(guard.check(&uri, false).is_err());
        live.set(Upstreams::default().overriding("docker.io=http://127.0.0.1:5000").unwrap());
        assert_eq!(base().await, "http://127.0.0.1:5000");
        assert!(guard.check(&uri, false).is_ok(), "the guard that was handed out follows");
    }
}
