//! Credentials of one registry in a file, such as a mounted Secret: a token, or a docker config.
//!
//! The file is read when the registry refuses a request, so that a rotation needs neither a restart nor a watch, and a
//! cache hit reads nothing.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use super::{Credential, CredentialError, CredentialProvider, DockerConfig, InvalidDockerConfig};
use crate::reference::RepositoryName;

/// Maximum size of the file in bytes: that of a Secret.
const MAX_BYTES: u64 = 1 << 20;

/// Maximum size of a token in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// User name sent with a token. kuik's registry ignores it.
const TOKEN_USER: &str = "kuik";

/// Credentials in a file that may change: a docker config (JSON), or one line with a token. Cheap to clone; no secret is
/// kept.
#[derive(Debug, Clone)]
pub struct CredentialFile {
    path: Arc<Path>,
}

/// A file has no usable credentials. The error contains no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCredentialFile {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// A docker config with a mistake.
    #[error(transparent)]
    DockerConfig(#[from] InvalidDockerConfig),
    /// Neither a docker config nor a token.
    #[error("{0} is neither a docker config nor one line with a token")]
    Malformed(PathBuf),
}

impl CredentialFile {
    /// Returns the credentials in the file at `path`, which is read once as a check.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or has neither form.
    pub fn open(path: &Path) -> Result<Self, InvalidCredentialFile> {
        read(path)?;
        Ok(Self { path: path.into() })
    }
}

/// Content of the file.
enum Content {
    Token(Credential),
    DockerConfig(DockerConfig),
}

fn read(path: &Path) -> Result<Content, InvalidCredentialFile> {
    let unreadable = |error| InvalidCredentialFile::Unreadable(path.to_owned(), error);
    let malformed = || InvalidCredentialFile::Malformed(path.to_owned());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(malformed());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?.trim();
    if text.starts_with('{') {
        return Ok(Content::DockerConfig(DockerConfig::parse(&path.display().to_string(), &bytes)?));
    }
    if text.is_empty() || text.len() > MAX_TOKEN_BYTES || text.contains(char::is_control) {
        return Err(malformed());
    }
    Ok(Content::Token(Credential::basic(TOKEN_USER, text)))
}

#[async_trait]
impl CredentialProvider for CredentialFile {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        match read(&self.path) {
            Ok(Content::Token(token)) => Ok(vec![token]),
            Ok(Content::DockerConfig(config)) => config.candidates(repository).await,
            Err(error) => Err(CredentialError::new(error.to_string(), Some(error.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn changed_file_takes_effect_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        assert!(matches!(CredentialFile::open(&path), Err(InvalidCredentialFile::Unreadable(..))));
        fs::write(&path, "first\n").unwrap();
        let file = CredentialFile::open(&path).unwrap();
        let repository = RepositoryName::new("cache.test:5000", "app").unwrap();
        let now = async || file.candidates(&repository).await;
        assert_eq!(now().await.unwrap(), [Credential::basic("kuik", "first")]);
        fs::write(&path, r#"{"auths": {"cache.test:5000": {"username": "u", "password": "p"}}}"#).unwrap();
        assert_eq!(now().await.unwrap(), [Credential::basic("u", "p")]);
        for unusable in ["", "two\nlines", "{", &"x".repeat(5000)] {
            fs::write(&path, unusable).unwrap();
            let error = now().await.unwrap_err().to_string();
            assert!(error.contains("credentials") && !error.contains("lines"), "{error}");
        }
    }
}
