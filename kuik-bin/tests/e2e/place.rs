//! The cluster that the suite runs on, as far as it has to know it. `tools/e2e` sets these; for a cluster of your own:
//!
//! | variable | what it is |
//! |---|---|
//! | `KUBECONFIG` | an admin's way to it |
//! | `KUIK_E2E_IMAGE` | kuik's image, `REPOSITORY:TAG`, that nodes have, or can pull |
//! | `KUIK_E2E_ADDRESS` | an address of this machine that nodes and pods reach: upstream registries listen there |
//! | `KUIK_E2E_NODE` | a program that says what its one node has (`images`), takes an image from it with its content and all its names (`forget NAME`), or that name alone (`untag NAME`), adds a node that has kuik's image and is called `node2` (`add-node`), and takes that away (`remove-node`) |
//! | `KUIK_E2E_CERTS_DIR` | the node's `config_path`, as a folder here: it is told there which registries have no TLS |
//! | `KUIK_E2E_VOLUME` | a folder of the node, and of this machine, that everybody may write to |
//! | `KUIK_E2E_DISTRIBUTION` | an image with Docker's registry, which starts, and `kubectl` |
//! | `KUIK_E2E_HELM` | Helm, where it is not to be `helm-3` |
//! | `KUIK_E2E_BUSYBOX` | an OCI layout with busybox, of the node's architecture |

use std::{env, net::IpAddr, path::PathBuf};

use kuik_core::testkit::real::Origin;

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

    /// Removes names from the node that have `part` in them; the images stay where they have others.
    pub(crate) async fn untag(&self, part: &str) {
        for name in self.images(part).await {
            self.ask_node(&["untag", &name]).await.unwrap();
        }
    }

    /// What the program of the node prints.
    async fn ask_node(&self, arguments: &[&str]) -> Result<String, String> {
        run(&self.node, Origin::Kubernetes, arguments).await
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
