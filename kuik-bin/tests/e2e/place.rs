//! Environment of the suite: the cluster that it runs on. `tools/e2e` sets these variables; for your own cluster:
//!
//! | variable | meaning |
//! |---|---|
//! | `KUBECONFIG` | kubeconfig of a cluster administrator |
//! | `KUIK_E2E_IMAGE` | kuik's image, `REPOSITORY:TAG`, that nodes have, or can pull |
//! | `KUIK_E2E_ADDRESS` | an address of this machine that nodes and pods reach: upstream registries listen there |
//! | `KUIK_E2E_NODE` | a program that lists the images of its single node (`images`), deletes an image with its content and all its names (`forget NAME`), or one name (`untag NAME`), adds a node called `node2` that has kuik's image (`add-node`), one that is not ready before a pod has renamed its CNI configuration (`add-node-alone`, `network-file`), and removes it (`remove-node`) |
//! | `KUIK_E2E_CERTS_DIR` | the node's `config_path`, as a local directory, for the configuration of registries without TLS |
//! | `KUIK_E2E_VOLUME` | a world-writable directory of the node and of this machine |
//! | `KUIK_E2E_DISTRIBUTION` | an image with Docker's registry as its entry point, and `kubectl` |
//! | `KUIK_E2E_HELM` | path of Helm; `helm-3` by default |
//! | `KUIK_E2E_BUSYBOX` | an OCI layout with busybox, of the node's architecture |

use std::{env, net::IpAddr, path::PathBuf};

use kuik_testkit::real::InstallSource;

use super::command::run;

pub(crate) struct Place {
    /// kuik's image.
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) address: IpAddr,
    pub(crate) certs_dir: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) volume: String,
    /// Docker's registry, and kubectl.
    pub(crate) distribution: String,
    node: String,
}

impl Place {
    pub(crate) fn here() -> Self {
        let get = |name: &str| {
            env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set: run this by make e2e, see tests/e2e/place.rs"))
        };
        get("KUBECONFIG");
        let image = get("KUIK_E2E_IMAGE");
        let (repository, tag) = image.rsplit_once(':').unwrap();
        Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            address: get("KUIK_E2E_ADDRESS").parse().unwrap(),
            certs_dir: get("KUIK_E2E_CERTS_DIR").into(),
            volume: get("KUIK_E2E_VOLUME"),
            distribution: get("KUIK_E2E_DISTRIBUTION"),
            busybox: get("KUIK_E2E_BUSYBOX").into(),
            node: get("KUIK_E2E_NODE"),
        }
    }

    /// Removes from the node every image whose name has `part` in it, with its content and all its names.
    pub(crate) async fn forget(&self, part: &str) {
        for name in self.images(part).await {
            self.ask_node(&["forget", &name]).await.unwrap();
        }
        assert_eq!(self.images(part).await, [""; 0], "they are gone from the node");
    }

    /// Adds a second node, for as long as what is returned is there.
    pub(crate) async fn add_node(&self) -> AddedNode {
        let added = AddedNode { program: self.node.clone(), name: "node2" };
        self.ask_node(&["add-node"]).await.unwrap();
        added
    }

    /// Adds a second node whose network is configured by a pod: it removes `.pending` from the name of
    /// [this file](Self::network_file). Returns when the node is ready.
    pub(crate) async fn add_node_without_network(&self) -> AddedNode {
        let added = AddedNode { program: self.node.clone(), name: "node2" };
        self.ask_node(&["add-node-alone"]).await.unwrap();
        added
    }

    /// The CNI configuration of the second node, with `.pending` after its name.
    pub(crate) async fn network_file(&self) -> PathBuf {
        self.ask_node(&["network-file"]).await.unwrap().trim().into()
    }

    /// Removes image names that contain `part` from the node; images with other names stay.
    pub(crate) async fn untag(&self, part: &str) {
        for name in self.images(part).await {
            self.ask_node(&["untag", &name]).await.unwrap();
        }
    }

    /// Returns the output of the node's program.
    async fn ask_node(&self, arguments: &[&str]) -> Result<String, String> {
        run(&self.node, InstallSource::Kubernetes, arguments).await
    }

    /// Returns how many blobs the node is pulling at this moment.
    pub(crate) async fn pulls(&self) -> usize {
        let listed = self.ask_node(&["pulls"]).await.unwrap();
        listed.lines().filter(|line| line.contains("layer-")).count()
    }

    pub(crate) async fn images(&self, part: &str) -> Vec<String> {
        let listed = self.ask_node(&["images"]).await.unwrap();
        listed.lines().filter(|name| name.contains(part)).map(str::to_owned).collect()
    }
}

/// A second node, which goes with this, whatever becomes of the scenario.
pub(crate) struct AddedNode {
    program: String,
    pub(crate) name: &'static str,
}

impl Drop for AddedNode {
    fn drop(&mut self) {
        let removed = std::process::Command::new(&self.program).arg("remove-node").status();
        if !removed.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("{} was not removed: {removed:?}", self.name);
        }
    }
}
