//! Rules for the upstreams of what begins with a prefix: which alternatives there are to a registry, and in which order
//! they and the registry itself are asked.
//!
//! ```text
//! docker.io/library/nginx ──► alternatives that are always asked ──► the registry itself ──► those for its failure
//!                             (mirrors: copies)                      (the origin)            (replicas: copies)
//! ```

use std::fmt;

use super::{
    Upstream,
    guard::HostPort,
    upstream::{InvalidUpstream, checked_base, named_host, redacted},
};
use crate::reference::RepositoryName;

/// When an [`Alternative`] is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Before the registry itself, always: a mirror. What the registry has lost is still found there.
    #[default]
    Always,
    /// After the registry itself, where that failed: it was away, too slow, limited, or sent what was not asked for.
    /// That it has no such content, or does not want us, is an answer and no failure.
    OnFailure,
}

/// Another place that may have the content of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    base: String,
    host: HostPort,
    prefix: Option<String>,
    policy: Policy,
    digests_only: bool,
}

/// Whether, and where, the registry that an image names is asked itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Source {
    /// Where its name says.
    #[default]
    Itself,
    /// There instead.
    At(Alternative),
    /// Never: the alternatives have everything that may be had.
    Never,
}

/// The upstreams of every repository whose name begins with a prefix: a registry (`docker.io`), or a registry and the
/// beginning of a path (`docker.io/library`), of whole components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRule {
    prefix: Prefix,
    alternatives: Vec<Alternative>,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix {
    registry: String,
    path: String,
}

impl Alternative {
    /// A registry at `url`; see [`Upstream::new`] for what a path in it means.
    ///
    /// # Errors
    /// Where it is not an http or https URL without query.
    pub fn new(url: &str) -> Result<Self, InvalidUpstream> {
        let (base, uri) = checked_base(url)?;
        let host = named_host(&uri)?;
        Ok(Self { base, host, prefix: None, policy: Policy::default(), digests_only: false })
    }

    /// The same, where repositories are called otherwise: `prefix` takes the place of the path in the rule's prefix.
    /// With the rule for `docker.io/library` and the prefix `hub`, `docker.io/library/nginx` is `hub/nginx` there.
    ///
    /// # Errors
    /// Where it is not the beginning of a path. It may be empty.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, InvalidUpstream> {
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() {
            checked_path(prefix, prefix)?;
        }
        Ok(Self { prefix: Some(prefix.to_owned()), ..self })
    }

    /// The same, under that policy.
    #[must_use]
    pub fn asked(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The same, for what is named by its digest alone.
    #[must_use]
    pub fn digests_only(self) -> Self {
        Self { digests_only: true, ..self }
    }

    /// The host, and whether it is spoken to over plain http.
    fn named(&self) -> (HostPort, bool) {
        (self.host.clone(), self.base.starts_with("http:"))
    }

    /// The upstream for `repository`, `rest` of whose path follows the rule's prefix; `None` where it can have no such
    /// name there.
    fn upstream(&self, repository: &RepositoryName, rest: &str) -> Option<Upstream> {
        let path = match self.prefix.as_deref() {
            None => repository.path().to_owned(),
            Some("") => rest.to_owned(),
            Some(prefix) if rest.is_empty() => prefix.to_owned(),
            Some(prefix) => format!("{prefix}/{rest}"),
        };
        let host = self.base.split('/').nth(2).unwrap_or_default();
        let port = if self.base.starts_with("http:") { 80 } else { 443 };
        // A name without a dot is that of a registry only with its port.
        let credentials_of = RepositoryName::new(host, &path)
            .or_else(|_| RepositoryName::new(&format!("{host}:{port}"), &path))
            .ok()?;
        let upstream = Upstream::at(self.base.clone(), credentials_of).with_path(path);
        Some(if self.digests_only { upstream.digests_only() } else { upstream })
    }
}

impl UpstreamRule {
    /// A rule for what begins with `prefix`, which changes nothing yet.
    ///
    /// # Errors
    /// Where no repository can begin like that.
    pub fn new(prefix: &str) -> Result<Self, InvalidUpstream> {
        Ok(Self { prefix: Prefix::parse(prefix)?, alternatives: Vec::new(), source: Source::default() })
    }

