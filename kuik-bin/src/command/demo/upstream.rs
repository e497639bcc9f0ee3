//! Upstream registry of the demonstration: a filesystem store behind the distribution API, with a request log.

use std::{convert::Infallible, path::Path, sync::Arc};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use kuik_core::{
    content::{ContentStore, Verifier},
    reference::{RepositoryName, Tag},
};
use kuik_proxy::{
    serve::{self, BindAddress},
    service::{ProxyBody, ProxyMetrics, ProxyOptions, ProxyService},
    store::FilesystemStore,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::cli_error::CliError;

use super::{LIMIT, REPOSITORY, TAG, image::DemoImage};

/// The upstream registry.
pub(super) struct Upstream {
    port: u16,
    log: Arc<Mutex<Vec<Download>>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<usize>)>,
}

/// A download from the upstream.
#[derive(Debug, Clone)]
pub(super) struct Download {
    pub path: String,
    pub bytes: u64,
}

impl Upstream {
    /// Starts a registry that holds `image`.
    pub(super) async fn start(dir: &Path, image: &DemoImage) -> Result<Self, CliError> {
        let store = FilesystemStore::open(dir).map_err(CliError::new)?;
        fill(&store, image).await?;
        let listeners = BindAddress::localhost(0).listen().map_err(CliError::new)?;
        let port = port_of(&listeners)?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let proxy = ProxyService::new(Arc::new(store), ProxyOptions::default(), ProxyMetrics::default());
        let written = log.clone();
        let service =
            tower::service_fn(move |request| answer_and_log(proxy.clone(), written.clone(), request));
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(serve::serve(listeners, service, stopped, LIMIT));
        Ok(Self { port, log, running: Some((stop, serving)) })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the downloads since the last call.
    pub(super) fn take_log(&self) -> Vec<Download> {
        std::mem::take(&mut *self.log.lock())
    }

    pub(super) async fn stop(&mut self) {
        if let Some((stop, serving)) = self.running.take() {
            drop(stop);
            let _ = serving.await;
        }
    }
}

/// Returns the port that `listeners` share.
pub(super) fn port_of(listeners: &[TcpListener]) -> Result<u16, CliError> {
    let first = listeners.first().ok_or_else(|| CliError::new("cannot listen on a loopback address"))?;
    Ok(first.local_addr().map_err(CliError::new)?.port())
}

async fn fill(store: &FilesystemStore, image: &DemoImage) -> Result<(), CliError> {
    // Without a registry: the name of the repository in the upstream itself.
    let repository = RepositoryName::new("docker.io", REPOSITORY).map_err(CliError::new)?;
    for (digest, content) in &image.blobs {
        let mut verifier =
            Verifier::new(digest).ok_or_else(|| CliError::new("the digest cannot be computed"))?;
        verifier.update(content);
        let mut writer = store.write_blob().await.map_err(CliError::new)?;
        writer.append(std::slice::from_ref(content)).await.map_err(CliError::new)?;
        let verified = verifier.finish().map_err(CliError::new)?;
        writer.publish(verified, std::slice::from_ref(&repository)).await.map_err(CliError::new)?;
    }
    for manifest in &image.manifests {
        store.put_manifest(&repository, manifest, None).await.map_err(CliError::new)?;
    }
    let tag: Tag = TAG.parse().map_err(CliError::new)?;
    store.put_manifest(&repository, &image.index, Some(&tag)).await.map_err(CliError::new)
}

/// Forwards to `proxy`, and records each download. A `HEAD`, with which the cache revalidates the tag, is none.
async fn answer_and_log(
    proxy: ProxyService,
    log: Arc<Mutex<Vec<Download>>>,
    request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Infallible> {
    let (parts, _) = request.into_parts();
    let (path, is_get) = (parts.uri.path().to_owned(), parts.method == Method::GET);
    let response = proxy.answer(parts.method, parts.uri, parts.headers).await;
    let length = response.headers().get(header::CONTENT_LENGTH);
    let bytes = length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    if is_get && response.status() == StatusCode::OK {
        log.lock().push(Download { path, bytes });
    }
    Ok(response)
}
