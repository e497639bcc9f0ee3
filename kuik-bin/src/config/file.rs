//! Configuration file: YAML (or JSON), whose keys are the flags' names in camel case.

use std::{collections::BTreeMap, fs::File, io, io::Read as _, path::Path};

use serde_json::Value;

use super::Problems;

/// Maximum file size in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The settings of a configuration file: lists of strings, except for structured ones.
#[derive(Debug, Default)]
pub struct ConfigFile {
    texts: BTreeMap<String, Vec<String>>,
    forms: BTreeMap<String, Value>,
}

/// Structured settings.
const FORMS: [&str; 2] = [super::upstreams::KEY, SELECTOR];

/// The label selector of pods, which only the webhook and the controllers have.
pub(super) const SELECTOR: &str = "object-selector";

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableFile {
    /// It cannot be opened or read.
    #[error("cannot read {0}")]
    Unreadable(String, #[source] io::Error),
    /// It is too large to be a configuration.
    #[error("{0} has more than {MAX_BYTES} bytes")]
    TooLarge(String),
    /// It is not a YAML mapping.
    #[error("{0} is not a YAML mapping of settings: {1}")]
    Malformed(String, String),
}

impl ConfigFile {
    /// Reads the file at `path`, if any; it may contain the settings of all `groups`.
    pub fn named(path: Option<&Path>, groups: &[&[&str]], problems: &mut Problems) -> Self {
        let Some(path) = path else { return Self::default() };
        let read = Self::read(path, &groups.concat(), problems);
        problems.check("config", read).unwrap_or_default()
    }

    /// Reads a file. Keys that are not `known`, and values that are not strings, become problems.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is too large, or is not a mapping.
    pub fn read(path: &Path, known: &[&str], problems: &mut Problems) -> Result<Self, UnusableFile> {
        let name = path.display().to_string();
        let mut content = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut content))
            .map_err(|error| UnusableFile::Unreadable(name.clone(), error))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(UnusableFile::TooLarge(name));
        }
        Self::parse(&name, &content, known, problems)
    }

    /// Reads the content of a file called `name`.
    ///
    /// # Errors
    /// Fails if the content is not a mapping.
    pub fn parse(
        name: &str,
        content: &str,
        known: &[&str],
        problems: &mut Problems,
    ) -> Result<Self, UnusableFile> {
        let parsed: Option<BTreeMap<String, Value>> = serde_saphyr::from_str(content)
            .map_err(|error| UnusableFile::Malformed(name.to_owned(), error.to_string()))?;
        let (mut settings, mut forms) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in parsed.unwrap_or_default() {
            let Some(known) = known.iter().find(|known| canonical(known) == canonical(&key)) else {
                problems.add(&key, format_args!("unknown setting (in {name})"));
                continue;
            };
            if FORMS.contains(known) {
                forms.insert((*known).to_owned(), value);
                continue;
            }
            match texts(&value) {
                Some(texts) => drop(settings.insert((*known).to_owned(), texts)),
                None => {
                    problems.add(&key, format_args!("must be a string or a list of strings (in {name})"));
                }
            }
        }
        Ok(Self { texts: settings, forms })
    }

    /// Returns the values of a setting; empty if the file does not contain it.
    #[must_use]
    pub fn get(&self, key: &str) -> &[String] {
        self.texts.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a structured setting.
    #[must_use]
    pub fn form(&self, key: &str) -> Option<&Value> {
        self.forms.get(key)
    }

    /// Returns the given values, or those of the file if none are given.
    #[must_use]
    pub fn list(&self, key: &str, given: Vec<String>) -> Vec<String> {
        if given.is_empty() { self.get(key).to_vec() } else { given }
    }

    /// Returns the given value, or the last value in the file.
    #[must_use]
    pub fn one(&self, key: &str, given: Option<String>) -> Option<String> {
        given.or_else(|| self.get(key).last().cloned())
    }
}

/// Converts a value to a list of strings; a mapping becomes `KEY=VALUE` strings, as in flags.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(text).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| Some(format!("{key}={}", text(value)?))).collect()
        }
        scalar => Some(vec![text(scalar)?]),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Normalizes a key: `dataDir`, `data-dir` and `data_dir` are equal.
fn canonical(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["bind-address", "upstream", "legacy-ports"];

    fn parse(content: &str) -> (ConfigFile, String) {
        let mut problems = Problems::default();
        let file = ConfigFile::parse("kuik.yaml", content, KNOWN, &mut problems).unwrap();
        let report = problems.into_result(None::<()>).unwrap_err().to_string();
        (file, report)
    }

    #[test]
    fn reads_texts_lists_and_mappings() {
        let (file, _) = parse(
            "bindAddress: [':80', 'localhost:81']\nlegacy_ports: true\nupstream:\n  docker.io: https://mirror.example\n",
        );
        assert_eq!(file.get("bind-address"), [":80", "localhost:81"]);
        assert_eq!(file.get("legacy-ports"), ["true"]);
        assert_eq!(file.get("upstream"), ["docker.io=https://mirror.example"]);
        assert!(parse("").0.get("upstream").is_empty());
        assert_eq!(parse(r#"{"bind-address": ":80"}"#).0.get("bind-address"), [":80"]);
    }

    #[test]
    fn file_reports_all_mistakes_together() {
        let (_, report) = parse("bindAddres: ':80'\nupstream: {docker.io: [1]}\n");
        assert!(report.contains("2 mistakes"), "{report}");
        assert!(report.contains("bindAddres: unknown setting"), "{report}");
        assert!(report.contains("upstream: must be"), "{report}");
    }

    #[test]
    fn file_rejects_content_that_is_not_a_mapping() {
        for content in ["- a", "text", "a: [", "a: 1\na: 2"] {
            let parsed = ConfigFile::parse("kuik.yaml", content, KNOWN, &mut Problems::default());
            assert!(matches!(parsed, Err(UnusableFile::Malformed(..))), "{content}");
        }
    }
}
