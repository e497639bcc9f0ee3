//! Kubernetes API server with its etcd, without any controllers.
//!
//! Objects are validated, admitted, stored, watched and authorized by RBAC as in any cluster. There is no controller, no
//! scheduler and no kubelet: tests create, bind and update the status of pods themselves, a deleted namespace stays
//! `Terminating`, dependents of deleted owners are not garbage-collected, and no service account is created for a
//! namespace. Pods need none: the `ServiceAccount` admission plugin is off.
//!
//! The programs come from the folder in `KUBEBUILDER_ASSETS`, if set, otherwise from `tools/install-parts kube`. Tests
//! run against any release since 1.20.

mod audit;
mod authority;
mod user;

use std::{
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::authority::Authority;
pub use self::{audit::ApiWrite, user::KubeUser};
use super::{
    error::{InstallSource, RealPartError},
    free_address,
    program::{Launch, PATIENCE, Program, Ready},
};

/// A running API server with its own etcd.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    server: Program,
    store: Program,
    authority: Authority,
    admin: KubeUser,
    /// Folder with the credentials of users.
    users: TempDir,
}

impl ApiServer {
    /// Starts an API server, and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or does not start.
    pub async fn start() -> Result<Self, RealPartError> {
        Self::start_with(false).await
    }

    /// Starts an API server with an audit log of [writes](Self::writes).
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_audited() -> Result<Self, RealPartError> {
        Self::start_with(true).await
    }

    async fn start_with(audited: bool) -> Result<Self, RealPartError> {
        // Another process may take a free port before it is used.
        for _ in 0..3 {
            match Self::start_once(audited).await {
                Err(error) if error.is_address_in_use() => {}
                started => return started,
            }
        }
        Self::start_once(audited).await
    }

    async fn start_once(audited: bool) -> Result<Self, RealPartError> {
        let authority = Authority::new()?;
        let store_address = free_address().await?;
        let store = Program::start(etcd(store_address, free_address().await?), tempfile::tempdir()?).await?;

        let address = free_address().await?;
        let folder = tempfile::tempdir()?;
        authority.write_server_files(folder.path())?;
        let mut launch = kube_apiserver(address, store_address);
        if audited {
            std::fs::write(folder.path().join(audit::POLICY_FILE), audit::POLICY)?;
            launch = launch.arguments(
                [
                    format!("--audit-policy-file={}", audit::POLICY_FILE),
                    format!("--audit-log-path={}", audit::LOG_FILE),
                ]
                .map(OsString::from),
            );
        }
        let server = Program::start(launch, folder).await?;

        let users = tempfile::tempdir()?;
        let (certificate, key) = authority.client("admin", Some("system:masters"))?;
        let admin = KubeUser::by_certificate(
            users.path(),
            "admin",
            &url(address),
            authority.pem(),
            &certificate,
            &key,
        )?;
        let started = Self { address, server, store, authority, admin, users };
        started.until_ready().await?;
        Ok(started)
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// The certificate of the authority that signed the server's certificate, as PEM.
    #[must_use]
    pub fn certificate_authority(&self) -> &str {
        self.authority.pem()
    }

    /// A user with all permissions.
    #[must_use]
    pub fn admin(&self) -> &KubeUser {
        &self.admin
    }

    /// Creates a user with this name and group, initially without RBAC permissions.
    ///
    /// # Errors
    /// Returns an error if the credentials cannot be written.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<KubeUser, RealPartError> {
        let (certificate, key) = self.authority.client(name, group)?;
        KubeUser::by_certificate(
            self.users.path(),
            name,
            &self.url(),
            self.authority.pem(),
            &certificate,
            &key,
        )
    }

