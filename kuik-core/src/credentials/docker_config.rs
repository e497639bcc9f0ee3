//! Credentials from a docker config file (`~/.docker/config.json`, or a pull secret's `.dockerconfigjson`).
//!
//! Keys have many spellings (`https://index.docker.io/v1/`, `registry.example:5000`, `registry.example/team`); each is
//! normalized to a host with port and a path, and the most specific match is tried first. A file with a mistake is
//! rejected as a whole, so that a typo does not show up much later as "unauthorized". Credential helpers are only named
//! here; `DockerHelpers` runs them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::{Credential, CredentialError, CredentialProvider, Secret};
use crate::reference::RepositoryName;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of a docker config file.
///
/// ```
/// use kuik_core::credentials::DockerConfig;
///
/// let config = DockerConfig::parse("config.json", br#"{"auths": {"registry.example": {"auth": "dTpw"}}}"#)?;
/// assert_eq!(config.len(), 1);
/// # Ok::<(), kuik_core::credentials::InvalidDockerConfig>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    /// Longest key first, so that the first match is the most specific.
    entries: Vec<Entry>,
    store: Option<HelperName>,
    /// Helpers by host.
    helpers: BTreeMap<String, HelperName>,
}

/// The name of a credential helper: `ecr-login` means the program `docker-credential-ecr-login`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HelperName(String);

#[derive(Debug, Clone)]
struct Entry {
    host: String,
    path: String,
    credential: Credential,
}

/// An invalid docker config file. The error contains the file and the key, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDockerConfig {
    /// Not JSON with the structure of a docker config.
    #[error("{file} is not a docker config: line {line}, column {column} is invalid")]
    Malformed {
        /// The file.
        file: String,
        /// The line of the mistake, from 1.
        line: usize,
        /// The column of the mistake, from 1.
        column: usize,
    },
    /// An entry of `auths` without a valid credential.
    #[error("{file}: auths[{key:?}]: {problem}")]
    Entry {
        /// The file.
        file: String,
        /// The key in `auths`.
        key: String,
        /// The problem.
        problem: &'static str,
    },
    /// An invalid name of a credential helper.
    #[error("{file}: {key}: {name:?} is not the name of a credential helper, such as \"ecr-login\"")]
    Helper {
        /// The file.
        file: String,
        /// `credsStore`, or the entry of `credHelpers`.
        key: String,
        /// The invalid name.
        name: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl DockerConfig {
    /// Parses a docker config; `file` names it in errors.
    ///
    /// # Errors
    /// Fails if it is not JSON with that structure, or an entry is malformed.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, InvalidDockerConfig> {
        // serde_json's message may quote a value, which may be a secret: only the position is passed on.
        let parsed: File =
            serde_json::from_slice(content).map_err(|error| InvalidDockerConfig::Malformed {
                file: file.to_owned(),
                line: error.line(),
                column: error.column(),
            })?;
        let mut entries = Vec::new();
        for (key, auth) in &parsed.auths {
            let wrong =
                |problem| InvalidDockerConfig::Entry { file: file.to_owned(), key: key.clone(), problem };
            let (host, path) = normalize(key).ok_or_else(|| wrong("the key names no registry"))?;
            if let Some(credential) = auth.credential().map_err(wrong)? {
                entries.push(Entry { host, path, credential });
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        let helper = |key: String, name: &str| {
            HelperName::new(name).ok_or_else(|| InvalidDockerConfig::Helper {
                file: file.to_owned(),
                key,
                name: name.to_owned(),
            })
        };
        let store = Some(parsed.creds_store.as_str()).filter(|name| !name.is_empty());
        let store = store.map(|name| helper("credsStore".to_owned(), name)).transpose()?;
        let mut helpers = BTreeMap::new();
        for (key, name) in &parsed.cred_helpers {
            let shown = format!("credHelpers[{key:?}]");
            let (host, _) = normalize(key).ok_or_else(|| InvalidDockerConfig::Entry {
                file: file.to_owned(),
                key: shown.clone(),
                problem: "the key names no registry",
            })?;
            helpers.insert(host, helper(shown, name)?);
        }
        Ok(Self { entries, store, helpers })
    }

    /// Returns the name of the helper for `repository`: that of its registry, or the default one.
    #[must_use]
    pub fn helper(&self, repository: &RepositoryName) -> Option<&str> {
        let host = canonical_host(repository.registry());
        self.helpers.get(&host).or(self.store.as_ref()).map(|HelperName(name)| name.as_str())
    }

    /// Returns whether any helper is configured.
    #[must_use]
    pub fn has_helpers(&self) -> bool {
        self.store.is_some() || !self.helpers.is_empty()
    }

    /// Returns the number of credentials in the file itself.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the file itself has no credentials.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the credentials for `repository`, the most specific first.
    pub fn matching(&self, repository: &RepositoryName) -> impl Iterator<Item = &Credential> {
        let host = canonical_host(repository.registry());
        let path = repository.path();
        self.entries
            .iter()
            .filter(move |entry| entry.host == host && covers(&entry.path, path))
            .map(|entry| &entry.credential)
    }
}

#[async_trait]
impl CredentialProvider for DockerConfig {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        Ok(self.matching(repository).cloned().collect())
    }
}

impl HelperName {
    /// The name becomes part of a program name and must not escape the folders of `PATH`.
    fn new(name: &str) -> Option<Self> {
        let usable = !name.is_empty()
            && name.len() <= 128
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        usable.then(|| Self(name.to_owned()))
    }
}

impl Auth {
    /// Returns the credential of the entry; `None` if it is empty, as with a credential store.
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(self.identitytoken.as_str().into())));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::RegistryToken(self.registrytoken.as_str().into())));
        }
        if !self.auth.is_empty() {
            return decode(&self.auth).map(Some);
        }
        if self.username.is_empty() && self.password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::basic(self.username.as_str(), self.password.as_str())))
    }
}

