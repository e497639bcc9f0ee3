//! Upstream rules: the mirrors and fallbacks of all repositories with a prefix, and their order.
//!
//! ```text
//! docker.io/library/nginx ──► policy Always    ──► the registry itself ──► policy OnFailure
//!                             (mirrors: copies)    (the origin)            (fallbacks: copies)
//! ```

use std::fmt;

use super::upstream::{InvalidUpstream, checked_base, named_host, redacted};
use crate::client::{Upstream, transport::host_port::HostPort};
use crate::reference::RepositoryName;

/// When an [`Alternative`] is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Before the registry itself: a mirror. It may still have what the registry has deleted.
    #[default]
    Always,
    /// After the registry itself failed: it was unavailable, too slow, rate limited, or sent invalid content. A 404 or
    /// a denial is a final response, not a failure.
    OnFailure,
}

/// Another registry that may have the content of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    base: String,
    host: HostPort,
    prefix: Option<String>,
    policy: Policy,
    digests_only: bool,
}

/// Whether, and at which URL, the registry of the image name itself is contacted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Source {
    /// At the URL of its name.
    #[default]
    Itself,
    /// At this URL instead.
    At(Alternative),
    /// Never: only the alternatives are used.
    Never,
}

/// The upstreams of every repository with a prefix: a registry (`docker.io`), or a registry and leading path components
/// (`docker.io/library`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRule {
    prefix: Prefix,
    alternatives: Vec<Alternative>,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix {
    registry: String,
    path: String,
}

impl Alternative {
    /// Returns the registry at `url`; see [`Upstream::new`] for the meaning of a path in it.
    ///
    /// # Errors
    /// Fails if it is not an http or https URL without query.
    pub fn new(url: &str) -> Result<Self, InvalidUpstream> {
        let (base, uri) = checked_base(url)?;
        let host = named_host(&uri)?;
        Ok(Self { base, host, prefix: None, policy: Policy::default(), digests_only: false })
    }

    /// Sets the repository prefix at this registry: `prefix` replaces the path of the rule's prefix. With the rule for
    /// `docker.io/library` and the prefix `hub`, `docker.io/library/nginx` is `hub/nginx` there.
    ///
    /// # Errors
    /// Fails if it is not a valid path prefix. It may be empty.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, InvalidUpstream> {
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() {
            checked_path(prefix, prefix)?;
        }
        Ok(Self { prefix: Some(prefix.to_owned()), ..self })
    }

    /// Sets the policy.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Restricts it to requests by digest.
    #[must_use]
    pub fn digests_only(self) -> Self {
        Self { digests_only: true, ..self }
    }

    /// Returns the host, and whether it is contacted over plain HTTP.
    fn named(&self) -> (HostPort, bool) {
        (self.host.clone(), self.base.starts_with("http:"))
    }

    /// Returns the upstream for `repository`; `rest` is its path after the rule's prefix. `None` if the repository has
    /// no valid name there.
    fn upstream(&self, repository: &RepositoryName, rest: &str) -> Option<Upstream> {
        let path = match self.prefix.as_deref() {
            None => repository.path().to_owned(),
            Some("") => rest.to_owned(),
            Some(prefix) if rest.is_empty() => prefix.to_owned(),
            Some(prefix) => format!("{prefix}/{rest}"),
        };
        let host = self.base.split('/').nth(2).unwrap_or_default();
        let port = if self.base.starts_with("http:") { 80 } else { 443 };
        // A name without a dot is a registry only with its port.
        let credentials_of = RepositoryName::new(host, &path)
            .or_else(|_| RepositoryName::new(&format!("{host}:{port}"), &path))
            .ok()?;
        let upstream = Upstream::at(self.base.clone(), credentials_of).with_path(path);
        Some(if self.digests_only { upstream.digests_only() } else { upstream })
    }
}

impl UpstreamRule {
    /// Creates a rule for `prefix`, without effect yet.
    ///
    /// # Errors
    /// Fails if no repository can have this prefix.
    pub fn new(prefix: &str) -> Result<Self, InvalidUpstream> {
        Ok(Self { prefix: Prefix::parse(prefix)?, alternatives: Vec::new(), source: Source::default() })
    }

