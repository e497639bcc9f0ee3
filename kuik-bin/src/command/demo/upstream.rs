//! The registry that goes away: a store on disk behind the same API, with a log of what it was asked.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use kuik_core::{
    content::{ContentStore, Verifier},
    reference::{RepositoryName, Tag},
};
use kuik_proxy::{
    server::{self, BindAddress},
    service::{ProxyBody, ProxyMetrics, ProxyOptions, ProxyService},
    store::FilesystemStore,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{Failure, LIMIT, REPOSITORY, TAG, image::DemoImage};

/// The upstream registry.
pub(super) struct Upstream {
    port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<usize>)>,
}

/// A request that the upstream answered.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub path: String,
    /// How many bytes of content it sent.
    pub bytes: u64,
}

impl Upstream {
    /// Starts a registry that holds `image`.
    pub(super) async fn start(dir: &Path, image: &DemoImage) -> Result<Self, Failure> {
        let store = FilesystemStore::open(dir).map_err(Failure::new)?;
        fill(&store, image).await?;
        let listeners = BindAddress::localhost(0).listen().map_err(Failure::new)?;
        let port = port_of(&listeners)?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let proxy = ProxyService::new(Arc::new(store), ProxyOptions::default(), ProxyMetrics::default());
        let written = log.clone();
        let service =
            tower::service_fn(move |request| answer_and_log(proxy.clone(), written.clone(), request));
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(server::serve(listeners, service, stopped, LIMIT));
        Ok(Self { port, log, running: Some((stop, serving)) })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it was asked since the last time.
    pub(super) fn take_log(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn stop(&mut self) {
        if let Some((stop, serving)) = self.running.take() {
            drop(stop);
            let _ = serving.await;
        }
    }
}

/// The port that `listeners` share.
pub(super) fn port_of(listeners: &[TcpListener]) -> Result<u16, Failure> {
    let first = listeners.first().ok_or_else(|| Failure::new("no loopback address could be listened on"))?;
    Ok(first.local_addr().map_err(Failure::new)?.port())
}

async fn fill(store: &FilesystemStore, image: &DemoImage) -> Result<(), Failure> {
    // Without a registry in its name: this is what the upstream itself calls the repository.
    let repository = RepositoryName::new("docker.io", REPOSITORY).map_err(Failure::new)?;
    for (digest, content) in &image.blobs {
        let mut verifier =
            Verifier::new(digest).ok_or_else(|| Failure::new("the digest cannot be computed"))?;
        verifier.update(content);
        let mut writer = store.write_blob().await.map_err(Failure::new)?;
        writer.append(std::slice::from_ref(content)).await.map_err(Failure::new)?;
        let verified = verifier.finish().map_err(Failure::new)?;
        writer.publish(verified, std::slice::from_ref(&repository)).await.map_err(Failure::new)?;
    }
    for manifest in &image.manifests {
        store.put_manifest(&repository, manifest, None).await.map_err(Failure::new)?;
    }
    let tag: Tag = TAG.parse().map_err(Failure::new)?;
    store.put_manifest(&repository, &image.index, Some(&tag)).await.map_err(Failure::new)
}

/// Answers as `proxy` does, and writes down what it was asked and how much it sent.
async fn answer_and_log(
    proxy: ProxyService,
    log: Arc<Mutex<Vec<Asked>>>,
    request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Infallible> {
    let (parts, _) = request.into_parts();
    let (path, head) = (parts.uri.path().to_owned(), parts.method == Method::HEAD);
    let response = proxy.answer(parts.method, parts.uri, parts.headers).await;
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let bytes = if head { 0 } else { length };
    if response.status() == StatusCode::OK {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { path, bytes });
    }
    Ok(response)
}
