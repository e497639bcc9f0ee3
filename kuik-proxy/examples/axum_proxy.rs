//! kuik's pull-through cache in an axum application, behind layers of one's own.
//!
//! The cache is a tower service, so it is mounted as a route, and any layer of the application applies to it: here one
//! that refuses teams without a header, and one that marks responses. Container engines use paths below `/v2/`.
//!
//! ```sh
//! cargo run -p kuik-proxy --example axum_proxy
//! curl -H 'X-Team: shop' localhost:8080/v2/docker.io/library/alpine/manifests/latest
//! ```

use std::{error::Error, path::Path, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::get,
};
use kuik_core::{client::Upstreams, credentials::Anonymous, reference::PortForms};
use kuik_proxy::{
    pull_through::{PullThrough, PullThroughOptions},
    stack::{OriginOptions, origin_client, pull_through_cache},
    store::FilesystemStore,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, util::MapResponseLayer};

/// A layer of one's own that may answer instead of the cache.
async fn require_team(request: Request, next: Next) -> Response {
    if request.headers().contains_key("x-team") {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "set the header X-Team").into_response()
    }
}

/// A layer of one's own that changes responses.
fn mark(mut response: Response) -> Response {
    response.headers_mut().insert("x-served-by", HeaderValue::from_static("my-platform"));
    response
}

/// Returns the application, and the cache inside it: drain that one at the end.
fn application(directory: &Path, upstreams: Upstreams) -> Result<(Router, PullThrough), Box<dyn Error>> {
    // The store, the client of other registries, and the cache over both. Nothing is spawned.
    let store = Arc::new(FilesystemStore::open(directory)?.as_cache());
    let (origin, _transport) = origin_client(OriginOptions::new(upstreams, Anonymous))?;
    let (options, ports) = (PullThroughOptions::default(), PortForms::default());
    let cache = pull_through_cache(store, &origin, options, ports, None, None);

    // Read from top to bottom: the first layer sees a request first, and its response last.
    let layers = ServiceBuilder::new().layer(MapResponseLayer::new(mark)).layer(from_fn(require_team));
    let registry = Router::new()
        .route_service("/v2/", cache.frontend.clone())
        .route_service("/v2/{*path}", cache.frontend)
        .layer(layers);
    // The layers apply to the routes above only: the application's own stay as they are.
    Ok((registry.route("/healthz", get(|| async { "ok" })), cache.pull_through))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (application, cache) = application(Path::new("./data"), Upstreams::default())?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, application).with_graceful_shutdown(interrupted).await?;
    // Fetches that are still running are finished, so that nothing is fetched twice.
    cache.drain().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use kuik_testkit::{SampleImage, ScriptedRegistry, Target};
    use tower::ServiceExt as _;

    use super::{Request, StatusCode, Upstreams, application};

    #[tokio::test]
    async fn own_layers_apply_to_the_cache_and_not_to_other_routes() {
        let registry = ScriptedRegistry::start().await.unwrap();
        let image = SampleImage::small(4);
        registry.add_image("team/app", "v1", &image);
        let directory = tempfile::tempdir().unwrap();
        let upstreams =
            Upstreams::default().overriding(&format!("registry.test={}", registry.url())).unwrap();
        let (application, _cache) = application(directory.path(), upstreams).unwrap();
        let send = async |path: &str, team: Option<&str>| {
            let mut request = Request::get(path);
            if let Some(team) = team {
                request = request.header("x-team", team);
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            application.clone().oneshot(request).await.unwrap()
        };

        let path = "/v2/registry.test/team/app/manifests/v1";
        let refused = send(path, None).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()["x-served-by"], "my-platform");
        assert_eq!(registry.count(Target::Manifest), 0, "a refused request does not reach the cache");

        let served = send(path, Some("shop")).await;
        assert_eq!(served.status(), StatusCode::OK);
        assert_eq!(served.headers()["x-served-by"], "my-platform");
        let body = served.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, image.index().bytes());

        let health = send("/healthz", None).await;
        assert_eq!(health.status(), StatusCode::OK);
        assert!(!health.headers().contains_key("x-served-by"));
        assert_eq!(send("/v2/", Some("shop")).await.status(), StatusCode::OK);
    }
}
