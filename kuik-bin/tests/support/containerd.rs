//! containerd as a client: a daemon of its own, with folders and sockets of its own, and `ctr` to talk to it.

use std::path::PathBuf;

use kuik_testkit::{
    SampleImage,
    real::{Launch, Program, Ready, RealPartError, run},
};

use super::assert_layout;

/// A running containerd that has pulled nothing yet.
#[derive(Debug)]
pub(crate) struct Containerd {
    program: Program,
}

impl Containerd {
    /// Starts one. Neither the Kubernetes plugin nor a container is needed to pull, and so no network.
    pub(crate) async fn start() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "containerd unpacks images only for root: run this test as root"
        );
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("grpc.sock"),
            at("ttrpc.sock"),
        );
        std::fs::write(at("config.toml"), config).unwrap();
        let launch = Launch::new("containerd", "containerd", Ready::Socket(at("grpc.sock")))
            .arguments(["--config".into(), at("config.toml").into_os_string()]);
        let program = Program::start(launch, folder).await;
        Self { program: program.unwrap_or_else(|error| panic!("{error}")) }
    }

    /// Pulls every platform of an image, as `ctr images pull` does, and compares what it got.
    pub(crate) async fn pull(&self, reference: &str, arguments: &[&str], image: &SampleImage) {
        // The plainest snapshotter: it works on every file system.
        let mut all = vec!["images", "pull", "--all-platforms", "--snapshotter", "native"];
        all.extend(arguments);
        all.push(reference);
        self.ctr(&all).await.unwrap_or_else(|error| panic!("{reference}: {error}"));
        let images = self.ctr(&["images", "list"]).await.unwrap();
        let listed = images.lines().find(|line| line.split_whitespace().next() == Some(reference));
        let digest = listed.and_then(|line| line.split_whitespace().nth(2));
        assert_eq!(digest, Some(image.index().digest().as_str()), "{images}");
        assert_layout(&self.content(), image);
    }

    /// Like the above, but returns the output of `ctr` if the pull fails.
    pub(crate) async fn try_pull(&self, reference: &str, arguments: &[&str]) -> Result<(), RealPartError> {
        let mut all = vec!["images", "pull", "--all-platforms", "--snapshotter", "native"];
        all.extend(arguments);
        all.push(reference);
        self.ctr(&all).await.map(drop)
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<String, RealPartError> {
        let socket = self.program.folder().join("grpc.sock").display().to_string();
        let mut all = vec!["--address", socket.as_str(), "--namespace", "kuik"];
        all.extend(arguments);
        run("ctr", "containerd", all).await
    }

    fn content(&self) -> PathBuf {
        self.program.folder().join("root/io.containerd.content.v1.content/blobs/sha256")
    }
}