fn decode(auth: &str) -> Result<Credential, &'static str> {
    let bytes = BASE64.decode(auth.trim()).map_err(|_| "\"auth\" is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "\"auth\" does not decode to text")?;
    let (username, password) =
        text.split_once(':').ok_or("\"auth\" does not decode to USER:PASSWORD: there is no ':'")?;
    if username.is_empty() {
        return Err("\"auth\" has no user name");
    }
    // Docker pads the password with NUL bytes.
    Ok(Credential::basic(username, Secret::from(password.trim_end_matches('\0'))))
}

/// Normalizes a key to host (with port) and path.
pub(super) fn normalize(key: &str) -> Option<(String, String)> {
    let rest = key.trim();
    let rest = rest.strip_prefix("https://").or_else(|| rest.strip_prefix("http://")).unwrap_or(rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    (!host.is_empty()).then(|| (canonical_host(host), path.to_owned()))
}

/// Returns the host as references name it: Docker Hub has several names.
pub(super) fn canonical_host(host: &str) -> String {
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Returns whether the entry for `prefix` applies to `path`: whole path components only.
fn covers(prefix: &str, path: &str) -> bool {
    prefix.is_empty()
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_for(config: &DockerConfig, registry: &str, path: &str) -> Vec<String> {
        config
            .matching(&RepositoryName::new(registry, path).unwrap())
            .map(|credential| match credential {
                Credential::Basic { username, .. } => username.clone(),
                Credential::IdentityToken(_) => "(identity)".to_owned(),
                Credential::RegistryToken(_) => "(registry)".to_owned(),
            })
            .collect()
    }

    #[test]
    fn most_specific_key_comes_first() {
        let config = DockerConfig::parse(
            "config.json",
            br#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
                "registry.example": {"username": "host", "password": "pw"},
                "registry.example/team": {"username": "team", "password": "pw"},
                "registry.example/team/app": {"identitytoken": "tok"},
                "http://registry.example:5000/v2/": {"registrytoken": "tok"},
                "empty.example": {}
            }}"#,
        )
        .unwrap();
        assert_eq!(user_for(&config, "docker.io", "library/nginx"), ["hub"]);
        assert_eq!(user_for(&config, "registry.example", "other"), ["host"]);
        assert_eq!(user_for(&config, "registry.example", "teamwork"), ["host"]);
        assert_eq!(user_for(&config, "registry.example", "team/app"), ["(identity)", "team", "host"]);
        assert_eq!(user_for(&config, "registry.example:5000", "app"), ["(registry)"]);
        assert!(user_for(&config, "empty.example", "app").is_empty());
        assert!(user_for(&config, "another.example", "app").is_empty());
    }

    #[test]
    fn parse_error_names_the_mistake_without_secrets() {
        for (content, expected) in [
            (
                r#"{"auths": {"r.example": {"auth": "hunter2!"}}}"#,
                "auths[\"r.example\"]: \"auth\" is not base64",
            ),
            (r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#, "there is no ':'"),
            (r#"{"auths": {"r.example": {"auth": "Omh1bnRlcjI="}}}"#, "no user name"),
            (r#"{"auths": {"https://": {"auth": "dTpw"}}}"#, "names no registry"),
            (r#"{"auths": "hunter2"}"#, "line 1, column 19"),
            (r#"{"auths": {"r.example": {"password": 7}}}"#, "line 1, column"),
            ("", "line 1, column 0"),
        ] {
            let error =
                DockerConfig::parse("/etc/kuik/config.json", content.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{content}: {error}");
            assert!(error.starts_with("/etc/kuik/config.json"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn registry_helper_overrides_default_helper() {
        let helper = |config: &DockerConfig, registry: &str| {
            config.helper(&RepositoryName::new(registry, "app").unwrap()).map(str::to_owned)
        };
        let helpers =
            r#""credHelpers": {"https://index.docker.io/v1/": "pass", "x.example:5000": "ecr-login"}"#;
        let some = DockerConfig::parse("c", format!("{{{helpers}}}").as_bytes()).unwrap();
        assert!(some.is_empty() && some.has_helpers());
        assert_eq!(helper(&some, "docker.io").as_deref(), Some("pass"));
        assert_eq!(helper(&some, "x.example:5000").as_deref(), Some("ecr-login"));
        assert_eq!(helper(&some, "x.example"), None);
        let all = format!(r#"{{"credsStore": "desktop", {helpers}}}"#);
        let all = DockerConfig::parse("c", all.as_bytes()).unwrap();
        assert_eq!(helper(&all, "x.example").as_deref(), Some("desktop"));
        assert_eq!(helper(&all, "docker.io").as_deref(), Some("pass"));
        for name in ["../evil", "a b", "a/b", "\\u0000"] {
            let error = DockerConfig::parse("c", format!(r#"{{"credsStore": "{name}"}}"#).as_bytes());
            assert!(error.unwrap_err().to_string().starts_with("c: credsStore: "), "{name}");
        }
    }

    #[test]
    fn nul_padding_of_password_is_removed() {
        let config = DockerConfig::parse("c", br#"{"auths": {"x.example": {"auth": "dTpwdwAA"}}}"#).unwrap();
        let repository = RepositoryName::new("x.example", "app").unwrap();
        assert_eq!(config.matching(&repository).next(), Some(&Credential::basic("u", "pw")));
    }
}
