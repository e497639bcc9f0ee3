//! Background program, killed on drop.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::error::{InstallSource, RealPartError};

/// Timeout for a program to become ready, and for a command to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Readiness check of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// It responds to HTTP requests at this address, or refuses them as a TLS server does.
    Http(SocketAddr),
    /// It responds with 200 to a request for this path.
    Ok(SocketAddr, &'static str),
    /// It accepts connections on this Unix socket.
    Socket(PathBuf),
}

/// Command line of a program, and its readiness check.
#[derive(Clone)]
pub struct Launch {
    name: &'static str,
    /// The executable, if it is not `name` on the search path.
    program: Option<PathBuf>,
    install_source: InstallSource,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    ready: Ready,
}

impl Launch {
    /// Launches the program `name`; `install_source` may be the name of a Debian package.
    pub fn new(name: &'static str, install_source: impl Into<InstallSource>, ready: Ready) -> Self {
        Self {
            name,
            program: None,
            install_source: install_source.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            ready,
        }
    }

    /// Runs this executable instead of the one on the search path.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = OsString>) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn spawn(&self, folder: &Path) -> Result<Child, RealPartError> {
        let output = std::fs::File::create(folder.join("output"))?;
        Command::new(self.program.as_deref().unwrap_or_else(|| Path::new(self.name)))
            .args(&self.arguments)
            .current_dir(folder)
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            // Docker's registry 2.8 does not start over S3 if it is set.
            .env_remove("AWS_CA_BUNDLE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| RealPartError::missing(self.name, self.install_source, &error))
    }
}

/// Omits the values of the environment, which may be secret.
impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("name", &self.name)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// A program that runs until it is dropped, in its own folder, which is deleted with it.
#[derive(Debug)]
pub struct Program {
    launch: Launch,
    child: Child,
    folder: TempDir,
}

impl Program {
    /// Starts a program, and waits until it is ready. Its working directory is `folder`.
    ///
    /// # Errors
    /// Returns an error if it is not installed, ends, or is not ready in time: the error has its output.
    pub async fn start(launch: Launch, folder: TempDir) -> Result<Self, RealPartError> {
        let child = launch.spawn(folder.path())?;
        let mut program = Self { launch, child, folder };
        program.until_ready().await?;
        Ok(program)
    }

    /// Its working directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it, and waits until it has ended.
    ///
    /// # Errors
    /// Returns an error if it cannot be killed.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        Ok(self.child.kill().await?)
    }

    /// Restarts it with the same command line.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.child = self.launch.spawn(self.folder.path())?;
        self.until_ready().await
    }

    /// Another process offers nothing to await, so this polls.
    async fn until_ready(&mut self) -> Result<(), RealPartError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("does not respond"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        // If the port was taken, the response may come from another process.
        match self.child.try_wait()? {
            Some(status) => Err(self.failed(&format!("ended ({status})"))),
            None => Ok(()),
        }
    }

    async fn is_ready(&self) -> bool {
        match &self.launch.ready {
            Ready::Http(address) => answer(*address, "/v2/").await.is_some(),
            Ready::Ok(address, path) => {
                answer(*address, path).await.is_some_and(|answer| answer.get(8..12) == Some(b" 200"))
            }
            Ready::Socket(path) => UnixStream::connect(path).await.is_ok(),
        }
    }

    fn failed(&self, problem: &str) -> RealPartError {
        let said = std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
        RealPartError::new(format_args!("{} {problem}: {said}", self.launch.name))
    }
}

/// Returns the first bytes of the response to an HTTP request; a TLS server responds too, with a refusal.
async fn answer(address: SocketAddr, path: &str) -> Option<Vec<u8>> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut start = Vec::new();
        // A TLS refusal is shorter than the buffer, and ends with the connection.
        match stream.take(16).read_to_end(&mut start).await {
            Err(error) if start.is_empty() => Err(error),
            _ => Ok(start),
        }
    };
    let start = timeout(Duration::from_secs(1), ask).await.ok()?.ok()?;
    (!start.is_empty()).then_some(start)
}
