//! Where images are fetched from besides, or instead of, the registries that they name: flags, and in the file
//!
//! ```yaml
//! upstreams:
//!   docker.io:
//!     alternatives:
//!       - https://mirror.gcr.io             # asked first
//!       - url: https://harbor.example
//!         prefix: hub                       # docker.io/library/nginx is hub/library/nginx there
//!         digestsOnly: true                 # its tags may be old
//!       - url: https://replica.example
//!         policy: OnFailure                 # asked last, where Docker Hub itself fails
//!   quay.io/team:
//!     source: Never                         # or the URL where it is now
//!     alternatives: [https://mirror.example]
//! ```
//!
//! What flags say about a prefix takes the place of all that the file says about it.

use std::collections::BTreeMap;

use kuik_core::registry::{Alternative, InvalidUpstream, Policy, Source, UpstreamRule};
use serde_json::{Map, Value};

use super::Problems;

/// The setting that only the file has.
pub(super) const KEY: &str = "upstreams";
pub(super) const UPSTREAM: &str = "upstream";
pub(super) const MIRROR: &str = "mirror";
pub(super) const FALLBACK: &str = "fallback";

/// What is said about upstreams, before anybody has looked at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) moved: &'a [String],
    pub(super) mirrors: &'a [String],
    pub(super) fallbacks: &'a [String],
    pub(super) form: Option<&'a Value>,
}

impl Rules<'_> {
    /// The rules, one for each prefix.
    pub(super) fn read(self, problems: &mut Problems) -> Vec<UpstreamRule> {
        let mut rules = BTreeMap::new();
        match self.form {
            None | Some(Value::Null) => {}
            Some(Value::Object(form)) => {
                for (prefix, value) in form {
                    let Some(rule) = rule(prefix, value, problems) else { continue };
                    if let Some(twice) = rules.insert(rule.prefix(), rule) {
                        problems.add(KEY, InvalidUpstream::Twice(twice.prefix()));
                    }
                }
            }
            Some(_) => problems.add(KEY, "it is no mapping of registries to their upstreams"),
        }
        for (prefix, rule) in self.flags(problems) {
            rules.insert(prefix, rule);
        }
        rules.into_values().collect()
    }

    fn flags(self, problems: &mut Problems) -> BTreeMap<String, UpstreamRule> {
        let mut rules: BTreeMap<String, UpstreamRule> = BTreeMap::new();
        for text in self.moved {
            let Some(rule) = problems.check(UPSTREAM, UpstreamRule::moved(text)) else { continue };
            match rules.entry(rule.prefix()) {
                std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(rule)),
                std::collections::btree_map::Entry::Occupied(_) => {
                    problems.add(UPSTREAM, InvalidUpstream::Twice(rule.prefix()));
                }
            }
        }
        for (key, texts, policy) in
            [(MIRROR, self.mirrors, Policy::Always), (FALLBACK, self.fallbacks, Policy::OnFailure)]
        {
            for text in texts {
                let Some((rule, to)) = problems.check(key, UpstreamRule::assigned(text)) else { continue };
                let rule = rule.with_alternative(to.asked(policy));
                let joined = rules.remove(&rule.prefix()).map(|before| before.joined(rule.clone()));
                rules.insert(rule.prefix(), joined.unwrap_or(rule));
            }
        }
        rules
    }
}

/// The rule that the file has for a prefix; `None` only where a problem was added.
fn rule(prefix: &str, value: &Value, problems: &mut Problems) -> Option<UpstreamRule> {
    let key = format!("{KEY}.{prefix}");
    let rule = problems.check(&key, UpstreamRule::new(prefix));
    let Value::Object(fields) = value else {
        problems.add(&key, "it is no mapping with alternatives and source");
        return None;
    };
    known(fields, &["alternatives", "source"], &key, problems);
    let alternatives: Vec<_> = match fields.get("alternatives") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| alternative(&format!("{key}.alternatives[{at}]"), item, problems))
            .collect(),
        Some(_) => {
            problems.add(&format!("{key}.alternatives"), "it is no list");
            Vec::new()
        }
    };
    let source = source(&format!("{key}.source"), fields.get("source"), problems)?;
    let rule = alternatives.into_iter().fold(rule?.with_source(source), UpstreamRule::with_alternative);
    if !rule.leads_anywhere() {
        problems.add(&key, "nothing can be fetched: the source is never asked, and there is no alternative");
        return None;
    }
    Some(rule)
}

