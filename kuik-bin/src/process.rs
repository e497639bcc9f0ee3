//! Process lifecycle: runtime, logging, listeners and graceful shutdown.

use std::{
    convert::Infallible,
    error::Error,
    future,
    io::{self, IsTerminal as _},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use kuik_core::trace::SpanSink;
use kuik_proxy::{
    pull_through::PullThrough,
    serve::{self, BindAddress, Tls, admin::Admin},
};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    cli_error::CliError,
    config::process::{LogConfig, ProcessConfig},
    otlp::Traces,
    shutdown::Stop,
};

/// Runs a command on a new runtime.
///
/// # Errors
/// Fails if the command fails, or if no runtime can be created.
pub fn run(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::new)?;
    runtime.block_on(command)
}

/// A serving process, with logging and signal handling.
#[derive(Debug)]
pub struct Process {
    bind: Vec<BindAddress>,
    tls: Option<Tls>,
    shutdown_timeout: Duration,
    stop: Stop,
    traces: Option<Traces>,
}

impl Process {
    /// Installs the log and the signal handlers. Must be called once, inside a runtime.
    ///
    /// # Errors
    /// Fails if a signal handler cannot be installed, or traces cannot be exported.
    pub fn start(config: ProcessConfig) -> Result<Self, CliError> {
        let ProcessConfig { bind, tls, shutdown_timeout, log, traces } = config;
        install_log(log);
        let stop = Stop::catch().map_err(CliError::new)?;
        let traces = traces.map(Traces::start).transpose().map_err(CliError::usage)?;
        Ok(Self { bind, tls, shutdown_timeout, stop, traces })
    }

    /// Returns the TLS configuration, if enabled.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Returns the stop signal.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Returns the sink for spans, if traces are exported.
    #[must_use]
    pub fn sink(&self) -> Option<Arc<dyn SpanSink>> {
        self.traces.as_ref().map(Traces::sink)
    }

    /// Returns this process with `tls`.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Serves until a signal stops it; then lets running requests and the fetches of `fills` finish.
    ///
    /// # Errors
    /// Fails if an address cannot be bound.
    pub async fn serve<S, B>(self, service: S, fills: Option<PullThrough>) -> Result<(), CliError>
    where
        S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let limit = self.shutdown_timeout;
        let stopping = OnceLock::new();
        let asked = async {
            self.stop.asked().await;
            let _ = stopping.set(Instant::now());
        };
        serve(&self.bind, service, self.tls, asked, limit).await?;
        if let Some(fills) = fills
            && tokio::time::timeout(left(limit, stopping.get()), fills.drain()).await.is_err()
        {
            tracing::warn!("aborted fetches that did not finish in time");
        }
        if let Some(traces) = self.traces {
            traces.end().await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Serves on `addresses` until `shutdown` completes; then lets running requests finish, for at most `limit`.
///
/// # Errors
/// Fails if an address cannot be bound.
pub(crate) async fn serve<S, B>(
    addresses: &[BindAddress],
    service: S,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()>,
    limit: Duration,
) -> Result<(), CliError>
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let bound = addresses.iter().map(BindAddress::listen).collect::<Result<Vec<_>, _>>();
    let listeners: Vec<_> = bound.map_err(CliError::new)?.into_iter().flatten().collect();
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "serving");
    }
    let cut = serve::serve_with(listeners, service, tls, shutdown, limit).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "closed connections that did not finish in time");
    }
    Ok(())
}

/// Serves the admin endpoints on additional addresses, each of them once, until the process ends.
///
/// # Errors
/// Fails if an address cannot be bound.
pub fn serve_admin(addresses: impl IntoIterator<Item = BindAddress>, admin: &Admin) -> Result<(), CliError> {
    let mut answered = Vec::new();
    for address in addresses {
        if !answered.contains(&address) {
            serve_admin_on(&address, admin.clone())?;
            answered.push(address);
        }
    }
    Ok(())
}

fn serve_admin_on(address: &BindAddress, admin: Admin) -> Result<(), CliError> {
    let listeners = address.listen().map_err(CliError::new)?;
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "listening for admin requests");
    }
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request.method(), request.uri().path()).await) }
    });
    tokio::spawn(serve::serve(listeners, service, future::pending(), Duration::ZERO));
    Ok(())
}

/// Returns the remaining shutdown time, which connections and fetches share.
fn left(limit: Duration, since: Option<&Instant>) -> Duration {
    since.map_or(limit, |since| limit.saturating_sub(since.elapsed()))
}

/// Installs the log of the process, on standard error. Nothing else installs one.
pub(crate) fn install_log(log: LogConfig) {
    let registry = tracing_subscriber::registry().with(log.filter);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    if log.json {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines).init();
    }
}
