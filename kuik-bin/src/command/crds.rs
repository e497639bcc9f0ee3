//! `kuik crds`: the CustomResourceDefinitions, as YAML for `kubectl apply -f -`.
//!
//! The chart has the same text in `kuik-bin/chart/kube-image-keeper/files/crds.yaml`; a test compares the two, and
//! `make crds` updates it.

use std::io::Write as _;

use kuik_core::crd;

use crate::cli_error::CliError;

/// Print the CustomResourceDefinitions of CachedImage and Repository as YAML.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

impl Arguments {
    /// Prints the definitions.
    ///
    /// # Errors
    /// Fails if they cannot be written.
    pub fn run(&self) -> Result<(), CliError> {
        let text = text().map_err(CliError::new)?;
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(CliError::new)
    }
}

/// Returns one document per definition.
fn text() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for definition in crd::definitions() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn chart_contains_the_current_definitions() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/kube-image-keeper/files/crds.yaml");
        let committed = fs::read_to_string(path).unwrap();
        assert_eq!(committed, text().unwrap(), "run make crds");
    }

    #[test]
    fn printed_definitions_parse_to_the_originals() {
        let text = text().unwrap();
        let documents: Vec<_> = text.split("---\n").filter(|document| !document.is_empty()).collect();
        let read: Vec<serde_json::Value> =
            documents.iter().map(|document| serde_saphyr::from_str(document).unwrap()).collect();
        let expected: Vec<_> =
            crd::definitions().iter().map(|definition| serde_json::to_value(definition).unwrap()).collect();
        assert_eq!(read, expected);
    }
}
