//! Where a registry keeps its content: a URL.

use std::{path::PathBuf, str::FromStr};

/// Where a registry keeps its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// In a directory.
    Directory(PathBuf),
}

/// A text that names no storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStorage {
    /// It is no URL of a storage.
    #[error("{0:?} is no storage: write file:///DIR")]
    Unknown(String),
    /// There is such storage, and this build has nothing for it.
    #[error("{0}:// is not built yet: this version keeps content in directories alone (file:///DIR)")]
    NotBuilt(&'static str),
}

/// Object storages by the schemes of their URLs.
const BUCKETS: [&str; 3] = ["s3", "gs", "az"];

impl FromStr for Storage {
    type Err = InvalidStorage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || InvalidStorage::Unknown(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        if let Some(scheme) = BUCKETS.into_iter().find(|known| *known == scheme) {
            return Err(InvalidStorage::NotBuilt(scheme));
        }
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Directory(rest.into())),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_of_directories() {
        assert_eq!("file:///var/lib/kuik".parse(), Ok(Storage::Directory("/var/lib/kuik".into())));
        for text in ["", "/var/lib", "file://var/lib", "file:/var", "http://host/", "S3://bucket"] {
            assert_eq!(text.parse::<Storage>(), Err(InvalidStorage::Unknown(text.to_owned())));
        }
        for scheme in BUCKETS {
            let error = format!("{scheme}://bucket/prefix").parse::<Storage>();
            assert_eq!(error, Err(InvalidStorage::NotBuilt(scheme)));
        }
    }
}
