//! `kuik rbac`: the rights that each component needs in a cluster, as YAML for `kubectl apply -f -`.
//!
//! It is made of the table in `kuik_core::controller::rbac`; `docs/rbac.yaml` has the same text, which a test compares.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use kuik_core::controller::rbac::{Component, RULES, Rule, Scope};

use super::Failure;

/// Print the roles that kuik's components need in a cluster as YAML, one rule for each reason.
///
/// Roles are bound to nobody: that is up to whoever installs them.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The namespace that kuik runs in
    #[arg(long, value_name = "NAME", default_value = "kuik-system")]
    namespace: String,
}

impl Arguments {
    /// Prints them.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn run(&self) -> Result<(), Failure> {
        let text = text(&self.namespace).map_err(Failure::new)?;
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::new)
    }
}

const COMPONENTS: [(Component, &str); 2] =
    [(Component::Controllers, "kuik-controllers"), (Component::Puller, "kuik-puller")];

/// The roles of all components, each a document of its own.
fn text(own: &str) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for (component, name) in COMPONENTS {
        for scope in [Scope::Cluster, Scope::Own, Scope::Default] {
            let rules: Vec<_> =
                RULES.iter().filter(|rule| rule.component == component && rule.scope == scope).collect();
            if !rules.is_empty() {
                role(&mut text, name, scope, own, &rules)?;
            }
        }
    }
    Ok(text)
}

fn role(out: &mut String, name: &str, scope: Scope, own: &str, rules: &[&Rule]) -> fmt::Result {
    let (kind, namespace) = match scope {
        Scope::Cluster => ("ClusterRole", None),
        Scope::Own => ("Role", Some(own)),
        Scope::Default => ("Role", Some("default")),
    };
    writeln!(out, "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}")?;
    if let Some(namespace) = namespace {
        writeln!(out, "  namespace: {}", quoted(namespace))?;
    }
    writeln!(out, "rules:")?;
    for rule in rules {
        writeln!(out, "  # {}", rule.reason)?;
        writeln!(out, "  - apiGroups: {}", list(&[rule.group]))?;
        writeln!(out, "    resources: {}", list(&[rule.resource]))?;
        if !rule.names.is_empty() {
            writeln!(out, "    resourceNames: {}", list(rule.names))?;
        }
        writeln!(out, "    verbs: {}", list(rule.verbs))?;
    }
    Ok(())
}

fn list(texts: &[&str]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn what_is_committed_is_what_this_build_needs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rbac.yaml");
        let committed = fs::read_to_string(path).unwrap();
        assert_eq!(committed, text("kuik-system").unwrap(), "kuik rbac > docs/rbac.yaml");
    }

    #[test]
    fn every_rule_is_printed_and_reads_back() {
        let text = text("a: b").unwrap();
        let documents: Vec<serde_json::Value> = text
            .split("---\n")
            .filter(|document| !document.is_empty())
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .collect();
        let rules: usize = documents.iter().map(|document| document["rules"].as_array().unwrap().len()).sum();
        assert_eq!(rules, RULES.len());
        assert!(documents.iter().any(|document| document["metadata"]["namespace"] == "a: b"));
    }
}
