//! `kuik crds`: the definitions of the custom resources, as YAML for `kubectl apply -f -`.
//!
//! The chart has the same text in `kuik-bin/chart/kube-image-keeper/files/crds.yaml`; a test compares the two, and
//! `make crds` writes it again.

use std::io::Write as _;

use kuik_core::crd;

use super::Failure;

/// Print the custom resource definitions of CachedImage and Repository as YAML.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

impl Arguments {
    /// Prints them.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn run(&self) -> Result<(), Failure> {
        let text = text().map_err(Failure::new)?;
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::new)
    }
}

/// Every definition is a document of its own.
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
    fn the_chart_has_the_definitions_of_this_build() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/kube-image-keeper/files/crds.yaml");
        let committed = fs::read_to_string(path).unwrap();
        assert_eq!(committed, text().unwrap(), "make crds writes it again");
    }

    #[test]
    fn what_is_printed_reads_back_as_what_it_was() {
        let text = text().unwrap();
        let documents: Vec<_> = text.split("---\n").filter(|document| !document.is_empty()).collect();
        let read: Vec<serde_json::Value> =
            documents.iter().map(|document| serde_saphyr::from_str(document).unwrap()).collect();
        let expected: Vec<_> =
            crd::definitions().iter().map(|definition| serde_json::to_value(definition).unwrap()).collect();
        assert_eq!(read, expected);
    }
}
