//! Node platform discovery, for `--arch auto`.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube_client::{Api, Client, api::ListParams};
use kube_core::metadata::PartialObjectMeta;
use parking_lot::RwLock;
use tokio::time::{sleep, timeout};

use super::ApiError;
use crate::copy::{PlatformPattern, Platforms, WantedPlatforms};

/// Refresh interval. A node of a new platform pulls its images from upstream until the next refresh.
const REFRESH: Duration = Duration::from_secs(300);

/// Retry interval after a failed refresh.
const RETRY: Duration = Duration::from_secs(15);

/// Maximum wait for the first refresh.
const LEARN: Duration = Duration::from_secs(60);

/// Number of nodes per page of a list request.
const PAGE_SIZE: u32 = 100;

/// The configured platforms, plus those of the nodes if the configuration contains `auto`. Clones share state.
#[derive(Clone)]
pub struct NodePlatforms(Arc<Shared>);

struct Shared {
    configured: Platforms,
    wanted: RwLock<Arc<Platforms>>,
}

impl NodePlatforms {
    /// Starts with the `configured` platforms. There are no node platforms until [`learn`](Self::learn) or
    /// [`watch`](Self::watch) has listed the nodes.
    #[must_use]
    pub fn new(configured: Platforms) -> Self {
        let wanted = RwLock::new(Arc::new(configured.with_nodes([])));
        Self(Arc::new(Shared { configured, wanted }))
    }

    /// Lists the nodes for the first time, before any image is filtered by platform. Returns after a minute even if the
    /// nodes could not be listed: until they are known, all platforms are cached.
    pub async fn learn(&self, client: &Client) {
        let learned = async {
            while self.0.configured.is_auto() && !self.refresh(client).await {
                sleep(RETRY).await;
            }
        };
        // `watch` tries again later.
        let _ = timeout(LEARN, learned).await;
    }

    /// Lists the nodes; returns whether that succeeded.
    async fn refresh(&self, client: &Client) -> bool {
        match nodes(client).await {
            Ok(nodes) => {
                let nodes = nodes.iter().map(|(os, arch)| PlatformPattern::of_node(os, arch));
                let wanted = Arc::new(self.0.configured.with_nodes(nodes));
                *self.0.wanted.write() = wanted;
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to list node platforms, retrying"
                );
                false
            }
        }
    }

    /// Refreshes the node platforms periodically, forever. Sends no request unless the configuration contains `auto`.
    pub async fn watch(&self, client: Client) {
        if !self.0.configured.is_auto() {
            return std::future::pending().await;
        }
        loop {
            let refreshed = self.refresh(&client).await;
            sleep(if refreshed { REFRESH } else { RETRY }).await;
        }
    }
}

/// Returns the operating system and the architecture of every node.
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
        self.0.wanted.read().clone()
    }
}

impl fmt::Debug for NodePlatforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodePlatforms").field(&self.wanted()).finish()
    }
}
