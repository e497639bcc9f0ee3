//! A program that runs until it is dropped.

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

use super::error::{Origin, RealPartError};

/// How long a program may take to answer, and one command to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How it is seen that a program has started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// It answers HTTP requests there, or refuses them as a TLS server does.
    Http(SocketAddr),
    /// It answers 200 to a request for this path.
    Ok(SocketAddr, &'static str),
    /// It accepts connections on this Unix socket.
    Socket(PathBuf),
}

/// What is run, and how.
#[derive(Clone)]
pub struct Launch {
    name: &'static str,
    /// What is run, where that is not `name` as the search path finds it.
    program: Option<PathBuf>,
    origin: Origin,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    ready: Ready,
}

impl Launch {
    /// The program `name`, which comes from `origin` (the name of a Debian package will do).
    pub fn new(name: &'static str, origin: impl Into<Origin>, ready: Ready) -> Self {
        Self {
            name,
            program: None,
            origin: origin.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            ready,
        }
    }

    /// Runs this program, and not the one that the search path finds under its name.
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

    /// Adds a variable to its environment.
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
            // Docker's registry 2.8 does not start over S3 where it is set.
            .env_remove("AWS_CA_BUNDLE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| RealPartError::missing(self.name, self.origin, &error))
    }
}

/// Without the values of the environment, which can be secret.
impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("name", &self.name)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// A program that runs until it is dropped, in a folder of its own that goes with it.
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
    /// Where it is not installed, ends, or is not ready in time: the error has its words.
    pub async fn start(launch: Launch, folder: TempDir) -> Result<Self, RealPartError> {
        let child = launch.spawn(folder.path())?;
        let mut program = Self { launch, child, folder };
        program.until_ready().await?;
        Ok(program)
    }

    /// The folder that it runs in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again as it was started first.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.child = self.launch.spawn(self.folder.path())?;
        self.until_ready().await
    }

    /// Another process offers nothing to await, so it is asked again and again.
    async fn until_ready(&mut self) -> Result<(), RealPartError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("does not answer"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        // It may be somebody else who answers, where the port was taken.
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

/// The first bytes of what is answered to an HTTP request there: a TLS server answers too, with a refusal.
async fn answer(address: SocketAddr, path: &str) -> Option<Vec<u8>> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut start = Vec::new();
        // A refusal in TLS is shorter than what is read of an answer, and ends with the connection.
        match stream.take(16).read_to_end(&mut start).await {
            Err(error) if start.is_empty() => Err(error),
            _ => Ok(start),
        }
    };
    let start = timeout(Duration::from_secs(1), ask).await.ok()?.ok()?;
    (!start.is_empty()).then_some(start)
}
