//! The life of a serving process: a runtime, a log, addresses to listen on, and an end that cuts nobody off.

use std::{
    convert::Infallible,
    future,
    io::{self, IsTerminal as _},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::body::Incoming;
use kuik_core::trace::SpanSink;
use kuik_proxy::{
    admin::Admin,
    pull_through::PullThrough,
    server::{self, BindAddress, Tls},
    service::ProxyBody,
};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    command::Failure,
    config::process::{LogConfig, ProcessConfig},
    otlp::Traces,
    shutdown::Stop,
};

/// Runs a command on a runtime of its own.
///
/// # Errors
/// Those of the command, or where there can be no runtime.
pub fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(command)
}

/// A process that logs, and hears when it is to stop.
#[derive(Debug)]
pub struct Process {
    bind: Vec<BindAddress>,
    tls: Option<Tls>,
    shutdown_timeout: Duration,
    stop: Stop,
    traces: Option<Traces>,
}

impl Process {
    /// Installs the log, and catches the signals from now on. To be called once, inside a runtime.
    ///
    /// # Errors
    /// Where the system does not let us.
    pub fn start(config: ProcessConfig) -> Result<Self, Failure> {
        let ProcessConfig { bind, tls, shutdown_timeout, log, traces } = config;
        install_log(log);
        let stop = Stop::catch().map_err(Failure::new)?;
        let traces = traces.map(Traces::start).transpose().map_err(Failure::usage)?;
        Ok(Self { bind, tls, shutdown_timeout, stop, traces })
    }

    /// TLS, where it is served.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// When it is to stop.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Where traces go, where anybody wants them.
    #[must_use]
    pub fn sink(&self) -> Option<Arc<dyn SpanSink>> {
        self.traces.as_ref().map(Traces::sink)
    }

    /// The same process, serving TLS with this.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Serves until a signal asks to stop; then lets running requests finish, and what `fills` is fetching.
    ///
    /// # Errors
    /// Where an address is taken.
    pub async fn serve<S>(self, service: S, fills: Option<PullThrough>) -> Result<(), Failure>
    where
        S: tower::Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
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
            tracing::warn!("fetches that did not end in time were abandoned");
        }
        if let Some(traces) = self.traces {
            traces.end().await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Serves on `addresses` until `shutdown` ends; then lets running requests finish, for `limit` at most.
///
/// # Errors
/// Where an address is taken.
pub(crate) async fn serve<S>(
    addresses: &[BindAddress],
    service: S,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()>,
    limit: Duration,
) -> Result<(), Failure>
where
    S: tower::Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let bound = addresses.iter().map(BindAddress::listen).collect::<Result<Vec<_>, _>>();
    let listeners: Vec<_> = bound.map_err(Failure::new)?.into_iter().flatten().collect();
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "serving");
    }
    let cut = server::serve_with(listeners, service, tls, shutdown, limit).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "connections that did not end in time were cut");
    }
    Ok(())
}

/// Answers operators and the kubelet on addresses of their own, each of them once, until the process ends.
///
/// # Errors
/// Where an address is taken.
pub fn answer_operators(
    addresses: impl IntoIterator<Item = BindAddress>,
    admin: &Admin,
) -> Result<(), Failure> {
    let mut answered = Vec::new();
    for address in addresses {
        if !answered.contains(&address) {
            answer_operators_on(&address, admin.clone())?;
            answered.push(address);
        }
    }
    Ok(())
}

fn answer_operators_on(address: &BindAddress, admin: Admin) -> Result<(), Failure> {
    let listeners = address.listen().map_err(Failure::new)?;
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "operators are answered");
    }
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request.method(), request.uri().path()).await) }
    });
    tokio::spawn(server::serve(listeners, service, future::pending(), Duration::ZERO));
    Ok(())
}

/// What is left of the time to stop: connections and fetches share it.
fn left(limit: Duration, since: Option<&Instant>) -> Duration {
    since.map_or(limit, |since| limit.saturating_sub(since.elapsed()))
}

/// Logs go to standard error. A process has one log, and this is the one place that installs it.
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
