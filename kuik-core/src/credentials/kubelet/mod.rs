//! Kubelet credential provider plugins: programs that return the credentials of an image.
//!
//! The protocol is `credentialprovider.kubelet.k8s.io`: a `CredentialProviderRequest` on standard input, a
//! `CredentialProviderResponse` on standard output. A response is cached for its duration and with its scope: the
//! image, its registry, or every image of the plugin.

mod config;
mod glob;

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

pub use self::config::{InvalidPluginConfig, PluginConfig};
use self::{
    config::{Plugin, parse_duration},
    glob::ImageGlob,
};
use super::{
    Credential, CredentialError, CredentialProvider, Providers, expiring::Expiring, program::Program,
};
use crate::reference::RepositoryName;

/// The maximum number of cached responses of a plugin.
const MAX_ANSWERS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// The longest lifetime that is accepted.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The plugins of a configuration, each a program in one folder.
#[derive(Debug)]
pub struct KubeletPlugins(Providers);

/// One plugin with its cached responses.
struct Asked {
    plugin: Plugin,
    program: Program,
    answers: Mutex<LruCache<Scope, (Arc<Answer>, Instant)>>,
    /// Single-flight runs of the plugin per image, with cached failures.
    running: Expiring<String, Arc<Answer>>,
}

/// The scope of a cached response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Image(String),
    Registry(String),
    Global,
}

/// Credentials by image pattern, in the order in which they are tried.
type Answer = Vec<(ImageGlob, Credential)>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    cache_key_type: String,
    cache_duration: Option<String>,
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl KubeletPlugins {
    /// Uses the plugins of `config`, which are programs in `folder`. They run only when a registry refuses a request.
    #[must_use]
    pub fn new(config: PluginConfig, folder: &std::path::Path) -> Self {
        let asked = |plugin: Plugin| {
            let program = Program {
                environment: plugin.environment.clone(),
                ..Program::new(folder.join(&plugin.name), plugin.arguments.clone())
            };
            let answers = Mutex::new(LruCache::new(MAX_ANSWERS));
            Arc::new(Asked { plugin, program, answers, running: Expiring::default() })
        };
        Self(config.0.into_iter().map(asked).fold(Providers::default(), |all, one| all.and(one)))
    }

    /// Returns the programs of `config` that are missing in `folder`, which is a configuration error.
    #[must_use]
    pub fn missing(config: &PluginConfig, folder: &std::path::Path) -> Vec<PathBuf> {
        let programs = config.0.iter().map(|plugin| folder.join(&plugin.name));
        programs.filter(|program| !program.is_file()).collect()
    }
}

#[async_trait]
impl CredentialProvider for KubeletPlugins {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        self.0.candidates(repository).await
    }
}

#[async_trait]
impl CredentialProvider for Asked {
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        if !self.plugin.images.iter().any(|glob| glob.matches(repository)) {
            return Ok(Vec::new());
        }
        let image = format!("{}/{}", repository.registry(), repository.path());
        let answer = match self.kept(&image, repository.registry()) {
            Some(answer) => answer,
            // The response is cached by its own scope; this cache serves only concurrent callers.
            None => self.running.get(image.clone(), self.ask(&image, repository.registry())).await?,
        };
        let fitting = answer.iter().filter(|(glob, _)| glob.matches(repository));
        Ok(fitting.map(|(_, credential)| credential.clone()).collect())
    }
}

impl Asked {
    fn kept(&self, image: &str, registry: &str) -> Option<Arc<Answer>> {
        let mut answers = self.answers.lock();
        let scopes = [Scope::Image(image.to_owned()), Scope::Registry(registry.to_owned()), Scope::Global];
        let mut living = scopes
            .iter()
            .filter_map(|scope| answers.get(scope).filter(|(_, until)| *until > Instant::now()).cloned());
        living.next().map(|(answer, _)| answer)
    }

    async fn ask(&self, image: &str, registry: &str) -> Result<(Arc<Answer>, Duration), CredentialError> {
        // Another caller may have fetched it meanwhile.
        if let Some(answer) = self.kept(image, registry) {
            return Ok((answer, Duration::ZERO));
        }
        let request = serde_json::json!({
            "apiVersion": self.plugin.api_version, "kind": "CredentialProviderRequest", "image": image,
        });
        let said = self.program.ask(request.to_string().as_bytes()).await?;
        if !said.status.success() {
            return Err(self.program.failed(format_args!("it failed for {image} ({})", said.status), None));
        }
        let wrong = |problem| self.program.failed(problem, None);
        // The parser's error might quote a secret.
        let response: Response = serde_json::from_slice(&said.output)
            .map_err(|_| wrong("the response is not a CredentialProviderResponse"))?;
        if response.kind != "CredentialProviderResponse" || response.api_version != self.plugin.api_version {
            return Err(wrong("the response has another kind or version than requested"));
        }
        let scope = match response.cache_key_type.as_str() {
            "Image" => Scope::Image(image.to_owned()),
            "Registry" => Scope::Registry(registry.to_owned()),
            "Global" => Scope::Global,
            _ => return Err(wrong("the response has no cacheKeyType of Image, Registry or Global")),
        };
        let life = match response.cache_duration.as_deref() {
            None => self.plugin.default_life,
            Some(text) => parse_duration(text).ok_or_else(|| wrong("the cacheDuration is not a duration"))?,
        };
        let answer = Arc::new(answer(response.auth.unwrap_or_default()));
        if !life.is_zero() {
            let until = Instant::now() + life.min(MAX_LIFE);
            let mut answers = self.answers.lock();
            answers.put(scope, (Arc::clone(&answer), until));
        }
        Ok((answer, Duration::ZERO))
    }
}

