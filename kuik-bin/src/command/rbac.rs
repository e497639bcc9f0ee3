//! `kuik rbac`: the RBAC roles of each component, as YAML for `kubectl apply -f -`.
//!
//! They are generated from the table in `crate::rbac`; `docs/rbac.yaml` contains the same text, checked by a test.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use crate::rbac::{CERTIFICATE_SECRET, Component, RULES, Rule, Scope, TOKEN_SECRET, WEBHOOK_CONFIGURATION};

use crate::cli_error::CliError;

/// Print the RBAC roles of kuik's components as YAML, each rule with its reason.
///
/// The output contains no RoleBindings: bind the roles to the ServiceAccounts of your installation.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Namespace that kuik runs in
    #[arg(long, value_name = "NAME", default_value = "kuik-system")]
    namespace: String,
    /// Secret with the token of the cache registry
    #[arg(long, value_name = "NAME", default_value = TOKEN_SECRET)]
    registry_token_secret: String,
    /// Secret with the certificate of the webhook
    #[arg(long, value_name = "NAME", default_value = CERTIFICATE_SECRET)]
    certificate_secret: String,
    /// MutatingWebhookConfiguration of the webhook
    #[arg(long, value_name = "NAME", default_value = WEBHOOK_CONFIGURATION)]
    webhook_configuration: String,
}

impl Arguments {
    /// Prints the roles.
    ///
    /// # Errors
    /// Fails if they cannot be written.
    pub fn run(&self) -> Result<(), CliError> {
        let text = self.text().map_err(CliError::new)?;
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(CliError::new)
    }

    /// Returns the roles of all components, one document each.
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

    /// Returns the configured name of the object that is called `default` by default.
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

/// Quotes a string; JSON strings are valid YAML.
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

    /// Returns the output for these arguments.
    fn printed(arguments: &[&str]) -> String {
        let line = Line::parse_from([&["rbac"], arguments].concat());
        line.arguments.text().unwrap()
    }

    #[test]
    fn committed_roles_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rbac.yaml");
        let committed = fs::read_to_string(path).unwrap();
        assert_eq!(committed, printed(&[]), "kuik rbac > docs/rbac.yaml");
    }

    #[test]
    fn printed_rules_are_complete_and_use_the_given_names() {
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
