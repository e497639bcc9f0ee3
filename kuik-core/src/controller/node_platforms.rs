//! The platforms of the cluster's nodes, for `--arch auto`.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube_client::{Api, Client, api::ListParams};
use kube_core::metadata::PartialObjectMeta;
use tokio::time::{sleep, timeout};

use super::ApiError;
use crate::copy::{PlatformPattern, Platforms, WantedPlatforms};

/// How often nodes are looked at: one of a new platform waits as long for its images to be kept, and pulls them itself.
const REFRESH: Duration = Duration::from_secs(300);

/// How soon they are looked at again where that failed.
const RETRY: Duration = Duration::from_secs(15);

/// How long that is waited for at first.
const LEARN: Duration = Duration::from_secs(60);

/// How many nodes one answer has.
const PAGE_SIZE: u32 = 100;

/// The platforms that are configured, and those of the nodes where that is configured. Clones are the same.
#[derive(Clone)]
pub struct NodePlatforms(Arc<Shared>);

struct Shared {
    configured: Platforms,
    wanted: RwLock<Arc<Platforms>>,
}

impl NodePlatforms {
    /// The `configured` platforms; of the nodes nothing is known before [`learn`](Self::learn) or [`keep`](Self::keep)
    /// has looked, and that is as if there were none.
    #[must_use]
    pub fn new(configured: Platforms) -> Self {
        let wanted = RwLock::new(Arc::new(configured.with_nodes([])));
        Self(Arc::new(Shared { configured, wanted }))
    }

    /// Looks at the nodes for the first time, before anything is kept by what they are. Returns where that cannot be known
    /// for a minute as well: then everything is kept.
    pub async fn learn(&self, client: &Client) {
        let learned = async {
            while self.0.configured.is_auto() && !self.look(client).await {
                sleep(RETRY).await;
            }
        };
        // Who looks from time to time will know.
        let _ = timeout(LEARN, learned).await;
    }

    /// Looks at the nodes; whether that has succeeded.
    async fn look(&self, client: &Client) -> bool {
        match nodes(client).await {
            Ok(nodes) => {
                let nodes = nodes.iter().map(|(os, arch)| PlatformPattern::of_node(os, arch));
                let wanted = Arc::new(self.0.configured.with_nodes(nodes));
                *self.0.wanted.write().unwrap_or_else(PoisonError::into_inner) = wanted;
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the platforms of the nodes are not known"
                );
                false
            }
        }
    }

    /// Looks at the nodes from time to time, for ever. Where their platforms are not wanted, it asks nothing.
    pub async fn keep(&self, client: Client) {
        if !self.0.configured.is_auto() {
            return std::future::pending().await;
        }
        loop {
            let looked = self.look(&client).await;
            sleep(if looked { REFRESH } else { RETRY }).await;
        }
    }
}

/// The operating system and the architecture of every node.
async fn nodes(client: &Client) -> Result<BTreeSet<(String, String)>, ApiError> {
    let api: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE_SIZE);
    let mut found = BTreeSet::new();
    loop {
        let page = api.list(&params).await.map_err(|error| ApiError::new("list the nodes", error))?;
        for node in &page.items {
            let labels = node.metadata.labels.as_ref();
            let label = |name: &str| labels.and_then(|labels| labels.get(name)).cloned();
            let os = label("kubernetes.io/os").unwrap_or_else(|| "linux".to_owned());
            found.extend(label("kubernetes.io/arch").map(|arch| (os, arch)));
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            _ => return Ok(found),
        }
    }
}

impl WantedPlatforms for NodePlatforms {
    fn wanted(&self) -> Arc<Platforms> {
        self.0.wanted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for NodePlatforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodePlatforms").field(&self.wanted()).finish()
    }
}
