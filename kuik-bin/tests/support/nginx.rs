//! nginx in one process, which a kill ends whole, with every file in a folder of its own.

use std::net::SocketAddr;

use kuik_testkit::real::{Launch, Program, Ready};

use super::eventually;

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    program: Program,
}

impl Nginx {
    /// Starts one with these servers; waits until it answers at `address`. Its access logs are files in its folder
    /// (`access_log NAME seen`): one line a request, with the `Authorization` that came with it.
    pub(crate) async fn start(address: SocketAddr, http: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\naccess_log off;\n\
             log_format seen '$request_method $uri $status authorization=\"$http_authorization\"';\n{http}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let at = folder.path().join("");
        let launch = Launch::new("nginx", "nginx-light", Ready::Http(address)).arguments([
            "-p".into(),
            at.into_os_string(),
            "-c".into(),
            "nginx.conf".into(),
            "-e".into(),
            "error.log".into(),
        ]);
        let program = Program::start(launch, folder).await;
        Self { program: program.unwrap_or_else(|error| panic!("{error}")) }
    }

    /// An access log.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.program.folder().join(name)).unwrap_or_default()
    }

    /// The access log once it has `text`: nginx writes a line when the answer has been sent.
    pub(crate) async fn log_with(&self, name: &str, text: &str) -> String {
        eventually(&format!("{name} has {text}"), async || self.log(name).contains(text)).await;
        self.log(name)
    }
}
