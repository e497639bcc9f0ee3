//! Upstream configuration: by default, each repository's own registry over https.

pub(super) mod cache_endpoint;
pub(super) mod rule;
pub(super) mod upstream;

use std::{str::FromStr as _, sync::Arc};

use async_trait::async_trait;
use http::Uri;
use parking_lot::RwLock;

use super::{
    InvalidUpstream, Upstream, UpstreamResolver, UpstreamRule,
    transport::{guard::Guard, insecure::InsecureRegistry},
    upstreams::rule::canonical,
};
use crate::{
    content::{SourceError, SourceErrorKind},
    reference::RepositoryName,
};

/// Resolves the upstreams of a registry by its name, with configured exceptions.
///
/// Docker Hub (`docker.io`) is at `registry-1.docker.io`. Other registries are at `https://` and their name, except
/// [insecure](Self::insecure) ones. Repositories that a rule covers have the upstreams of that rule.
///
/// ```
/// use kuik_core::client::{Alternative, Upstreams, UpstreamRule};
///
/// let upstreams = Upstreams::default()
///     .insecure("registry.test:5000")?
///     .overriding("quay.io=https://mirror.example")?
///     .with_rule(UpstreamRule::new("docker.io")?.with_alternative(Alternative::new("https://mirror.gcr.io")?))?;
/// # Ok::<(), kuik_core::client::InvalidUpstream>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    insecure: Vec<InsecureRegistry>,
    /// Most specific first.
    rules: Vec<UpstreamRule>,
    guard: Guard,
}

impl Upstreams {
    /// Adds an insecure registry, which may have any address: `https://HOST[:PORT]` is contacted over TLS without
    /// verification of its certificate, `http://HOST[:PORT]` over plain HTTP. `HOST[:PORT]` is contacted over TLS without
    /// verification, or over plain HTTP if it does not speak TLS.
    ///
    /// # Errors
    /// Fails if the text is not `HOST[:PORT]`, with or without one of these schemes.
    pub fn insecure(mut self, registry: &str) -> Result<Self, InvalidUpstream> {
        let registry = InsecureRegistry::from_str(registry)?;
        self.guard = self.guard.naming_insecure(registry.clone());
        self.insecure.push(registry);
        Ok(self)
    }

    /// Adds an override, `PREFIX=URL`: repositories with this prefix are fetched only from there. The URL's host may
    /// have any address.
    ///
    /// # Errors
    /// Fails if the text is not `PREFIX=URL`, or the prefix already has a rule.
    pub fn overriding(self, text: &str) -> Result<Self, InvalidUpstream> {
        self.with_rule(UpstreamRule::moved(text)?)
    }