/// Returns the credentials of a response. Like the kubelet, in reverse alphabetical order of the keys; invalid patterns
/// are skipped.
fn answer(auth: BTreeMap<String, Auth>) -> Answer {
    let entries = auth.into_iter().rev().filter_map(|(key, Auth { username, password })| {
        Some((ImageGlob::new(&key)?, Credential::basic(username, password)))
    });
    entries.collect()
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("program", &self.program).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde_json::json;

    use super::*;

    /// A plugin that logs every request, and prints `response`.
    struct Rig {
        plugins: KubeletPlugins,
        folder: tempfile::TempDir,
    }

    impl Rig {
        fn new(response: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("plugin");
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = get-credentials ] || exit 7\n[ \"$HOME_REGION\" = eu ] || exit 8\n\
                 cat >> {log:?}\necho >> {log:?}\n{response}\n",
                log = folder.path().join("log")
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let config = PluginConfig::new(
                "plugins.yaml",
                json!({
                    "kind": "CredentialProviderConfig",
                    "apiVersion": "kubelet.config.k8s.io/v1",
                    "providers": [{
                        "name": "plugin",
                        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
                        "matchImages": ["*.registry.example", "registry.example/team"],
                        "defaultCacheDuration": "10m",
                        "args": ["get-credentials"],
                        "env": [{"name": "HOME_REGION", "value": "eu"}],
                    }]
                }),
            )
            .unwrap();
            assert!(KubeletPlugins::missing(&config, folder.path()).is_empty());
            Self { plugins: KubeletPlugins::new(config, folder.path()), folder }
        }

        async fn ask(&self, registry: &str, path: &str) -> Result<Vec<Credential>, CredentialError> {
            self.plugins.candidates(&RepositoryName::new(registry, path).unwrap()).await
        }

        fn requests(&self) -> Vec<serde_json::Value> {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    fn response(cache: &str) -> String {
        format!(
            r#"echo '{{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse",{cache}
            "auth":{{"*.registry.example":{{"username":"u","password":"hunter2"}},
                     "b.registry.example":{{"username":"b","password":"hunter2"}}}}}}'"#
        )
    }

    #[tokio::test]
    async fn plugin_is_run_like_the_kubelet_runs_it() {
        let rig = Rig::new(&response(r#""cacheKeyType":"Registry","#));
        let [u, b] = ["u", "b"].map(|user| Credential::basic(user, "hunter2"));
        assert_eq!(rig.ask("a.registry.example", "team/app").await.unwrap(), std::slice::from_ref(&u));
        assert_eq!(rig.ask("a.registry.example", "other").await.unwrap(), std::slice::from_ref(&u));
        assert_eq!(rig.ask("b.registry.example", "app").await.unwrap(), [b, u], "reverse alphabetical order");
        assert!(rig.ask("another.example", "app").await.unwrap().is_empty());
        assert!(rig.ask("registry.example", "other").await.unwrap().is_empty());
        let expected = |image: &str| json!({"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest", "image": image});
        assert_eq!(
            rig.requests(),
            [expected("a.registry.example/team/app"), expected("b.registry.example/app")],
            "one response covers a whole registry"
        );
    }

    #[tokio::test]
    async fn responses_are_cached_by_their_scope() {
        for (cache, requests) in [
            (r#""cacheKeyType":"Image","#, 3),
            (r#""cacheKeyType":"Registry","cacheDuration":"1h","#, 2),
            (r#""cacheKeyType":"Global","#, 1),
            (r#""cacheKeyType":"Global","cacheDuration":"0s","#, 4),
        ] {
            let rig = Rig::new(&response(cache));
            for (registry, path) in [
                ("a.registry.example", "one"),
                ("a.registry.example", "two"),
                ("c.registry.example", "one"),
                ("a.registry.example", "one"),
            ] {
                assert_eq!(rig.ask(registry, path).await.unwrap().len(), 1, "{cache}");
            }
            assert_eq!(rig.requests().len(), requests, "{cache}");
        }
    }

    #[tokio::test]
    async fn failure_names_the_command_without_secrets() {
        for (script, expected) in [
            ("echo hunter2; exit 1", "failed for a.registry.example/app (exit status: 1)"),
            ("echo hunter2", "is not a CredentialProviderResponse"),
            (r#"echo '{"kind":"CredentialProviderResponse","apiVersion":"v1"}'"#, "another kind or version"),
            (response("").as_str(), "no cacheKeyType"),
            (response(r#""cacheKeyType":"Image","cacheDuration":"soon","#).as_str(), "cacheDuration"),
        ] {
            let rig = Rig::new(script);
            let error = rig.ask("a.registry.example", "app").await.unwrap_err();
            let said = format!("{error} {error:?} {:?}", rig.plugins);
            assert!(said.contains(expected) && said.contains("plugin get-credentials"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