    /// The rule that `PREFIX=URL` stands for: the registry itself is there.
    ///
    /// # Errors
    /// Where the text is not of that form.
    pub fn moved(text: &str) -> Result<Self, InvalidUpstream> {
        let (rule, alternative) = Self::assigned(text)?;
        Ok(rule.with_source(Source::At(alternative)))
    }

    /// The rule for the prefix of `PREFIX=URL`, and the alternative at its URL.
    ///
    /// # Errors
    /// Where the text is not of that form.
    pub fn assigned(text: &str) -> Result<(Self, Alternative), InvalidUpstream> {
        let wrong = |problem| InvalidUpstream::Override { text: redacted(text), problem };
        let (prefix, url) = text.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        let rule = Self::new(prefix).map_err(|_| wrong("there is no registry before the '='"))?;
        Ok((rule, Alternative::new(url)?))
    }

    /// The same with one more alternative, which is asked after those of its policy that were given before.
    #[must_use]
    pub fn with_alternative(mut self, alternative: Alternative) -> Self {
        self.alternatives.push(alternative);
        self
    }

    /// The same, for what is asked of the registry itself.
    #[must_use]
    pub fn with_source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// The same, with the alternatives and the source of `other` as far as it has some.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        self.alternatives.extend(other.alternatives);
        match other.source {
            Source::Itself => self,
            source => Self { source, ..self },
        }
    }

    /// What it is for, as it would be written.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.prefix.to_string()
    }

    /// Whether anything can be fetched under it.
    #[must_use]
    pub fn leads_anywhere(&self) -> bool {
        self.source != Source::Never || !self.alternatives.is_empty()
    }

    /// How specific it is: of the rules that cover a repository, the one with the highest number counts.
    pub(super) fn weight(&self) -> usize {
        self.prefix.path.len()
    }

    pub(super) fn covers(&self, registry: &str, path: &str) -> bool {
        self.prefix.rest(registry, path).is_some()
    }

    /// Every host that it names, and whether that is spoken to over plain http.
    pub(super) fn named(&self) -> impl Iterator<Item = (HostPort, bool)> {
        let moved = match &self.source {
            Source::At(alternative) => Some(alternative),
            Source::Itself | Source::Never => None,
        };
        self.alternatives.iter().chain(moved).map(Alternative::named)
    }

    /// The upstreams of a repository that it covers, in order; `itself` is the registry where its name says.
    pub(super) fn row(&self, registry: &str, repository: &RepositoryName, itself: Upstream) -> Vec<Upstream> {
        let rest = self.prefix.rest(registry, repository.path()).unwrap_or_default();
        let copies = |policy| {
            let of_policy = self.alternatives.iter().filter(move |alternative| alternative.policy == policy);
            of_policy
                .filter_map(move |alternative| alternative.upstream(repository, rest))
                .map(Upstream::as_copy)
        };
        let source = match &self.source {
            Source::Itself => Some(itself),
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

    /// What follows the prefix in the path of a repository that begins with it.
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

/// The one name of a registry that has several.
pub(super) fn canonical(registry: &str) -> &str {
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

    /// The row of a repository, each upstream as `ROLE BASE PATH`.
    fn row(rule: &UpstreamRule, repository: &str) -> Vec<String> {
        let repository: RepositoryName = repository.parse().unwrap();
        let itself = Upstream::at("https://itself".to_owned(), repository.clone());
        let shown = |upstream: Upstream| {
            let role = if upstream.role() == Role::Copy { "copy" } else { "origin" };
            format!("{role} {} {}", upstream.base(), upstream.path_of(&repository))
        };
        rule.row(repository.registry(), &repository, itself).into_iter().map(shown).collect()
    }

    #[test]
    fn mirrors_come_first_and_replicas_last() {
        let rule = UpstreamRule::new("docker.io")
            .unwrap()
            .with_alternative(alternative("https://replica").asked(Policy::OnFailure))
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
        assert!(!UpstreamRule::new("docker.io").unwrap().with_source(Source::Never).leads_anywhere());
    }

    #[test]
    fn a_prefix_takes_the_place_of_a_prefix() {
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
        // Nothing is left of the name: there is no such place.
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
    fn mistakes_are_named() {
        for text in ["", "docker.io/", "Bad Name", "docker.io/Upper", "docker.io//x"] {
            let error = UpstreamRule::new(text).unwrap_err();
            assert!(matches!(error, InvalidUpstream::Prefix { .. }), "{text}: {error}");
        }
        assert!(alternative("https://m").with_prefix("Upper").is_err());
    }
}