    /// Returns an existing service account as a user, with a token that is valid for an hour.
    ///
    /// # Errors
    /// Returns an error if the service account does not exist.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<KubeUser, RealPartError> {
        // As `kubectl create token` does, which older releases lack.
        let request = tempfile::NamedTempFile::new()?;
        let asked = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}"#;
        std::fs::write(request.path(), asked)?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let arguments: [&OsStr; 5] = [
            "create".as_ref(),
            "--raw".as_ref(),
            path.as_ref(),
            "--filename".as_ref(),
            request.path().as_ref(),
        ];
        let answer = self.admin.kubectl(arguments).await?;
        let given: serde_json::Value = serde_json::from_str(&answer)
            .map_err(|error| RealPartError::new(format_args!("{path} answered {answer:?}: {error}")))?;
        let token = given.pointer("/status/token").and_then(serde_json::Value::as_str).unwrap_or_default();
        let name = format!("{namespace}:{name}");
        KubeUser::by_token(self.users.path(), &name, &self.url(), self.authority.pem(), token)
    }

    /// Returns every completed write so far, in order.
    ///
    /// # Errors
    /// Returns an error if the server was not started with [`start_audited`](Self::start_audited).
    pub fn writes(&self) -> Result<Vec<ApiWrite>, RealPartError> {
        audit::writes(self.server.folder())
    }

    /// Kills the API server: further connections are refused. Stored objects stay.
    ///
    /// # Errors
    /// Returns an error if it cannot be killed.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        self.server.stop().await
    }

    /// Restarts it on the same port with the same objects, and waits until it is ready. Its watch cache is empty: a watch
    /// from an older resource version gets 410.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.server.resume().await?;
        self.until_ready().await
    }

    /// Kills etcd: the API server responds, but no longer with objects.
    ///
    /// # Errors
    /// Returns an error if it cannot be killed.
    pub async fn stop_store(&mut self) -> Result<(), RealPartError> {
        self.store.stop().await
    }

    /// Restarts etcd with the same objects, and waits until the API server is ready.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn resume_store(&mut self) -> Result<(), RealPartError> {
        self.store.resume().await?;
        self.until_ready().await
    }

    /// Polls until ready: the server listens some seconds before, and another process offers nothing to await.
    async fn until_ready(&self) -> Result<(), RealPartError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.admin.kubectl(["get", "--raw", "/readyz"]).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// Returns the path of a Kubernetes program: in the folder of `KUBEBUILDER_ASSETS`, or on the search path.
fn program(name: &str) -> PathBuf {
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(folder) if !folder.is_empty() => Path::new(&folder).join(name),
        _ => PathBuf::from(name),
    }
}

/// Launches etcd without fsync: durability is not needed in tests.
fn etcd(clients: SocketAddr, peers: SocketAddr) -> Launch {
    let clients_url = format!("http://{clients}");
    let peers_url = format!("http://{peers}");
    Launch::new("etcd", InstallSource::Kubernetes, Ready::Ok(clients, "/health"))
        .program(program("etcd"))
        .arguments(
            [
                "--name=test".to_owned(),
                "--data-dir=data".to_owned(),
                format!("--listen-client-urls={clients_url}"),
                format!("--advertise-client-urls={clients_url}"),
                format!("--listen-peer-urls={peers_url}"),
                format!("--initial-advertise-peer-urls={peers_url}"),
                format!("--initial-cluster=test={peers_url}"),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ]
            .map(OsString::from),
        )
}

/// Launches the API server with flags that every release since 1.20 supports.
fn kube_apiserver(address: SocketAddr, store: SocketAddr) -> Launch {
    Launch::new("kube-apiserver", InstallSource::Kubernetes, Ready::Http(address))
        .program(program("kube-apiserver"))
        .arguments(
            [
                format!("--etcd-servers=http://{store}"),
                format!("--bind-address={}", address.ip()),
                format!("--advertise-address={}", address.ip()),
                format!("--secure-port={}", address.port()),
                "--tls-cert-file=server.pem".to_owned(),
                "--tls-private-key-file=server.key".to_owned(),
                "--client-ca-file=authority.pem".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--service-account-key-file=tokens.pem".to_owned(),
                "--service-account-signing-key-file=tokens.key".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
                "--allow-privileged=true".to_owned(),
            ]
            .map(OsString::from),
        )
}