    /// Adds a rule. The hosts that it names may have any address.
    ///
    /// # Errors
    /// Fails if the prefix already has a rule.
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
        let allowed = |uri: &Uri| {
            self.insecure.iter().any(|registry| registry.allows_plain() && registry.host.covers(uri))
        };
        let may_be_plain = plain.parse::<Uri>().is_ok_and(|uri| allowed(&uri));
        if may_be_plain { plain } else { format!("https://{host}") }
    }

    fn find(&self, repository: &RepositoryName) -> Result<Vec<Upstream>, SourceError> {
        let registry = canonical(repository.registry());
        let origin = Upstream::at(self.base_of(registry), repository.clone());
        let rule = self.rules.iter().find(|rule| rule.covers(registry, repository.path()));
        let upstreams = rule.map_or_else(
            || vec![origin.clone()],
            |rule| rule.upstreams(registry, repository, origin.clone()),
        );
        if upstreams.is_empty() {
            let attempted = format!("find {repository}: the configuration allows no upstream for it");
            return Err(SourceError::new(SourceErrorKind::Forbidden, attempted));
        }
        Ok(upstreams)
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

/// Upstreams that can be replaced at runtime: clones share state, and the next request through any of them uses the new
/// ones. For components that follow a cluster's configuration with a watch.
#[derive(Debug, Clone)]
pub struct LiveUpstreams {
    now: Arc<RwLock<Arc<Upstreams>>>,
    guard: Guard,
}

impl LiveUpstreams {
    /// Starts with these upstreams.
    #[must_use]
    pub fn new(upstreams: Upstreams) -> Self {
        let guard = Guard::default();
        guard.become_like(&upstreams.guard);
        Self { now: Arc::new(RwLock::new(Arc::new(upstreams))), guard }
    }

    /// Replaces the upstreams.
    pub fn set(&self, upstreams: Upstreams) {
        let mut now = self.now.write();
        self.guard.become_like(&upstreams.guard);
        *now = Arc::new(upstreams);
    }

    fn now(&self) -> Arc<Upstreams> {
        self.now.read().clone()
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
    fn registry_url_derives_from_its_name() {
        let upstreams = Upstreams::default()
            .insecure("plain.example:5000")
            .unwrap()
            .insecure("10.0.0.1")
            .unwrap()
            .insecure("https://tls.example:5000")
            .unwrap()
            .insecure("http://plain.example:80/")
            .unwrap()
            .insecure("either.example:443")
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
            ("tls.example:5000", "https://tls.example:5000/v2/"),
            ("plain.example", "http://plain.example/v2/"),
            ("either.example", "https://either.example/v2/"),
            ("[::1]:77", "https://[::1]:77/v2/"),
            ("ghcr.io", "https://mirror.example/path/v2/"),
            ("quay.io", "http://harbor.example:8080/v2/quay/"),
        ] {
            assert_eq!(url(&upstreams, registry), format!("{expected}library/nginx/tags/list"), "{registry}");
        }
    }

    #[test]
    fn mirror_has_its_own_credentials_and_exemption() {
        let upstreams = Upstreams::default().overriding("docker.io=http://127.0.0.1:5000").unwrap();
        let repository = RepositoryName::new("docker.io", "library/nginx").unwrap();
        let upstream = upstreams.find(&repository).unwrap().remove(0);
        assert_eq!(upstream.credentials_of().registry(), "127.0.0.1:5000");
        let allowed = |uri: &str| upstreams.guard().check(&uri.parse().unwrap(), false).is_ok();
        assert!(allowed("http://127.0.0.1:5000/v2/"));
        assert!(!allowed("http://127.0.0.1:5001/v2/"));
    }

    #[test]
    fn invalid_overrides_are_reported() {
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
        assert!(Upstreams::default().insecure("ftp://a").is_err());
    }

    #[test]
    fn longest_prefix_wins_and_duplicates_are_rejected() {
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
            let upstreams = upstreams.find(&repository).unwrap();
            assert_eq!(upstreams[0].base(), format!("https://{host}"), "{repository}");
        }
        let twice = upstreams.with_rule(to("index.docker.io/library", "https://other.example"));
        assert_eq!(twice.unwrap_err().to_string(), "docker.io/library already has upstreams");
    }

    #[tokio::test]
    async fn replaced_upstreams_apply_to_the_next_request() {
        let live = LiveUpstreams::new(Upstreams::default());
        let (seen, guard) = (live.clone(), UpstreamResolver::guard(&live));
        let nginx: RepositoryName = "nginx".parse().unwrap();
        let base = async || seen.upstreams(&nginx).await.unwrap()[0].base().to_owned();
        assert_eq!(base().await, "https://registry-1.docker.io");
        let uri = "http://127.0.0.1:5000/v2/".parse().unwrap();
        assert!(guard.check(&uri, false).is_err());
        live.set(Upstreams::default().overriding("docker.io=http://127.0.0.1:5000").unwrap());
        assert_eq!(base().await, "http://127.0.0.1:5000");
        assert!(guard.check(&uri, false).is_ok(), "the guard follows the replacement");
    }
}
