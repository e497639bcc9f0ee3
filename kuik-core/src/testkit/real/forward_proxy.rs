//! A forward proxy, as companies have: `tinyproxy`.

use std::net::SocketAddr;

use super::{
    error::RealPartError,
    free_address,
    program::{Launch, Program, Ready},
};

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
        let launch = Launch::new("tinyproxy", "tinyproxy", Ready::Http(address)).arguments([
            "-d".into(),
            "-c".into(),
            at("tinyproxy.conf").into_os_string(),
        ]);
        let program = Program::start(launch, folder).await?;
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
