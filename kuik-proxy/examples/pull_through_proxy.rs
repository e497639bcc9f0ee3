//! A pull-through cache in thirty lines: what one client pulls is stored, and served to the next one.
//!
//! Run it, then pull through it; the registry is part of the path:
//!
//! ```sh
//! cargo run -p kuik-proxy --example pull_through_proxy
//! skopeo copy --src-tls-verify=false docker://localhost:7439/quay.io/prometheus/busybox:latest oci:busybox
//! ```

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use kuik_core::{client::Upstreams, credentials::Anonymous, reference::PortForms};
use kuik_proxy::{
    pull_through::PullThroughOptions,
    serve::{BindAddress, serve},
    stack::{OriginOptions, PullThroughCache, origin_client, pull_through_cache},
    store::FilesystemStore,
};

/// Assembles a cache in `directory`. `upstreams` says where registries are, if not at their own names.
fn cache(directory: &Path, upstreams: Upstreams) -> Result<PullThroughCache, Box<dyn Error>> {
    let store = Arc::new(FilesystemStore::open(directory)?.as_cache());
    let (origin, _transport) = origin_client(OriginOptions::new(upstreams, Anonymous))?;
    let (options, ports) = (PullThroughOptions::default(), PortForms::default());
    Ok(pull_through_cache(store, &origin, options, ports, None, None))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = cache(Path::new("./data"), Upstreams::default())?;
    let listeners = BindAddress::localhost(7439).listen()?;
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    serve(listeners, cache.frontend, interrupted, Duration::from_secs(30)).await;
    // Fetches that are still running are finished, so that nothing is fetched twice.
    cache.pull_through.drain().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use http_body_util::{BodyExt as _, Empty};
    use kuik_testkit::{SampleImage, ScriptedRegistry};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn image_is_served_after_its_registry_has_stopped() {
        let registry = ScriptedRegistry::start().await.unwrap();
        let image = SampleImage::small(1);
        registry.add_image("app", "v1", &image);
        let directory = tempfile::tempdir().unwrap();
        let upstreams =
            Upstreams::default().overriding(&format!("registry.test={}", registry.url())).unwrap();
        let cache = cache(directory.path(), upstreams).unwrap();
        let pull = async || {
            let request = Request::get("/v2/registry.test/app/manifests/v1");
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            let response = cache.frontend.clone().oneshot(request).await.unwrap();
            (response.status(), response.into_body().collect().await.unwrap().to_bytes())
        };
        let first = pull().await;
        assert_eq!(first.0, StatusCode::OK);
        registry.stop().await;
        assert_eq!(pull().await, first);
    }
}
