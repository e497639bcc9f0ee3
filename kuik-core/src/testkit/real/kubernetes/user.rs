//! One who speaks to an API server: by kubectl, as a client of ours, or through a kubeconfig file.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    super::{
        clients::run,
        error::{Origin, RealPartError},
    },
    program,
};

/// Who speaks to an [`ApiServer`](super::ApiServer), for as long as that exists.
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
                RealPartError::new(format_args!("a kubeconfig cannot be written: {}", error.error))
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

    /// The kubeconfig file that makes any client this user.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs `kubectl` as this user; returns what it printed.
    ///
    /// # Errors
    /// Where it is not installed, or fails: the error has its words.
    pub async fn kubectl<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, RealPartError> {
        let folder = self.kubeconfig.with_extension("cache");
        let mut all: Vec<OsString> =
            vec!["--kubeconfig".into(), self.kubeconfig.clone().into(), "--cache-dir".into(), folder.into()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        run(&program("kubectl").to_string_lossy(), Origin::Kubernetes, all).await
    }

    /// Applies objects, written as YAML or JSON, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// Where they are refused: the error has the API server's words.
    pub async fn apply(&self, objects: &str) -> Result<(), RealPartError> {
        let file = tempfile::NamedTempFile::new()?;
        // What begins with a brace is one document of JSON to kubectl 1.20, whatever follows.
        fs::write(file.path(), format!("---\n{objects}"))?;
        let arguments: [&OsStr; 4] =
            ["apply".as_ref(), "--server-side".as_ref(), "--filename".as_ref(), file.path().as_ref()];
        self.kubectl(arguments).await.map(drop)
    }

    /// What [`client`](Self::client) is made of, to be changed first.
    ///
    /// # Errors
    /// Where the kubeconfig is gone, with its API server.
    #[cfg(feature = "controller")]
    pub async fn config(&self) -> Result<kube_client::Config, RealPartError> {
        let failed = |error: kube_client::config::KubeconfigError| {
            RealPartError::new(format_args!(
                "no client can be made of {}: {error}",
                self.kubeconfig.display()
            ))
        };
        let kubeconfig = kube_client::config::Kubeconfig::read_from(&self.kubeconfig).map_err(failed)?;
        kube_client::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.map_err(failed)
    }

    /// A client that is this user.
    ///
    /// # Errors
    /// Where the kubeconfig is gone, with its API server.
    #[cfg(feature = "controller")]
    pub async fn client(&self) -> Result<kube_client::Client, RealPartError> {
        kube_client::Client::try_from(self.config().await?)
            .map_err(|error| RealPartError::new(format_args!("no client can be made: {error}")))
    }
}

/// Without the credential.
impl fmt::Debug for KubeUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeUser").field("name", &self.name).finish_non_exhaustive()
    }
}
