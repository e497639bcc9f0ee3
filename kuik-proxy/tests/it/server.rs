//! HTTP server: several listeners, idle connections, and graceful shutdown.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use hyper::body::Incoming;
use kuik_proxy::{
    serve::{BindAddress, Tls, serve, serve_with},
    service::ProxyBody,
};
use kuik_testkit::Gate;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A server whose response is `begin`, and `end` once the gate opens.
struct Server {
    addresses: Vec<SocketAddr>,
    gate: Gate,
    stop: Gate,
    serving: JoinHandle<usize>,
}

fn start(listeners: Vec<TcpListener>, drain: Duration) -> Server {
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let (gate, stop) = (Gate::new(), Gate::new());
    let opened = gate.clone();
    let service = tower::service_fn(move |_: Request<Incoming>| {
        let begin = stream::iter([Ok(Bytes::from_static(b"begin"))]);
        let opened = opened.clone();
        let end = stream::once(async move {
            opened.opened().await;
            Ok(Bytes::from_static(b"end"))
        });
        let body = ProxyBody::stream(begin.chain(end).boxed(), Some(8));
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let serving = tokio::spawn(serve(listeners, service, stop.clone().opened(), drain));
    Server { addresses, gate, stop, serving }
}

async fn on_loopback(drain: Duration) -> Server {
    start(vec![TcpListener::bind("127.0.0.1:0").await.unwrap()], drain)
}

/// A client that has received the beginning of a response.
async fn begun(address: SocketAddr) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"begin") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{seen:?}");
    }
    (stream, seen)
}

/// Reads until the connection ends or is reset.
async fn to_its_end(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn shutdown_waits_for_running_transfers() {
    let server = on_loopback(Duration::from_secs(600)).await;
    let address = server.addresses[0];
    let (running, _) = begun(address).await;
    // Another, idle connection.
    let idle = TcpStream::connect(address).await.unwrap();
    server.stop.open();
    assert_eq!(to_its_end(idle).await, b"", "who asks nothing is sent away");
    let refused = TcpStream::connect(address).await;
    assert!(refused.is_err(), "new connections are refused");
    assert!(!server.serving.is_finished());
    server.gate.open();
    assert_eq!(to_its_end(running).await, b"end");
    assert_eq!(server.serving.await.unwrap(), 0, "none was cut");
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_connections_after_the_drain_period() {
    let server = on_loopback(Duration::from_secs(30)).await;
    let (first, second) = (begun(server.addresses[0]).await, begun(server.addresses[0]).await);
    let began = tokio::time::Instant::now();
    server.stop.open();
    assert_eq!(server.serving.await.unwrap(), 2);
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(to_its_end(first.0).await, b"");
    assert_eq!(to_its_end(second.0).await, b"");
}

#[tokio::test(start_paused = true)]
async fn incomplete_request_times_out() {
    let server = on_loopback(Duration::ZERO).await;
    for half in [&REQUEST[..0], &REQUEST[..20]] {
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        stream.write_all(half).await.unwrap();
        to_its_end(stream).await;
        let waited = began.elapsed().as_secs();
        assert!((20..120).contains(&waited), "{waited} s");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_request_head_times_out() {
    let server = on_loopback(Duration::ZERO).await;
    let began = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
    stream.write_all(&REQUEST[..20]).await.unwrap();
    // A header that never ends; writing fails once the connection is closed.
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed().as_secs() < 120, "the connection stays open");
    }
    assert!(began.elapsed().as_secs() >= 20);
}

#[tokio::test]
async fn a_head_is_bounded_in_size_and_in_headers() {
    let server = on_loopback(Duration::ZERO).await;
    server.gate.open();
    let (ok, too_large) = ("HTTP/1.1 200 ", "HTTP/1.1 431 ");
    for (headers, length, status) in
        [(90, 1, ok), (110, 1, too_large), (1, 60 << 10, ok), (1, 66 << 10, too_large), (60, 2000, too_large)]
    {
        let mut head = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n".to_owned();
        for _ in 0..headers {
            head.extend(["X: ", &"y".repeat(length), "\r\n"]);
        }
        head.push_str("\r\n");
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        // A server that has read enough closes the connection: only its response counts.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = String::from_utf8(to_its_end(stream).await).unwrap();
        assert!(answer.starts_with(status), "{headers} headers of {length} bytes: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_handshake_times_out() {
    let pair = rcgen::generate_simple_self_signed(["cache".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let tls = Tls::open(&certificate, &key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tower::service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(ProxyBody::full("well")))
    });
    let stop = Gate::new();
    let stopped = stop.clone().opened();
    let serving =
        tokio::spawn(serve_with(vec![listener], service, Some(tls), stopped, Duration::from_secs(600)));
    // No bytes at all, and the beginning of a handshake.
    for half in [&[][..], &[0x16, 3, 1]] {
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(half).await.unwrap();
        assert_eq!(to_its_end(stream).await, b"");
        let waited = began.elapsed().as_secs();
        assert!((5..20).contains(&waited), "{waited} s");
    }
    stop.open();
    assert_eq!(serving.await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_is_disconnected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // More than any socket buffer holds.
    let large = Bytes::from(vec![7; 64 << 20]);
    let size = large.len();
    let service = tower::service_fn(move |_: Request<Incoming>| {
        let large = large.clone();
        async { Ok::<_, Infallible>(Response::new(ProxyBody::full(large))) }
    });
    let stop = Gate::new();
    let serving =
        tokio::spawn(serve(vec![listener], service, stop.clone().opened(), Duration::from_secs(600)));
    let mut standing = TcpStream::connect(address).await.unwrap();
    standing.write_all(REQUEST).await.unwrap();
    standing.readable().await.unwrap();
    let began = tokio::time::Instant::now();
    stop.open();
    assert_eq!(serving.await.unwrap(), 0, "it was left before the time to drain was over");
    assert!(began.elapsed() >= Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(to_its_end(standing).await.len() < size);
}

#[tokio::test]
async fn every_listener_is_served() {
    let localhost = BindAddress::localhost(0).listen().unwrap();
    let expected = localhost.len();
    let mut listeners = localhost;
    listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let server = start(listeners, Duration::from_secs(600));
    assert_eq!(server.addresses.len(), expected + 1);
    server.gate.open();
    for address in &server.addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(to_its_end(stream).await.ends_with(b"beginend"), "{address}");
    }
    server.stop.open();
    assert_eq!(server.serving.await.unwrap(), 0);
}

#[tokio::test]
async fn panic_in_the_service_closes_only_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tower::service_fn(|request: Request<Incoming>| async move {
        assert_ne!(request.uri().path(), "/panic", "requested by the test");
        Ok::<_, Infallible>(Response::new(ProxyBody::full("well")))
    });
    let stop = Gate::new();
    let serving =
        tokio::spawn(serve(vec![listener], service, stop.clone().opened(), Duration::from_secs(600)));
    for (path, expected) in [("/panic", ""), ("/", "well")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let seen = String::from_utf8(to_its_end(stream).await).unwrap();
        assert!(seen.ends_with(expected) && seen.is_empty() == expected.is_empty(), "{seen}");
    }
    stop.open();
    assert_eq!(serving.await.unwrap(), 0);
}
