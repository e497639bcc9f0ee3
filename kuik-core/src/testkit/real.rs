//! Real programs as parts of a test: Docker's registry, skopeo, a forward proxy, and any other as a [`Program`].
//!
//! Each runs in a temporary folder of its own on a free loopback port, is waited for until it answers, and is killed
//! by its handle when it is dropped. A program that is not installed is an error that names its Debian package.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a program may take to answer, and one command to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A real part could not be had.
#[derive(Debug)]
pub struct RealPartError(String);

impl RealPartError {
    fn new(problem: impl fmt::Display) -> Self {
        Self(problem.to_string())
    }
}

impl fmt::Display for RealPartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RealPartError {}

impl From<io::Error> for RealPartError {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

/// How Docker's registry is to be run.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// A user and a password that are demanded with Basic authentication.
    pub basic: Option<(String, String)>,
    /// A certificate and its key, both as PEM, to serve TLS with.
    pub tls: Option<(String, String)>,
    /// The folder to keep content in; a temporary one where none is given.
    pub storage: Option<PathBuf>,
}

/// A running `docker-registry` (Docker's registry, version 2).
#[derive(Debug)]
pub struct DockerRegistry {
    address: SocketAddr,
    program: Program,
    tls: bool,
}

impl DockerRegistry {
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub async fn start(options: &RegistryOptions) -> Result<Self, RealPartError> {
        // Somebody else may take the free port before it is used.
        for _ in 0..3 {
            match Self::start_once(options).await {
                Err(RealPartError(problem)) if problem.contains("address already in use") => {}
                started => return started,
            }
        }
        Self::start_once(options).await
    }

    async fn start_once(options: &RegistryOptions) -> Result<Self, RealPartError> {
        let address = free_address().await?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let storage = options.storage.clone().unwrap_or_else(|| at("storage"));
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage:\n  \
             filesystem: {{rootdirectory: {storage:?}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: \"{address}\"\n"
        );
        if let Some((certificate, key)) = &options.tls {
            std::fs::write(at("cert.pem"), certificate)?;
            std::fs::write(at("key.pem"), key)?;
            config += &format!("  tls: {{certificate: {:?}, key: {:?}}}\n", at("cert.pem"), at("key.pem"));
        }
        if let Some((username, password)) = &options.basic {
            let entry = run("htpasswd", "apache2-utils", ["-Bbn", username, password]).await?;
            std::fs::write(at("htpasswd"), entry)?;
            config += &format!("auth:\n  htpasswd: {{realm: testkit, path: {:?}}}\n", at("htpasswd"));
        }
        std::fs::write(at("config.yml"), config)?;
        let arguments = vec!["serve".into(), at("config.yml").into_os_string()];
        let ready = Ready::Http(address);
        let program = Program::start("docker-registry", "docker-registry", arguments, ready, folder).await?;
        Ok(Self { address, program, tls: options.tls.is_some() })
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Stops it: from now on, connections are refused.
    ///
    /// # Errors
    /// Where it cannot be stopped.
    pub async fn stop(&mut self) -> Result<(), RealPartError> {
        self.program.stop().await
    }

    /// Starts it again on the same port with the same content.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn resume(&mut self) -> Result<(), RealPartError> {
        self.program.resume().await
    }
}

/// A running `tinyproxy`: a forward proxy that tunnels with `CONNECT`.
#[derive(Debug)]
pub struct ForwardProxy {
    address: SocketAddr,
    program: Program,
}

impl ForwardProxy {
    /// Starts one that demands a user and a password where they are given, and waits until it answers.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub async fn start(basic: Option<(&str, &str)>) -> Result<Self, RealPartError> {
        let address = free_address().await?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let mut config = format!(
            "Port {}\nListen {}\nTimeout 30\nMaxClients 50\nAllow 127.0.0.1\nLogFile {:?}\nLogLevel Info\n",
            address.port(),
            address.ip(),
            at("requests.log"),
        );
        if let Some((username, password)) = basic {
            config += &format!("BasicAuth {username} {password}\n");
        }
        std::fs::write(at("tinyproxy.conf"), config)?;
        let arguments = vec!["-d".into(), "-c".into(), at("tinyproxy.conf").into_os_string()];
        let program =
            Program::start("tinyproxy", "tinyproxy", arguments, Ready::Http(address), folder).await?;
        Ok(Self { address, program })
    }

    /// Its URL, without user and password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What it has logged so far: one line for each request and tunnel.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn log(&self) -> Result<String, RealPartError> {
        Ok(std::fs::read_to_string(self.program.folder().join("requests.log"))?)
    }
}

/// Runs `skopeo` without a signature policy of the machine; returns what it printed.
///
/// # Errors
/// Where it is not installed, or fails: the error has its words.
pub async fn skopeo<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    let mut all = vec!["--insecure-policy".into()];
    all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    run("skopeo", "skopeo", all).await
}

/// Runs a program to its end; returns what it printed. `package` is the Debian package that it is in.
///
/// # Errors
/// Where it is not installed, does not end in time, or fails.
pub async fn run<S: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await {
        Ok(output) => output.map_err(|error| missing(program, package, &error))?,
        Err(_) => return Err(RealPartError::new(format_args!("{program} did not end within {PATIENCE:?}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(RealPartError::new(format_args!("{program} failed ({}): {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A free loopback address. Somebody else may take it before it is used.
///
/// # Errors
/// Where there is none.
pub async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

fn missing(program: &str, package: &str, error: &io::Error) -> RealPartError {
    RealPartError::new(format_args!(
        "{program} cannot be run ({error}): install the Debian package {package}"
    ))
}

/// How it is seen that a program has started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// It answers HTTP requests there, or refuses them as a TLS server does.
    Http(SocketAddr),
    /// It accepts connections on this Unix socket.
    Socket(PathBuf),
}

/// A program that runs until it is dropped, in a folder of its own that goes with it.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    package: &'static str,
    arguments: Vec<OsString>,
    ready: Ready,
    child: Child,
    folder: TempDir,
}

impl Program {
    /// Starts a program, and waits until it is ready. `package` is the Debian package that it is in; its working
    /// directory is `folder`.
    ///
    /// # Errors
    /// Where it is not installed, ends, or is not ready in time: the error has its words.
    pub async fn start(
        name: &'static str,
        package: &'static str,
        arguments: Vec<OsString>,
        ready: Ready,
        folder: TempDir,
    ) -> Result<Self, RealPartError> {
        let child = spawn(name, package, &arguments, folder.path())?;
        let mut program = Self { name, package, arguments, ready, child, folder };
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
        self.child = spawn(self.name, self.package, &self.arguments, self.folder.path())?;
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
        match &self.ready {
            Ready::Http(address) => answers(*address).await,
            Ready::Socket(path) => UnixStream::connect(path).await.is_ok(),
        }
    }

    fn failed(&self, problem: &str) -> RealPartError {
        let said = std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
        RealPartError::new(format_args!("{} {problem}: {said}", self.name))
    }
}

fn spawn(name: &str, package: &str, arguments: &[OsString], folder: &Path) -> Result<Child, RealPartError> {
    let output = std::fs::File::create(folder.join("output"))?;
    Command::new(name)
        .args(arguments)
        .current_dir(folder)
        .env_remove("HTTP_PROXY")
        .env_remove("HTTPS_PROXY")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| missing(name, package, &error))
}

/// Whether anything answers an HTTP request there: a TLS server does too, with a refusal.
async fn answers(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        stream.read(&mut [0; 16]).await
    };
    matches!(timeout(Duration::from_secs(1), ask).await, Ok(Ok(read)) if read > 0)
}