fn source(key: &str, value: Option<&Value>, problems: &mut Problems) -> Option<Source> {
    match value {
        None | Some(Value::Null) => Some(Source::Itself),
        Some(Value::String(word)) if word == "Itself" => Some(Source::Itself),
        Some(Value::String(word)) if word == "Never" => Some(Source::Never),
        Some(Value::String(word)) if !word.contains(':') => {
            problems.add(key, format_args!("{word:?} is neither Itself nor Never nor a URL"));
            None
        }
        Some(value) => alternative(key, value, problems).map(Source::At),
    }
}

/// A URL alone, or a mapping with one; `None` only where a problem was added.
fn alternative(key: &str, value: &Value, problems: &mut Problems) -> Option<Alternative> {
    let fields = match value {
        Value::String(url) => return problems.check(key, Alternative::new(url)),
        Value::Object(fields) => fields,
        _ => {
            problems.add(key, "it is neither a URL nor a mapping with one");
            return None;
        }
    };
    known(fields, &["url", "prefix", "policy", "digestsOnly"], key, problems);
    let within = |name: &str| format!("{key}.{name}");
    let policy = match fields.get("policy").map(Value::as_str) {
        None => Some(Policy::default()),
        Some(Some("Always")) => Some(Policy::Always),
        Some(Some("OnFailure")) => Some(Policy::OnFailure),
        Some(_) => {
            problems.add(&within("policy"), "it is neither Always nor OnFailure");
            None
        }
    };
    let digests_only = match fields.get("digestsOnly").map(Value::as_bool) {
        None => Some(false),
        Some(Some(value)) => Some(value),
        Some(None) => {
            problems.add(&within("digestsOnly"), "it is neither true nor false");
            None
        }
    };
    let url = fields.get("url").and_then(Value::as_str);
    if url.is_none() {
        problems.add(&within("url"), "it is missing");
    }
    let mut found = problems.check(&within("url"), Alternative::new(url?));
    match fields.get("prefix").map(Value::as_str) {
        None => {}
        Some(Some(prefix)) => {
            found = found.and_then(|found| problems.check(&within("prefix"), found.with_prefix(prefix)));
        }
        Some(None) => problems.add(&within("prefix"), "it is no text"),
    }
    let found = found?.asked(policy?);
    Some(if digests_only? { found.digests_only() } else { found })
}

fn known(fields: &Map<String, Value>, known: &[&str], key: &str, problems: &mut Problems) {
    for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
        problems.add(&format!("{key}.{name}"), "there is no such setting");
    }
}

#[cfg(test)]
mod tests {
    use kuik_core::{
        reference::RepositoryName,
        registry::{UpstreamResolver as _, Upstreams},
    };

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn read(form: &str, flags: [&[&str]; 3]) -> Result<Upstreams, String> {
        let form: Option<Value> = serde_saphyr::from_str(form).unwrap();
        let [moved, mirrors, fallbacks] = flags.map(texts);
        let mut problems = Problems::default();
        let rules = Rules { moved: &moved, mirrors: &mirrors, fallbacks: &fallbacks, form: form.as_ref() }
            .read(&mut problems);
        let upstreams = rules
            .into_iter()
            .fold(Upstreams::default(), |upstreams, rule| upstreams.with_rule(rule).unwrap());
        problems.into_result(Some(upstreams)).map_err(|error| error.to_string())
    }

