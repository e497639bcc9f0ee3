//! User of an API server: runs kubectl, creates clients, and has a kubeconfig file.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    super::{
        clients::run,
        error::{InstallSource, RealPartError},
    },
    program,
};

/// A user of an [`ApiServer`](super::ApiServer), valid for the server's lifetime.
#[derive(Clone)]
pub struct KubeUser {
    name: String,
    kubeconfig: PathBuf,
}

impl KubeUser {
    pub(super) fn by_certificate(
        folder: &Path,
        name: &str,
        url: &str,
        authority: &str,
        certificate: &str,
        key: &str,
    ) -> Result<Self, RealPartError> {
        let credential = format!(
            "client-certificate-data: {}, client-key-data: {}",
            STANDARD.encode(certificate),
            STANDARD.encode(key)
        );
        Self::new(folder, name, url, authority, &credential)
    }

    pub(super) fn by_token(
        folder: &Path,
        name: &str,
        url: &str,
        authority: &str,
        token: &str,
    ) -> Result<Self, RealPartError> {
        Self::new(folder, name, url, authority, &format!("token: {token:?}"))
    }

    fn new(
        folder: &Path,
        name: &str,
        url: &str,
        authority: &str,
        credential: &str,
    ) -> Result<Self, RealPartError> {
        let (file, path) =
            tempfile::Builder::new().suffix(".kubeconfig").tempfile_in(folder)?.keep().map_err(|error| {
                RealPartError::new(format_args!("cannot write a kubeconfig: {}", error.error))
            })?;
        drop(file);
        fs::write(
            &path,
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
                 clusters: [{{name: test, cluster: {{server: {url:?}, certificate-authority-data: {}}}}}]\n\
                 users: [{{name: test, user: {{{credential}}}}}]\n\
                 contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
                STANDARD.encode(authority),
            ),
        )?;
        Ok(Self { name: name.to_owned(), kubeconfig: path })
    }

    /// The kubeconfig file of this user.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs `kubectl` as this user; returns its output.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or fails: the error has its output.
    pub async fn kubectl<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, RealPartError> {
        let folder = self.kubeconfig.with_extension("cache");
        let mut all: Vec<OsString> =
            vec!["--kubeconfig".into(), self.kubeconfig.clone().into(), "--cache-dir".into(), folder.into()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        run(&program("kubectl").to_string_lossy(), InstallSource::Kubernetes, all).await
    }

    /// Applies objects in YAML or JSON, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// Returns an error if they are refused: the error has the API server's message.
    pub async fn apply(&self, objects: &str) -> Result<(), RealPartError> {
        let file = tempfile::NamedTempFile::new()?;
        // kubectl 1.20 parses a text that begins with a brace as a single JSON document.
        fs::write(file.path(), format!("---\n{objects}"))?;
        let arguments: [&OsStr; 4] =
            ["apply".as_ref(), "--server-side".as_ref(), "--filename".as_ref(), file.path().as_ref()];
        self.kubectl(arguments).await.map(drop)
    }

    /// Returns the configuration of [`client`](Self::client), to customize it.
    ///
    /// # Errors
    /// Returns an error if the kubeconfig was deleted with its API server.
    #[cfg(feature = "kubernetes")]
    pub async fn config(&self) -> Result<kube_client::Config, RealPartError> {
        let failed = |error: kube_client::config::KubeconfigError| {
            RealPartError::new(format_args!(
                "cannot create a client from {}: {error}",
                self.kubeconfig.display()
            ))
        };
        let kubeconfig = kube_client::config::Kubeconfig::read_from(&self.kubeconfig).map_err(failed)?;
        kube_client::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.map_err(failed)
    }

    /// Creates a client for this user.
    ///
    /// # Errors
    /// Returns an error if the kubeconfig was deleted with its API server.
    #[cfg(feature = "kubernetes")]
    pub async fn client(&self) -> Result<kube_client::Client, RealPartError> {
        kube_client::Client::try_from(self.config().await?)
            .map_err(|error| RealPartError::new(format_args!("cannot create a client: {error}")))
    }
}

/// Omits the credential.
impl fmt::Debug for KubeUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeUser").field("name", &self.name).finish_non_exhaustive()
    }
}