    /// Creates the rule of `PREFIX=URL`: the registry itself is at that URL.
    ///
    /// # Errors
    /// Fails if the text does not have that form.
    pub fn moved(text: &str) -> Result<Self, InvalidUpstream> {
        let (rule, alternative) = Self::assigned(text)?;
        Ok(rule.with_source(Source::At(alternative)))
    }

    /// Returns the rule for the prefix of `PREFIX=URL`, and the alternative at its URL.
    ///
    /// # Errors
    /// Fails if the text does not have that form.
    pub fn assigned(text: &str) -> Result<(Self, Alternative), InvalidUpstream> {
        let wrong = |problem| InvalidUpstream::Override { text: redacted(text), problem };
        let (prefix, url) = text.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        let rule = Self::new(prefix).map_err(|_| wrong("there is no registry before the '='"))?;
        Ok((rule, Alternative::new(url)?))
    }

    /// Adds an alternative after those with the same policy.
    #[must_use]
    pub fn with_alternative(mut self, alternative: Alternative) -> Self {
        self.alternatives.push(alternative);
        self
    }

    /// Sets the source.
    #[must_use]
    pub fn with_source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// Adds the alternatives and the source, if any, of `other`.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        self.alternatives.extend(other.alternatives);
        match other.source {
            Source::Itself => self,
            source => Self { source, ..self },
        }
    }

    /// Returns the prefix as text.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.prefix.to_string()
    }

    /// Returns whether there is any upstream.
    #[must_use]
    pub fn has_upstreams(&self) -> bool {
        self.source != Source::Never || !self.alternatives.is_empty()
    }

    /// Returns the specificity: of the rules that cover a repository, the highest wins.
    pub(crate) fn weight(&self) -> usize {
        self.prefix.path.len()
    }

    pub(crate) fn covers(&self, registry: &str, path: &str) -> bool {
        self.prefix.rest(registry, path).is_some()
    }

    /// Returns every host that the rule names, and whether it is contacted over plain HTTP.
    pub(crate) fn named(&self) -> impl Iterator<Item = (HostPort, bool)> {
        let moved = match &self.source {
            Source::At(alternative) => Some(alternative),
            Source::Itself | Source::Never => None,
        };
        self.alternatives.iter().chain(moved).map(Alternative::named)
    }

    /// Returns the ordered upstreams of a covered repository; `origin` is the registry at the URL of its name.
    pub(crate) fn upstreams(
        &self,
        registry: &str,
        repository: &RepositoryName,
        origin: Upstream,
    ) -> Vec<Upstream> {
        let rest = self.prefix.rest(registry, repository.path()).unwrap_or_default();
        let copies = |policy| {
            let of_policy = self.alternatives.iter().filter(move |alternative| alternative.policy == policy);
            of_policy
                .filter_map(move |alternative| alternative.upstream(repository, rest))
                .map(Upstream::as_copy)
        };
        let source = match &self.source {
            Source::Itself => Some(origin),
            Source::At(alternative) => alternative.upstream(repository, rest),
            Source::Never => None,
        };
        copies(Policy::Always).chain(source).chain(copies(Policy::OnFailure)).collect()
    }
}

impl Prefix {
    fn parse(text: &str) -> Result<Self, InvalidUpstream> {
        let (registry, path) = text.split_once('/').unwrap_or((text, ""));
        let wrong = |error: &dyn fmt::Display| InvalidUpstream::Prefix {
            text: text.to_owned(),
            problem: error.to_string(),
        };
        RepositoryName::new(registry, "image").map_err(|error| wrong(&error))?;
        if text.contains('/') {
            checked_path(path, text)?;
        }
        Ok(Self { registry: canonical(registry).to_owned(), path: path.to_owned() })
    }

    /// Returns the rest of the path after the prefix, if the repository has the prefix.
    fn rest<'a>(&self, registry: &str, path: &'a str) -> Option<&'a str> {
        if registry != self.registry {
            return None;
        }
        match path.strip_prefix(self.path.as_str())? {
            rest if self.path.is_empty() || rest.is_empty() => Some(rest),
            rest => rest.strip_prefix('/'),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.path.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.registry, self.path)
    }
}

fn checked_path(path: &str, text: &str) -> Result<(), InvalidUpstream> {
    match RepositoryName::local(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(InvalidUpstream::Prefix { text: text.to_owned(), problem: error.to_string() }),
    }
}

