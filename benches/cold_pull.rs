//! Cold pull of one large blob through kuik, compared with the same pull directly from its upstream, both by a client
//! that verifies it: duration, time to first byte, and CPU time.
//!
//! `cargo bench -p kuik-benches --bench cold_pull`; `KUIK_COLD_MIB` is the size of the blob (1024). Upstream, kuik
//! and client share one machine, so that every CPU second of kuik is one that the client does not have: with fewer
//! than four cores the ratio is one of CPU time, not of node latency. The line `at 125 MB/s` is for that: upstream is
//! as fast as a 1 Gbit/s network, and kuik has to keep up.

use std::{
    error::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use kuik_core::{
    client::{HttpTransport, RegistryClient, Timeouts, TransportConfig, UpstreamResolver as _, Upstreams},
    content::{Digest, Verifier},
    credentials::Anonymous,
};
use kuik_proxy::{
    pull_through::{PullThrough, PullThroughOptions},
    serve::serve,
    service::{ProxyMetrics, ProxyOptions, ProxyService},
    store::FilesystemStore,
};
use kuik_testkit::{Behavior, Rule, ScriptedRegistry};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

type Failed = Box<dyn Error + Send + Sync>;

/// Measurements of a pull.
#[derive(Debug, Clone, Copy)]
struct Took {
    first_byte: Duration,
    whole: Duration,
    cpu: Duration,
}

/// Pulls a blob and verifies it, like a container engine.
async fn pull(at: SocketAddr, path: &str, digest: &Digest) -> Result<Took, Failed> {
    let (began, cpu) = (Instant::now(), cpu_time());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(at).await?)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, at.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("{path}: {}", response.status()).into());
    }
    let mut verifier = Verifier::new(digest).ok_or("the digest cannot be computed")?;
    let (mut body, mut first_byte) = (response.into_body(), None);
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        first_byte.get_or_insert_with(|| began.elapsed());
        verifier.update(&data);
    }
    verifier.finish()?;
    let took = Took {
        first_byte: first_byte.ok_or("there was no byte")?,
        whole: began.elapsed(),
        cpu: cpu_time().saturating_sub(cpu),
    };
    drop(sender);
    connection.await??;
    Ok(took)
}

/// CPU time of this process, to 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// One pull through an empty cache.
fn through_kuik(
    client: &Runtime,
    upstream: &ScriptedRegistry,
    digest: &Digest,
    data: &std::path::Path,
) -> Result<Took, Failed> {
    let data = tempfile::tempdir_in(data)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let took = runtime.block_on(async {
        let upstreams = Upstreams::default().insecure(&upstream.host())?;
        let mut config = TransportConfig::default();
        config.guard = upstreams.guard();
        config.system_roots = false;
        let registry =
            RegistryClient::new(HttpTransport::new(config)?, upstreams, Anonymous, Timeouts::default());
        let store = FilesystemStore::open(data.path())?.as_cache();
        let cache = PullThrough::new(
            std::sync::Arc::new(store),
            std::sync::Arc::new(registry),
            PullThroughOptions::default(),
        );
        let service = ProxyService::new(
            std::sync::Arc::new(cache.clone()),
            ProxyOptions::default(),
            ProxyMetrics::default(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let serving = tokio::spawn(serve(vec![listener], service, std::future::pending(), Duration::ZERO));
        let name = upstream.repository("app")?.encoded()?;
        let path = format!("/v2/{name}/blobs/{digest}");
        let (digest, handle) = (digest.clone(), client.handle().clone());
        let took = handle.spawn(async move { pull(at, &path, &digest).await }).await?;
        cache.drain().await;
        serving.abort();
        took
    });
    runtime.shutdown_background();
    took
}

fn direct(client: &Runtime, upstream: &ScriptedRegistry, digest: &Digest) -> Result<Took, Failed> {
    let (at, path) = (upstream.host().parse()?, format!("/v2/app/blobs/{digest}"));
    client.block_on(async move { pull(at, &path, digest).await })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "it prints what it measures")]
fn compare(
    name: &str,
    client: &Runtime,
    upstream: &ScriptedRegistry,
    digest: &Digest,
    rounds: usize,
) -> Result<(), Failed> {
    let data = tempfile::tempdir()?;
    let (mut whole, mut first, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let one = direct(client, upstream, digest)?;
        let other = through_kuik(client, upstream, digest, data.path())?;
        println!("  directly {one:?}");
        println!("  by kuik  {other:?}");
        whole.push(other.whole.as_secs_f64() / one.whole.as_secs_f64());
        first.push((other.first_byte.as_secs_f64() - one.first_byte.as_secs_f64()) * 1e3);
        cpu.push(other.cpu.as_secs_f64() - one.cpu.as_secs_f64());
    }
    println!(
        "{name}: kuik takes {:.2} times as long, its first byte comes {:.1} ms later, and it uses {:.2} CPU s (medians of {rounds})",
        median(whole),
        median(first),
        median(cpu),
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it prints what it measures")]
fn main() -> Result<(), Failed> {
    let mib: usize = std::env::var("KUIK_COLD_MIB").ok().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = std::env::var("KUIK_COLD_ROUNDS").ok().map_or(Ok(3), |text| text.parse())?;
    let seed = |n: u32| n.wrapping_mul(0x9E37_79B1).rotate_left(n % 31).to_le_bytes();
    let blob: Bytes = (0..u32::try_from(mib << 18)?).flat_map(seed).collect::<Vec<_>>().into();
    let server = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let upstream = server.block_on(ScriptedRegistry::start())?;
    let large = upstream.add_blob("app", blob);
    println!("{mib} MiB:");
    compare("as fast as the machine", &client, &upstream, &large, rounds)?;
    upstream.script(
        Rule::on_all().path(large.as_str()).does(Behavior::Throttle { bytes_per_second: 125_000_000 }),
    );
    compare("at 125 MB/s", &client, &upstream, &large, rounds)
}
