//! Registry credential settings: a docker config, kubelet credential plugins, ambient cloud identities.

use std::{path::Path, sync::Arc};

use kuik_core::{
    client::{CertificateAuthorities, HttpTransport, InvalidTransport, ProxyConfig, TransportConfig},
    credentials::{
        AzureIdentity, CredentialProvider, DockerConfig, DockerHelpers, EcrIdentity, GoogleIdentity,
        KubeletPlugins, PluginConfig, Providers,
    },
};

use super::{ConfigFile, Problems, value::read_file};

/// Unvalidated credential settings.
#[derive(Debug, Default, clap::Args)]
pub struct RawCredentials {
    /// Docker config file with registry credentials, such as ~/.docker/config.json; its credential helpers (credsStore,
    /// credHelpers) are run when a registry requests authentication
    #[arg(long, env = "KUIK_DOCKER_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) docker_config: Option<String>,
    /// Kubelet CredentialProviderConfig file: the credential provider plugins to run
    #[arg(long, env = "KUIK_IMAGE_CREDENTIAL_PROVIDER_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(super) image_credential_provider_config: Option<String>,
    /// Directory with the executables of the credential provider plugins
    #[arg(long, env = "KUIK_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR", hide_env_values = true, value_name = "DIR")]
    pub(super) image_credential_provider_bin_dir: Option<String>,
    /// Authenticate to cloud registries with the instance or workload identity: ecr, google, azure; repeatable
    #[arg(
        long,
        env = "KUIK_AMBIENT_CREDENTIALS",
        hide_env_values = true,
        value_name = "CLOUD",
        value_delimiter = ','
    )]
    pub(super) ambient_credentials: Vec<String>,
}

pub(super) const DOCKER_CONFIG: &str = "docker-config";
pub(super) const PLUGINS: &str = "image-credential-provider-config";
pub(super) const PLUGINS_DIR: &str = "image-credential-provider-bin-dir";
pub(super) const AMBIENT: &str = "ambient-credentials";

impl RawCredentials {
    /// Returns these values, with unset ones taken from the file.
    pub(super) fn merge_file(self, file: &ConfigFile) -> Self {
        Self {
            docker_config: file.one(DOCKER_CONFIG, self.docker_config),
            image_credential_provider_config: file.one(PLUGINS, self.image_credential_provider_config),
            image_credential_provider_bin_dir: file.one(PLUGINS_DIR, self.image_credential_provider_bin_dir),
            ambient_credentials: file.list(AMBIENT, self.ambient_credentials),
        }
    }

    /// Returns the providers in the order in which their credentials are tried: static credentials, plugins, then ambient
    /// identities. `roots` and `proxy` are used for requests to cloud services.
    pub(super) fn read(
        self,
        roots: &[CertificateAuthorities],
        proxy: &ProxyConfig,
        problems: &mut Problems,
    ) -> Providers {
        let mut providers = Providers::default();
        if let Some(config) = self.docker_config.as_deref().and_then(|file| docker_config(file, problems)) {
            if config.has_helpers() {
                providers = providers.and(Arc::new(DockerHelpers::new(config.clone())));
            }
            providers = providers.and(Arc::new(config));
        }
        match (&self.image_credential_provider_config, &self.image_credential_provider_bin_dir) {
            (Some(file), Some(folder)) => {
                let plugins = plugins(file, Path::new(folder), problems);
                providers = plugins.into_iter().fold(providers, |all, one| all.and(Arc::new(one)));
            }
            (Some(_), None) => {
                problems.add(PLUGINS, format_args!("requires {PLUGINS_DIR}, the directory of the plugins"));
            }
            (None, Some(_)) => {
                problems.add(PLUGINS_DIR, format_args!("requires {PLUGINS}, the list of the plugins"));
            }
            (None, None) => {}
        }
        for cloud in &self.ambient_credentials {
            let identity = identity(cloud, roots, proxy, problems);
            providers = identity.into_iter().fold(providers, Providers::and);
        }
        providers
    }
}

fn docker_config(file: &str, problems: &mut Problems) -> Option<DockerConfig> {
    let content = problems.check(DOCKER_CONFIG, read_file(file))?;
    problems.check(DOCKER_CONFIG, DockerConfig::parse(file, &content))
}

fn plugins(file: &str, folder: &Path, problems: &mut Problems) -> Option<KubeletPlugins> {
    let content = problems.check(PLUGINS, read_file(file))?;
    let parsed = std::str::from_utf8(&content).ok().and_then(|text| serde_saphyr::from_str(text).ok());
    let Some(parsed) = parsed else {
        // The parser's message might quote the value of an environment variable.
        problems.add(PLUGINS, format_args!("{file} is neither YAML nor JSON"));
        return None;
    };
    let config = problems.check(PLUGINS, PluginConfig::new(file, parsed))?;
    for program in KubeletPlugins::missing(&config, folder) {
        problems.add(PLUGINS_DIR, format_args!("missing executable {}", program.display()));
    }
    Some(KubeletPlugins::new(config, folder))
}

fn identity(
    cloud: &str,
    roots: &[CertificateAuthorities],
    proxy: &ProxyConfig,
    problems: &mut Problems,
) -> Option<Arc<dyn CredentialProvider>> {
    let variable = |name: &str| std::env::var(name).ok();
    let transport = || {
        let mut config = TransportConfig::default();
        config.extra_roots = roots.to_vec();
        config.proxy = proxy.clone();
        HttpTransport::new(config)
    };
    let identity: Result<Arc<dyn CredentialProvider>, InvalidTransport> = match cloud {
        "ecr" => transport().and_then(|aws| Ok(Arc::new(EcrIdentity::new(aws, variable)?) as _)),
        "google" => transport().and_then(|google| Ok(Arc::new(GoogleIdentity::new(google, variable)?) as _)),
        "azure" => transport().and_then(|azure| Ok(Arc::new(AzureIdentity::new(azure, variable)?) as _)),
        other => {
            problems.add(AMBIENT, format_args!("{other:?} is not ecr, google or azure"));
            return None;
        }
    };
    problems.check(AMBIENT, identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(raw: RawCredentials) -> String {
        let mut problems = Problems::default();
        raw.read(&[], &ProxyConfig::default(), &mut problems);
        problems.into_result(Some(())).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("plugins.yaml");
        let provider = "- name: absent\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['*.example']\n  \
                        defaultCacheDuration: 1h\n";
        let header = "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n";
        std::fs::write(&plugins, format!("{header}{provider}")).unwrap();
        let report = report(RawCredentials {
            docker_config: Some("/nowhere/config.json".to_owned()),
            image_credential_provider_config: Some(plugins.display().to_string()),
            image_credential_provider_bin_dir: Some("/nowhere".to_owned()),
            ambient_credentials: vec!["ecr".to_owned(), "heroku".to_owned()],
        });
        for expected in [
            "docker-config: cannot read /nowhere/config.json",
            "image-credential-provider-bin-dir: missing executable /nowhere/absent",
            "ambient-credentials: \"heroku\"",
        ] {
            assert!(report.contains(expected), "{report}");
        }
        assert!(report.contains("3 mistakes"), "{report}");
    }

    #[test]
    fn plugins_need_both_settings() {
        let file = RawCredentials {
            image_credential_provider_config: Some("plugins.yaml".to_owned()),
            ..RawCredentials::default()
        };
        assert!(report(file).contains("requires image-credential-provider-bin-dir"));
        let folder = RawCredentials {
            image_credential_provider_bin_dir: Some("/bin".to_owned()),
            ..RawCredentials::default()
        };
        assert!(report(folder).contains("requires image-credential-provider-config"));
    }
}
