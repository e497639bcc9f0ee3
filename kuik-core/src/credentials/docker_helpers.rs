//! Docker credential helpers: runs `docker-credential-NAME get` with the registry on standard input.
//!
//! The protocol of docker's credential helpers: the response is JSON, a user named `<token>` marks an identity token,
//! and a helper without a credential prints a message and fails.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    Credential, CredentialError, CredentialProvider, DockerConfig, expiring::Expiring, program::Program,
};
use crate::reference::RepositoryName;

/// How long a response is cached: helpers cache themselves, and their credential may change soon.
const LIFE: Duration = Duration::from_secs(30);
/// The message of a helper without a credential for a registry.
const NOT_FOUND: &[u8] = b"credentials not found in native keychain";

/// The helpers that a docker config names. They are looked up in `PATH`, and run when a registry refuses a request.
#[derive(Debug)]
pub struct DockerHelpers {
    config: DockerConfig,
    /// The folder of the programs, instead of `PATH`.
    folder: Option<PathBuf>,
    answers: Expiring<(String, String), Option<Credential>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl DockerHelpers {
    /// Uses the helpers that `config` names.
    #[must_use]
    pub fn new(config: DockerConfig) -> Self {
        Self { config, folder: None, answers: Expiring::default() }
    }

    /// Looks helpers up in this folder only.
    #[must_use]
    pub fn in_folder(self, folder: PathBuf) -> Self {
        Self { folder: Some(folder), ..self }
    }

    async fn ask(&self, helper: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
        let name = PathBuf::from(format!("docker-credential-{helper}"));
        let path = self.folder.as_ref().map_or(name.clone(), |folder| folder.join(name));
        let program = Program::new(path, vec!["get".to_owned()]);
        let said = program.ask(server.as_bytes()).await?;
        if !said.status.success() {
            return match said.output.trim_ascii().starts_with(NOT_FOUND) {
                true => Ok(None),
                false => Err(program.failed(format_args!("it failed for {server} ({})", said.status), None)),
            };
        }
        // The parser's error might quote a secret.
        let answer: Answer = serde_json::from_slice(&said.output)
            .map_err(|_| program.failed("invalid response of a credential helper", None))?;
        Ok(answer.credential())
    }
}

impl Answer {
    fn credential(self) -> Option<Credential> {
        match (self.username.as_str(), self.secret.is_empty()) {
            (_, true) => None,
            ("<token>", false) => Some(Credential::IdentityToken(self.secret.into())),
            _ => Some(Credential::basic(self.username, self.secret)),
        }
    }
}

/// Returns docker's name of a registry in the helper protocol.
fn server(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}

#[async_trait]
impl CredentialProvider for DockerHelpers {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let Some(helper) = self.config.helper(repository) else { return Ok(Vec::new()) };
        let server = server(repository.registry());
        let asking = async { Ok((self.ask(helper, server).await?, LIFE)) };
        let found = self.answers.get((helper.to_owned(), server.to_owned()), asking).await?;
        Ok(found.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// Creates a helper that counts its runs, in its own folder.
    fn helpers(config: &str, script: &str) -> (DockerHelpers, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test");
        let script = format!(
            "#!/bin/sh\nread server\necho \"$1 $server\" >> {:?}\n{script}",
            folder.path().join("log")
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let config = DockerConfig::parse("config.json", config.as_bytes()).unwrap();
        (DockerHelpers::new(config).in_folder(folder.path().to_owned()), folder)
    }

    async fn ask(helpers: &DockerHelpers, registry: &str) -> Result<Vec<Credential>, CredentialError> {
        helpers.candidates(&RepositoryName::new(registry, "library/app").unwrap()).await
    }

    #[tokio::test]
    async fn helper_is_run_like_docker_runs_it() {
        let answer = r#"echo '{"ServerURL":"x","Username":"user","Secret":"hunter2"}'"#;
        let (helpers, folder) = helpers(r#"{"credsStore": "test"}"#, answer);
        let expected = [Credential::basic("user", "hunter2")];
        assert_eq!(ask(&helpers, "docker.io").await.unwrap(), expected);
        assert_eq!(ask(&helpers, "registry.example:5000").await.unwrap(), expected);
        assert_eq!(ask(&helpers, "registry.example:5000").await.unwrap(), expected);
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(log, "get https://index.docker.io/v1/\nget registry.example:5000\n", "each once");
    }

    #[tokio::test]
    async fn helper_returns_token_or_nothing() {
        let config = r#"{"credHelpers": {"registry.example": "test"}}"#;
        let (token, _one) = helpers(config, r#"echo '{"Username":"<token>","Secret":"hunter2"}'"#);
        assert_eq!(
            ask(&token, "registry.example").await.unwrap(),
            [Credential::IdentityToken("hunter2".into())]
        );
        let (none, folder) = helpers(config, "echo 'credentials not found in native keychain'; exit 1");
        assert!(ask(&none, "registry.example").await.unwrap().is_empty());
        assert!(ask(&none, "another.example").await.unwrap().is_empty());
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(log.lines().count(), 1, "it is not run for other registries: {log}");
    }

    #[tokio::test]
    async fn failure_names_the_command_without_secrets() {
        let config = r#"{"credsStore": "test"}"#;
        for (script, expected) in [
            ("echo hunter2; exit 1", "failed for registry.example (exit status: 1)"),
            ("echo hunter2", "invalid response of a credential helper"),
            (r#"echo '{"Username": "u", "Secret": ["hunter2"]}'"#, "invalid response of a credential helper"),
        ] {
            let (helpers, _folder) = helpers(config, script);
            let error = ask(&helpers, "registry.example").await.unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(expected) && said.contains("docker-credential-test get"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
