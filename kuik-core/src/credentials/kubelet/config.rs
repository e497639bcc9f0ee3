//! Configuration of kubelet credential provider plugins: `CredentialProviderConfig` of `kubelet.config.k8s.io`.

use std::time::Duration;

use serde::Deserialize;

use super::glob::ImageGlob;

/// The validated plugins of a `CredentialProviderConfig`.
#[derive(Debug, Clone)]
pub struct PluginConfig(pub(super) Vec<Plugin>);

/// One plugin.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) images: Vec<ImageGlob>,
    pub(super) default_life: Duration,
    /// The protocol version, `credentialprovider.kubelet.k8s.io/…`.
    pub(super) api_version: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// An invalid plugin configuration, with all its problems.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {}", .problems.join("; "))]
pub struct InvalidPluginConfig {
    file: String,
    problems: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

impl PluginConfig {
    /// Validates the configuration, parsed from YAML or JSON; `file` names it in errors.
    ///
    /// # Errors
    /// Fails if the kubelet would reject it, or a plugin requires service account tokens, which are not available here.
    pub fn new(file: &str, value: serde_json::Value) -> Result<Self, InvalidPluginConfig> {
        let invalid = |problems| InvalidPluginConfig { file: file.to_owned(), problems };
        // The parser's error might quote a value of the environment.
        let File { api_version, kind, providers } = serde_json::from_value(value)
            .map_err(|_| invalid(vec!["not a valid CredentialProviderConfig".to_owned()]))?;
        let mut problems = Vec::new();
        if kind != "CredentialProviderConfig" || !is_version(&api_version, "kubelet.config.k8s.io") {
            problems.push(format!(
                "it is {kind:?} of {api_version:?}, not CredentialProviderConfig of kubelet.config.k8s.io/v1"
            ));
        }
        if providers.is_empty() {
            problems.push("it has no provider".to_owned());
        }
        let plugins = providers.into_iter().enumerate().map(|(n, provider)| {
            let name = provider.name.clone();
            provider
                .checked()
                .map_err(|problem| problems.push(format!("providers[{n}] ({name:?}): {problem}")))
        });
        let plugins = plugins.filter_map(Result::ok).collect();
        if problems.is_empty() { Ok(Self(plugins)) } else { Err(invalid(problems)) }
    }
}

impl Provider {
    fn checked(self) -> Result<Plugin, String> {
        if self.name.is_empty()
            || matches!(self.name.as_str(), "." | "..")
            || self.name.contains(|c: char| c == '/' || c == '\\' || c.is_whitespace())
        {
            return Err("name: not a file name".to_owned());
        }
        if !is_version(&self.api_version, "credentialprovider.kubelet.k8s.io") {
            return Err(format!(
                "apiVersion: {:?} is not credentialprovider.kubelet.k8s.io/v1",
                self.api_version
            ));
        }
        if self.token_attributes.is_some_and(|attributes| !attributes.is_null()) {
            return Err("tokenAttributes: service account tokens are not supported".to_owned());
        }
        if self.match_images.is_empty() {
            return Err("matchImages: it is empty".to_owned());
        }
        let glob = |text: &String| {
            ImageGlob::new(text).ok_or_else(|| format!("matchImages: {text:?} is not an image pattern"))
        };
        let images = self.match_images.iter().map(glob).collect::<Result<_, _>>()?;
        let duration = self.default_cache_duration.as_deref().ok_or("defaultCacheDuration: it is not set")?;
        let default_life = parse_duration(duration)
            .ok_or_else(|| format!("defaultCacheDuration: {duration:?} is not a duration such as 12h"))?;
        Ok(Plugin {
            name: self.name,
            images,
            default_life,
            api_version: self.api_version,
            arguments: self.args,
            environment: self.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
        })
    }
}

/// Parses a Go duration: `12h`, `1h30m0s`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok())
}

fn is_version(text: &str, group: &str) -> bool {
    text.split_once('/').is_some_and(|(named, version)| named == group && VERSIONS.contains(&version))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_problems_are_reported() {
        let error = PluginConfig::new(
            "plugins.yaml",
            json!({
                "kind": "Pod",
                "apiVersion": "v1",
                "providers": [
                    {"name": "../evil", "apiVersion": "credentialprovider.kubelet.k8s.io/v1"},
                    {"name": "a", "apiVersion": "v1"},
                    {"name": "b", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": ["x["],
                     "defaultCacheDuration": "1h"},
                    {"name": "c", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": ["x"],
                     "defaultCacheDuration": "soon"},
                    {"name": "d", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": ["x"],
                     "defaultCacheDuration": "1h", "tokenAttributes": {"serviceAccountTokenAudience": "x"}},
                ]
            }),
        )
        .unwrap_err()
        .to_string();
        for expected in [
            "plugins.yaml: it is \"Pod\" of \"v1\"",
            "providers[0] (\"../evil\"): name: ",
            "providers[1] (\"a\"): apiVersion: ",
            "providers[2] (\"b\"): matchImages: ",
            "providers[3] (\"c\"): defaultCacheDuration: ",
            "providers[4] (\"d\"): tokenAttributes: ",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        let secret = json!({"providers": [{"env": "hunter2"}]});
        assert!(!PluginConfig::new("f", secret).unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn go_durations_are_parsed() {
        for (text, seconds) in [("12h", 43200), ("1h30m0s", 5400), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("-1h"), None);
    }
}
