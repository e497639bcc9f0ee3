//! Webhook load test: reviews of a pod with three containers at a fixed rate over TLS, as run by `make
//! bench-webhook`.
//!
//! Each request has a scheduled time, and its latency counts from then, even if the previous one was late: a pause of
//! the server counts for all requests that had to wait. The server has its own threads, whose CPU time is the cost of
//! a review; the client's is not counted.

#[path = "support/review.rs"]
mod review;

use std::{
    error::Error,
    fs, future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use kuik_proxy::{
    serve::{BindAddress, Tls, TlsMetrics, serve_with},
    service::ProxyBody,
};
use kuik_webhook::admission::POD_PATH;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
    task::JoinSet,
    time,
};
use tokio_rustls::TlsConnector;
use tower::{Service as _, ServiceExt as _};

type Failure = Box<dyn Error + Send + Sync>;

/// Number of connections.
const CONNECTIONS: u32 = 16;

/// Name of the server's threads.
const SERVER: &str = "webhook";

/// The budget: maximum latency of the slowest review.
const SLOWEST: Duration = Duration::from_millis(5);

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Failure> {
    let (rate, seconds) = (setting("RATE", 2000), setting("TIME", 60));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let tls = Tls::given(&made.cert.pem(), &made.signing_key.serialize_pem(), TlsMetrics::default())?;
    let server =
        runtime::Builder::new_multi_thread().worker_threads(2).thread_name(SERVER).enable_all().build()?;
    let (sender, address) = oneshot::channel();
    server.spawn(serve(tls, sender));

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = runtime::Builder::new_current_thread().enable_all().build()?;
    let (latencies, cpu) = client.block_on(load(address, Arc::new(config), rate, seconds))?;
    report(latencies, cpu, rate, seconds);
    server.shutdown_background();
    Ok(())
}

async fn serve(tls: Tls, sender: oneshot::Sender<SocketAddr>) {
    let Ok(listeners) = BindAddress::localhost(0).listen() else { return };
    let Some(Ok(address)) = listeners.first().map(TcpListener::local_addr) else { return };
    let _ = sender.send(address);
    let webhook = review::service();
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let mut webhook = webhook.clone();
        async move {
            let (head, body) = webhook.call(request).await?.into_parts();
            Ok(http::Response::from_parts(head, ProxyBody::full(body.collect().await?.to_bytes())))
        }
    });
    serve_with(listeners, service.boxed_clone(), Some(tls), future::pending(), Duration::ZERO).await;
}

/// Sends reviews; returns the latency of each, and the server's CPU time meanwhile.
async fn load(
    address: oneshot::Receiver<SocketAddr>,
    config: Arc<ClientConfig>,
    rate: u32,
    seconds: u32,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let address = address.await?;
    let body = Bytes::from(review::of_three_containers());
    let (every, each) = (Duration::from_secs(1) / rate, rate * seconds / CONNECTIONS);
    let mut connections = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream =
            TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    let (cpu, start) = (server_cpu(), Instant::now() + Duration::from_millis(100));
    for (offset, mut sender) in (0_u32..).zip(senders) {
        let body = body.clone();
        connections.spawn(async move {
            let mut latencies = Vec::with_capacity(each as usize);
            for n in 0..each {
                let due = start + every * (n * CONNECTIONS + offset);
                time::sleep_until(due.into()).await;
                let request = Request::post(POD_PATH)
                    .header(header::HOST, "localhost")
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Full::new(body.clone()))?;
                let response = sender.send_request(request).await?;
                if !response.status().is_success() {
                    return Err(format!("a review was answered {}", response.status()).into());
                }
                response.into_body().collect().await?;
                latencies.push(due.elapsed());
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = connections.join_next().await {
        latencies.extend(done??);
    }
    Ok((latencies, server_cpu().saturating_sub(cpu)))
}

/// CPU time of the server's threads, including the kernel.
fn server_cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ticks = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        (name == SERVER).then(|| Some(ticks(11)? + ticks(12)?)).flatten()
    });
    // Linux counts in hundredths of a second on all common machines.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[expect(clippy::print_stdout, reason = "the report of a measurement")]
fn report(mut latencies: Vec<Duration>, cpu: Duration, rate: u32, seconds: u32) {
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |per_mille: usize| {
        latencies.get((count * per_mille / 1000).min(count.saturating_sub(1))).copied().unwrap_or_default()
    };
    println!("{count} reviews over TLS at {rate}/s for {seconds} s on {CONNECTIONS} connections");
    println!(
        "latency p50 {:?}, p90 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        at(500),
        at(900),
        at(990),
        at(999),
        at(1000)
    );
    let late = latencies.iter().filter(|latency| **latency > SLOWEST).count();
    println!("over {SLOWEST:?}: {late} ({:.3} %)", late as f64 * 100.0 / count.max(1) as f64);
    let each = u32::try_from(count).map_or(Duration::ZERO, |count| cpu / count.max(1));
    println!("CPU of the server: {cpu:?}, {each:?} a review, with TLS, HTTP and the kernel");
}
