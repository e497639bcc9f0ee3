//! A registry that images come from: Docker's own, at an address that nodes and pods reach.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use kuik_testkit::real::{Launch, Program, Ready, run, skopeo};

use super::{Image, Place};

/// A running registry, that the node speaks plain http to when it pulls from there itself.
pub(crate) struct Upstream {
    program: Program,
    address: SocketAddr,
    user: Option<(String, String)>,
    /// Node configuration for it, removed on drop.
    hosts: PathBuf,
}

impl Upstream {
    pub(crate) async fn open(place: &Place) -> Self {
        Self::start(place, None).await
    }

    /// One that demands this user and password.
    pub(crate) async fn private(place: &Place, user: &str, password: &str) -> Self {
        Self::start(place, Some((user.to_owned(), password.to_owned()))).await
    }

    async fn start(place: &Place, user: Option<(String, String)>) -> Self {
        let address = TcpListener::bind((place.address, 0)).unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n",
            at("storage")
        );
        if let Some((name, password)) = &user {
            let entry = run("htpasswd", "apache2-utils", ["-Bbn", name, password]).await.unwrap();
            fs::write(at("htpasswd"), entry).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: e2e, path: {:?}}}}}\n", at("htpasswd"));
        }
        fs::write(at("config.yml"), config).unwrap();
        let launch = Launch::new("docker-registry", "docker-registry", Ready::Http(address))
            .arguments(["serve".into(), at("config.yml").into_os_string()]);
        let program = Program::start(launch, folder).await.unwrap();
        let hosts = place.certs_dir.join(address.to_string());
        fs::create_dir_all(&hosts).unwrap();
        // containerd 1.6 does not read a file of a server alone.
        let told = format!("server = \"http://{address}\"\n[host.\"http://{address}\"]\n");
        fs::write(hosts.join("hosts.toml"), told).unwrap();
        Self { program, address, user, hosts }
    }

    /// Serves through nginx, which sends each response at `rate` bytes per second, until this is dropped; returns its
    /// address, which nodes have to pull from in place of [`host`](Self::host).
    pub(crate) async fn throttled(&self, place: &Place, rate: u32) -> Throttled {
        let address = TcpListener::bind((place.address, 0)).unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("");
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{ listen {address}; limit_rate {rate}; location / {{\n\
             proxy_pass http://{};\nproxy_set_header Host $http_host; }} }}\n}}\n",
            self.address
        );
        fs::write(at.join("nginx.conf"), config).unwrap();
        let flags = ["-c", "nginx.conf", "-e", "error.log", "-p"].map(Into::into);
        let launch = Launch::new("nginx", "nginx-light", Ready::Http(address))
            .arguments(flags.into_iter().chain([at.into_os_string()]));
        Throttled { _program: Program::start(launch, folder).await.unwrap(), address }
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Pushes an image as `name`; returns the name that pods use.
    pub(crate) async fn push(&self, image: &Image, name: &str) -> String {
        let full = format!("{}/{name}", self.address);
        let flags = ["copy", "--all", "--quiet", "--preserve-digests", "--dest-tls-verify=false"];
        let mut arguments: Vec<_> = flags.map(str::to_owned).into();
        if let Some((user, password)) = &self.user {
            arguments.push(format!("--dest-creds={user}:{password}"));
        }
        arguments.extend([image.reference(), format!("docker://{full}")]);
        skopeo(arguments).await.unwrap();
        full
    }

    /// Deletes the manifest that `name` (as pods name it) stands for.
    pub(crate) async fn delete(&self, name: &str) {
        let image = format!("docker://{name}");
        skopeo(["delete", "--tls-verify=false", &image]).await.unwrap();
    }

    /// Makes nginx respond to every request with a rate limit error, until this is dropped.
    pub(crate) async fn out_of_quota(&mut self) -> Program {
        self.program.stop().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("");
        let address = self.address;
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log asked.log;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{ listen {address}; add_header Retry-After 21600 always; return 429; }}\n}}\n"
        );
        fs::write(at.join("nginx.conf"), config).unwrap();
        let flags = ["-c", "nginx.conf", "-e", "error.log", "-p"].map(Into::into);
        let launch = Launch::new("nginx", "nginx-light", Ready::Http(address))
            .arguments(flags.into_iter().chain([at.into_os_string()]));
        Program::start(launch, folder).await.unwrap()
    }

    /// Removes the node configuration.
    pub(crate) fn untold(&self) {
        fs::remove_dir_all(&self.hosts).unwrap();
    }

    /// From now on, connections are refused.
    pub(crate) async fn stop(&mut self) {
        self.program.stop().await.unwrap();
    }

    pub(crate) async fn resume(&mut self) {
        self.program.resume().await.unwrap();
    }
}

/// A slow way to an [`Upstream`].
pub(crate) struct Throttled {
    _program: Program,
    address: SocketAddr,
}

impl Throttled {
    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Nothing is to be done about one that cannot be removed: its cluster goes too.
        let _ = fs::remove_dir_all(&self.hosts);
    }
}
