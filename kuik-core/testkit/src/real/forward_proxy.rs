//! Forward proxy: `tinyproxy`.

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
    /// Starts a proxy, with Basic authentication if a user and a password are given, and waits until it responds.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or does not start.
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

    /// The URL, without user and password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the log so far: one line per request and tunnel.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn log(&self) -> Result<String, RealPartError> {
        Ok(std::fs::read_to_string(self.program.folder().join("requests.log"))?)
    }
}
