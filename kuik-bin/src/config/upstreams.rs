//! Upstream settings: mirrors, fallbacks and replacements of registries, from flags or in the file:
//!
//! ```yaml
//! upstreams:
//!   docker.io:
//!     alternatives:
//!       - https://mirror.gcr.io             # tried first
//!       - url: https://harbor.example
//!         prefix: hub                       # docker.io/library/nginx is hub/library/nginx there
//!         digestsOnly: true                 # its tags may be outdated
//!       - url: https://replica.example
//!         policy: OnFailure                 # tried last, if Docker Hub fails
//!   quay.io/team:
//!     source: Never                         # or its new URL
//!     alternatives: [https://mirror.example]
//! ```
//!
//! Flags for a prefix replace everything in the file for that prefix.

use std::collections::BTreeMap;

use kuik_core::client::{Alternative, InvalidUpstream, Policy, Source, UpstreamRule};
use serde_json::{Map, Value};

use super::Problems;

/// Key that only the file has.
pub(super) const KEY: &str = "upstreams";
pub(super) const UPSTREAM: &str = "upstream";
pub(super) const MIRROR: &str = "mirror";
pub(super) const FALLBACK: &str = "fallback";

/// Unvalidated upstream settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) moved: &'a [String],
    pub(super) mirrors: &'a [String],
    pub(super) fallbacks: &'a [String],
    pub(super) form: Option<&'a Value>,
}

impl Rules<'_> {
    /// Returns the rules, one for each prefix.
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
            Some(_) => problems.add(KEY, "must be a mapping of registries to their upstreams"),
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
                let rule = rule.with_alternative(to.with_policy(policy));
                let joined = rules.remove(&rule.prefix()).map(|before| before.joined(rule.clone()));
                rules.insert(rule.prefix(), joined.unwrap_or(rule));
            }
        }
        rules
    }
}

/// Returns the file's rule for a prefix; `None` only if a problem was added.
fn rule(prefix: &str, value: &Value, problems: &mut Problems) -> Option<UpstreamRule> {
    let key = format!("{KEY}.{prefix}");
    let rule = problems.check(&key, UpstreamRule::new(prefix));
    let Value::Object(fields) = value else {
        problems.add(&key, "must be a mapping with alternatives and source");
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
            problems.add(&format!("{key}.alternatives"), "must be a list");
            Vec::new()
        }
    };
    let source = source(&format!("{key}.source"), fields.get("source"), problems)?;
    let rule = alternatives.into_iter().fold(rule?.with_source(source), UpstreamRule::with_alternative);
    if !rule.has_upstreams() {
        problems.add(&key, "nothing can be fetched: source is Never, and there are no alternatives");
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
            problems.add(key, format_args!("{word:?} is not Itself, Never or a URL"));
            None
        }
        Some(value) => alternative(key, value, problems).map(Source::At),
    }
}

/// Parses a URL, or a mapping with one; returns `None` only if a problem was added.
fn alternative(key: &str, value: &Value, problems: &mut Problems) -> Option<Alternative> {
    let fields = match value {
        Value::String(url) => return problems.check(key, Alternative::new(url)),
        Value::Object(fields) => fields,
        _ => {
            problems.add(key, "must be a URL or a mapping with one");
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
            problems.add(&within("policy"), "must be Always or OnFailure");
            None
        }
    };
    let digests_only = match fields.get("digestsOnly").map(Value::as_bool) {
        None => Some(false),
        Some(Some(value)) => Some(value),
        Some(None) => {
            problems.add(&within("digestsOnly"), "must be true or false");
            None
        }
    };
    let url = fields.get("url").and_then(Value::as_str);
    if url.is_none() {
        problems.add(&within("url"), "required");
    }
    let mut found = problems.check(&within("url"), Alternative::new(url?));
    match fields.get("prefix").map(Value::as_str) {
        None => {}
        Some(Some(prefix)) => {
            found = found.and_then(|found| problems.check(&within("prefix"), found.with_prefix(prefix)));
        }
        Some(None) => problems.add(&within("prefix"), "must be a string"),
    }
    let found = found?.with_policy(policy?);
    Some(if digests_only? { found.digests_only() } else { found })
}

fn known(fields: &Map<String, Value>, known: &[&str], key: &str, problems: &mut Problems) {
    for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
        problems.add(&format!("{key}.{name}"), "unknown setting");
    }
}

#[cfg(test)]
mod tests {
    use kuik_core::{
        client::{UpstreamResolver as _, Upstreams},
        reference::RepositoryName,
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
        let shown = |one: &kuik_core::client::Upstream| {
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
    async fn file_form_configures_every_kind_of_upstream() {
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
    async fn flags_combine_and_take_precedence_over_the_file() {
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
    fn mistakes_are_reported_with_their_path() {
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
            "upstreams.docker.io.alternatives[0].policy: must be Always",
            "upstreams.docker.io.alternatives[0].digestsOnly: must be true",
            "upstreams.docker.io.alternatives[0].prefix: ",
            "upstreams.docker.io.alternatives[0].mirror: unknown setting",
            "upstreams.docker.io.alternatives[1].url: required",
            "upstreams.docker.io.alternatives[2]: ",
            "upstreams.docker.io.alternatives[3]: must be a URL",
            "upstreams.docker.io.sauce: unknown setting",
            "upstreams.quay.io: nothing can be fetched",
            "upstreams.Bad Name: ",
            "upstreams.ghcr.io: must be a mapping",
            "upstreams.mcr.example.source: ",
            "upstreams.mcr.example.alternatives: must be a list",
            "upstream: \"x\" is not PREFIX=URL",
            "upstream: a.example already has upstreams",
            "mirror: \"z\": ",
            "fallback: \"=\" is not PREFIX=URL",
        ] {
            assert!(report.contains(&format!("\n  {place}")), "{place} is missing:\n{report}");
        }
        assert!(read("[docker.io]", [&[], &[], &[]]).unwrap_err().contains("upstreams: must be a mapping"));
    }
}
