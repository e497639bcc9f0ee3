//! Identity settings: environment variables, and files that are read on each use, because projected volumes change.

use std::{collections::BTreeMap, fmt, fs::File, io::Read as _, path::Path};

use crate::credentials::{CredentialError, Secret};

/// The largest token file, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The variables of an identity, as of the start. Values may be secret: `Debug` prints only names.
#[derive(Clone, Default)]
pub(super) struct Variables(BTreeMap<&'static str, Secret>);

impl Variables {
    /// Returns those of `names` that are set and not empty.
    pub(super) fn read(names: &[&'static str], variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |&name: &&'static str| variable(name).map(|value| (name, value.trim().to_owned()));
        let set = names.iter().filter_map(set).filter(|(_, value)| !value.is_empty());
        Self(set.map(|(name, value)| (name, Secret::from(value))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Reads a small file with a token or configuration; `what` is its purpose, for errors. Such files are in memory
/// (projected volumes), so a blocking read is short.
pub(super) fn read_file(what: &str, path: &str) -> Result<Secret, CredentialError> {
    let failed = |problem: &str, cause: Option<Box<dyn std::error::Error + Send + Sync>>| {
        CredentialError::new(format!("{what}: {path} {problem}"), cause)
    };
    let mut text = String::new();
    File::open(Path::new(path))
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| failed("cannot be read", Some(error.into())))?;
    match text.trim() {
        "" => Err(failed("is empty", None)),
        trimmed if text.len() as u64 <= MAX_BYTES => Ok(trimmed.into()),
        _ => Err(failed("is too large for a token", None)),
    }
}