    async fn row(upstreams: &Upstreams, repository: &str) -> Vec<String> {
        let repository: RepositoryName = repository.parse().unwrap();
        let row = upstreams.upstreams(&repository).await.unwrap();
        let shown = |one: &kuik_core::registry::Upstream| {
            let digests = if one.is_for_digests_only() { " (digests)" } else { "" };
            format!("{:?} {} {}{digests}", one.role(), one.base(), one.path_of(&repository))
        };
        row.iter().map(shown).collect()
    }

    const FORM: &str = "
docker.io:
  alternatives:
    - https://mirror.gcr.io
    - {url: https://harbor.example, prefix: hub, digestsOnly: true}
    - {url: https://replica.example/, policy: OnFailure}
quay.io/team:
  source: Never
  alternatives: [{url: https://mirror.example, policy: Always, prefix: ''}]
ghcr.io: {source: http://moved.example:5000}
";

    #[tokio::test]
    async fn the_file_says_it_all() {
        let upstreams = read(FORM, [&[], &[], &[]]).unwrap();
        assert_eq!(
            row(&upstreams, "nginx").await,
            [
                "Copy https://mirror.gcr.io library/nginx",
                "Copy https://harbor.example hub/library/nginx (digests)",
                "Origin https://registry-1.docker.io library/nginx",
                "Copy https://replica.example library/nginx",
            ]
        );
        assert_eq!(row(&upstreams, "quay.io/team/app").await, ["Copy https://mirror.example app"]);
        assert_eq!(row(&upstreams, "quay.io/other/app").await, ["Origin https://quay.io other/app"]);
        assert_eq!(row(&upstreams, "ghcr.io/app").await, ["Origin http://moved.example:5000 app"]);
    }

    #[tokio::test]
    async fn flags_are_joined_and_win_over_the_file() {
        let upstreams = read(
            FORM,
            [
                &["docker.io=https://hub.example"],
                &["docker.io=https://one.example", "docker.io=https://two.example"],
                &["docker.io=https://last.example"],
            ],
        );
        let upstreams = upstreams.unwrap();
        assert_eq!(
            row(&upstreams, "nginx").await,
            [
                "Copy https://one.example library/nginx",
                "Copy https://two.example library/nginx",
                "Origin https://hub.example library/nginx",
                "Copy https://last.example library/nginx",
            ]
        );
        assert_eq!(row(&upstreams, "ghcr.io/app").await, ["Origin http://moved.example:5000 app"]);
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let form = "
docker.io:
  alternatives:
    - {url: https://a, policy: Sometimes, digestsOnly: 1, prefix: UP, mirror: x}
    - {policy: Always}
    - ftp://b
    - 7
  sauce: Never
quay.io: {source: Never}
'Bad Name': {}
ghcr.io: https://c
mcr.example: {source: Perhaps, alternatives: https://d}
";
        let report =
            read(form, [&["x", "a.example=https://a", "a.example=https://b"], &["y.example=z"], &["="]])
                .unwrap_err();
        for place in [
            "upstreams.docker.io.alternatives[0].policy: it is neither Always",
            "upstreams.docker.io.alternatives[0].digestsOnly: it is neither true",
            "upstreams.docker.io.alternatives[0].prefix: ",
            "upstreams.docker.io.alternatives[0].mirror: there is no such",
            "upstreams.docker.io.alternatives[1].url: it is missing",
            "upstreams.docker.io.alternatives[2]: ",
            "upstreams.docker.io.alternatives[3]: it is neither a URL",
            "upstreams.docker.io.sauce: there is no such",
            "upstreams.quay.io: nothing can be fetched",
            "upstreams.Bad Name: ",
            "upstreams.ghcr.io: it is no mapping",
            "upstreams.mcr.example.source: ",
            "upstreams.mcr.example.alternatives: it is no list",
            "upstream: \"x\" is not PREFIX=URL",
            "upstream: a.example has upstreams already",
            "mirror: \"z\": ",
            "fallback: \"=\" is not PREFIX=URL",
        ] {
            assert!(report.contains(&format!("\n  {place}")), "{place} is missing:\n{report}");
        }
        assert!(read("[docker.io]", [&[], &[], &[]]).unwrap_err().contains("upstreams: it is no mapping"));
    }
}