/// Returns the canonical name of a registry with aliases.
pub(crate) fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::Role;

    fn alternative(url: &str) -> Alternative {
        Alternative::new(url).unwrap()
    }

    /// Returns the upstreams of a repository, each as `ROLE BASE PATH`.
    fn row(rule: &UpstreamRule, repository: &str) -> Vec<String> {
        let repository: RepositoryName = repository.parse().unwrap();
        let origin = Upstream::at("https://itself".to_owned(), repository.clone());
        let shown = |upstream: Upstream| {
            let role = if upstream.role() == Role::Copy { "copy" } else { "origin" };
            format!("{role} {} {}", upstream.base(), upstream.path_of(&repository))
        };
        rule.upstreams(repository.registry(), &repository, origin).into_iter().map(shown).collect()
    }

    #[test]
    fn mirrors_come_first_and_fallbacks_last() {
        let rule = UpstreamRule::new("docker.io")
            .unwrap()
            .with_alternative(alternative("https://replica").with_policy(Policy::OnFailure))
            .with_alternative(alternative("https://one"))
            .with_alternative(alternative("https://two"));
        let expected = [
            "copy https://one library/nginx",
            "copy https://two library/nginx",
            "origin https://itself library/nginx",
            "copy https://replica library/nginx",
        ];
        assert_eq!(row(&rule, "nginx"), expected);
        let never = rule.clone().with_source(Source::Never);
        assert_eq!(row(&never, "nginx"), [expected[0], expected[1], expected[3]]);
        let moved = rule.with_source(Source::At(alternative("https://moved")));
        assert_eq!(row(&moved, "nginx")[2], "origin https://moved library/nginx");
        assert!(!UpstreamRule::new("docker.io").unwrap().with_source(Source::Never).has_upstreams());
    }

    #[test]
    fn alternative_prefix_replaces_rule_prefix() {
        for (rule, prefix, repository, expected) in [
            ("docker.io", None, "nginx", "library/nginx"),
            ("docker.io", Some("hub"), "nginx", "hub/library/nginx"),
            ("docker.io", Some(""), "team/app", "team/app"),
            ("docker.io/library", None, "nginx", "library/nginx"),
            ("docker.io/library", Some("hub/official"), "nginx", "hub/official/nginx"),
            ("docker.io/library", Some("/hub/"), "nginx", "hub/nginx"),
            ("docker.io/library", Some(""), "nginx", "nginx"),
            ("quay.io/team/app", Some("apps/one"), "quay.io/team/app", "apps/one"),
        ] {
            let to = alternative("https://m");
            let to = prefix.map_or(Ok(to.clone()), |prefix| to.with_prefix(prefix)).unwrap();
            let rule = UpstreamRule::new(rule).unwrap().with_alternative(to).with_source(Source::Never);
            assert_eq!(row(&rule, repository), [format!("copy https://m {expected}")], "{rule:?}");
        }
        // Nothing remains of the name, so the alternative is skipped.
        let nowhere = alternative("https://m").with_prefix("").unwrap();
        let rule = UpstreamRule::new("quay.io/app").unwrap().with_alternative(nowhere);
        assert_eq!(row(&rule, "quay.io/app"), ["origin https://itself app"]);
    }

    #[test]
    fn prefixes_cover_whole_components() {
        for (prefix, registry, path, covered) in [
            ("docker.io", "docker.io", "library/nginx", true),
            ("index.docker.io", "docker.io", "library/nginx", true),
            ("docker.io/library", "docker.io", "library/nginx", true),
            ("docker.io/lib", "docker.io", "library/nginx", false),
            ("quay.io/team", "quay.io", "team", true),
            ("quay.io/team", "quay.io", "team2/app", false),
            ("quay.io", "quay.io:8443", "team", false),
        ] {
            let rule = UpstreamRule::new(prefix).unwrap();
            assert_eq!(rule.covers(registry, path), covered, "{prefix} {registry}/{path}");
        }
    }

    #[test]
    fn invalid_prefixes_are_reported() {
        for text in ["", "docker.io/", "Bad Name", "docker.io/Upper", "docker.io//x"] {
            let error = UpstreamRule::new(text).unwrap_err();
            assert!(matches!(error, InvalidUpstream::Prefix { .. }), "{text}: {error}");
        }
        assert!(alternative("https://m").with_prefix("Upper").is_err());
    }
}
