//! The configuration file: YAML (or JSON), whose keys are the flags' names in camel case.

use std::{collections::BTreeMap, fs::File, io, io::Read as _, path::Path};

use serde_json::Value;

use super::Problems;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The settings of a configuration file, each a list of texts, but for those that have a form of their own.
#[derive(Debug, Default)]
pub struct ConfigFile {
    texts: BTreeMap<String, Vec<String>>,
    forms: BTreeMap<String, Value>,
}

/// The settings that have a form of their own.
const FORMS: [&str; 2] = [super::upstreams::KEY, super::rewriting::SELECTOR];

/// A configuration file that cannot be read at all.
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
    /// The file that is named, where one is; it may have the settings of all `groups`.
    pub fn named(path: Option<&Path>, groups: &[&[&str]], problems: &mut Problems) -> Self {
        let Some(path) = path else { return Self::default() };
        let read = Self::read(path, &groups.concat(), problems);
        problems.check("config", read).unwrap_or_default()
    }

    /// Reads a file. `known` are the keys that there are; others, and values that are no texts, become problems.
    ///
    /// # Errors
    /// Where it cannot be read at all.
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
    /// Where it is not a mapping.
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
                problems.add(&key, format_args!("there is no such setting (in {name})"));
                continue;
            };
            if FORMS.contains(known) {
                forms.insert((*known).to_owned(), value);
                continue;
            }
            match texts(&value) {
                Some(texts) => drop(settings.insert((*known).to_owned(), texts)),
                None => {
                    problems.add(&key, format_args!("it is neither a text nor a list of texts (in {name})"));
                }
            }
        }
        Ok(Self { texts: settings, forms })
    }

    /// The values of a setting; empty where the file does not have it.
    #[must_use]
    pub fn get(&self, key: &str) -> &[String] {
        self.texts.get(key).map_or(&[], Vec::as_slice)
    }

    /// The value of a setting that has a form of its own.
    #[must_use]
    pub fn form(&self, key: &str) -> Option<&Value> {
        self.forms.get(key)
    }

    /// What was given, or else the values that the file has.
    #[must_use]
    pub fn list(&self, key: &str, given: Vec<String>) -> Vec<String> {
        if given.is_empty() { self.get(key).to_vec() } else { given }
    }

    /// What was given, or else the last value that the file has.
    #[must_use]
    pub fn one(&self, key: &str, given: Option<String>) -> Option<String> {
        given.or_else(|| self.get(key).last().cloned())
    }
}

/// A value as a list of texts; a mapping becomes `KEY=VALUE` texts, as it would be written in flags.
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

/// `dataDir`, `data-dir` and `data_dir` are one key.
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
    fn says_everything_that_is_wrong() {
        let (_, report) = parse("bindAddres: ':80'\nupstream: {docker.io: [1]}\n");
        assert!(report.contains("2 mistakes"), "{report}");
        assert!(report.contains("bindAddres: there is no such setting"), "{report}");
        assert!(report.contains("upstream: it is neither"), "{report}");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for content in ["- a", "text", "a: [", "a: 1\na: 2"] {
            let parsed = ConfigFile::parse("kuik.yaml", content, KNOWN, &mut Problems::default());
            assert!(matches!(parsed, Err(UnusableFile::Malformed(..))), "{content}");
        }
    }
}
