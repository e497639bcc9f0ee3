//! `kuik rbac`: the rights that each component needs in a cluster, as YAML for `kubectl apply -f -`.
//!
//! It is made of the table in `kuik_core::controller::rbac`; `docs/rbac.yaml` has the same text, which a test compares.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use kuik_core::controller::rbac::{
    CERTIFICATE_SECRET, Component, RULES, Rule, Scope, TOKEN_SECRET, WEBHOOK_CONFIGURATION,
};

use super::Failure;

/// Print the roles that kuik's components need in a cluster as YAML, one rule for each reason.
///
/// Roles are bound to nobody: that is up to whoever installs them.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The namespace that kuik runs in
    #[arg(long, value_name = "NAME", default_value = "kuik-system")]
    namespace: String,
    /// The Secret with the token of the cache registry
    #[arg(long, value_name = "NAME", default_value = TOKEN_SECRET)]
    registry_token_secret: String,
    /// The Secret with the certificate of the webhook
    #[arg(long, value_name = "NAME", default_value = CERTIFICATE_SECRET)]
    certificate_secret: String,
    /// The MutatingWebhookConfiguration
    #[arg(long, value_name = "NAME", default_value = WEBHOOK_CONFIGURATION)]
    webhook_configuration: String,
}

impl Arguments {
    /// Prints them.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn run(&self) -> Result<(), Failure> {
        let text = self.text().map_err(Failure::new)?;
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::new)
    }

    /// The roles of all components, each a document of its own.
    fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        for (component, name) in COMPONENTS {
            for scope in [Scope::Cluster, Scope::Own, Scope::Default] {
                let mut rules =
                    RULES.iter().filter(|rule| rule.is_of(component) && rule.scope == scope).peekable();
                if rules.peek().is_some() {
                    self.head(&mut text, name, scope)?;
                    rules.try_for_each(|rule| self.rule(&mut text, rule))?;
                }
            }
        }
        Ok(text)
    }

    fn head(&self, out: &mut String, name: &str, scope: Scope) -> fmt::Result {
        let (kind, namespace) = match scope {
            Scope::Cluster => ("ClusterRole", None),
            Scope::Own => ("Role", Some(&*self.namespace)),
            Scope::Default => ("Role", Some("default")),
        };
        writeln!(
            out,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}"
        )?;
        if let Some(namespace) = namespace {
            writeln!(out, "  namespace: {}", quoted(namespace))?;
        }
        writeln!(out, "rules:")
    }

    fn rule(&self, out: &mut String, rule: &Rule) -> fmt::Result {
        writeln!(out, "  # {}", rule.reason)?;
        writeln!(out, "  - apiGroups: {}", list(&[rule.group]))?;
        writeln!(out, "    resources: {}", list(&[rule.resource]))?;
        if !rule.names.is_empty() {
            let names: Vec<_> = rule.names.iter().map(|name| self.named(name)).collect();
            writeln!(out, "    resourceNames: {}", list(&names))?;
        }
        writeln!(out, "    verbs: {}", list(rule.verbs))
    }

    /// The object that is called `default` unless somebody says otherwise.
    fn named<'a>(&'a self, default: &'a str) -> &'a str {
        match default {
            TOKEN_SECRET => &self.registry_token_secret,
            CERTIFICATE_SECRET => &self.certificate_secret,
            WEBHOOK_CONFIGURATION => &self.webhook_configuration,
            fixed => fixed,
        }
    }
}

const COMPONENTS: [(Component, &str); 3] = [
    (Component::Controllers, "kuik-controllers"),
    (Component::Webhook, "kuik-webhook"),
    (Component::Puller, "kuik-puller"),
];

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

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// What is printed with these arguments.
    fn printed(arguments: &[&str]) -> String {
        let line = Line::parse_from([&["rbac"], arguments].concat());
        line.arguments.text().unwrap()
    }

    #[test]
    fn what_is_committed_is_what_this_build_needs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rbac.yaml");
        let committed = fs::read_to_string(path).unwrap();
        assert_eq!(committed, printed(&[]), "kuik rbac > docs/rbac.yaml");
    }

    #[test]
    fn every_rule_is_printed_and_reads_back_with_the_names_that_are_given() {
        let names = ["--registry-token-secret=t", "--certificate-secret=c", "--webhook-configuration=w"];
        let text = printed(&[&["--namespace=a: b"], &names[..]].concat());
        let documents: Vec<serde_json::Value> = text
            .split("---\n")
            .filter(|document| !document.is_empty())
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .collect();
        let rules = documents.iter().flat_map(|document| document["rules"].as_array().unwrap());
        let rules: Vec<_> = rules.collect();
        assert_eq!(rules.len(), RULES.iter().map(|rule| rule.components.len()).sum::<usize>());
        assert!(documents.iter().any(|document| document["metadata"]["namespace"] == "a: b"));
        for (name, times) in [("t", 1), ("c", 2), ("w", 2)] {
            let named = rules.iter().filter(|rule| rule["resourceNames"] == serde_json::json!([name]));
            assert_eq!(named.count(), times, "{name}");
        }
        assert!(!text.contains(CERTIFICATE_SECRET) && !text.contains(TOKEN_SECRET));
    }
}
