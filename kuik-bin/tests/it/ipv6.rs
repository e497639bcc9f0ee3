//! IPv6: every program listens on, is probed at and connects to IPv6 addresses, and `localhost` is both families.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use kuik_testkit::{SampleImage, ScriptedRegistry};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::support::{Kuik, get, kuik, kuik_proxy};

/// Forwards connections to `behind` from a free port of `::1`.
async fn on_ipv6(behind: &ScriptedRegistry) -> SocketAddr {
    let behind = behind.host();
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut behind = TcpStream::connect(&behind).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut behind).await });
        }
    });
    address
}

#[tokio::test]
async fn node_path_works_over_ipv6_alone() {
    let image = SampleImage::small(501);
    let registry = ScriptedRegistry::start().await.unwrap();
    registry.add_image("app", "v1", &image);
    let upstream = format!("registry.example=http://{}", on_ipv6(&registry).await);
    let data = tempfile::tempdir().unwrap();
    let cache = Kuik::registry_at("[::1]:0", data.path(), &["--pull-through", "--upstream", &upstream]).await;
    assert!(cache.address().is_ipv6());
    let all = ["--bind-address", "[::1]:0", "--metrics-bind-address", "[::1]:0", "--registry-endpoint"];
    let mut proxy = kuik_proxy(all);
    proxy.args([cache.host(), "--upstream".to_owned(), upstream]);
    let proxy = Kuik::start(proxy).await;
    proxy.logs("cache replicas changed").await;
    assert!(proxy.address().is_ipv6());

    let path = "/v2/registry.example/app/manifests/v1";
    assert_eq!(get(proxy.address(), path).await.body[..], image.index().bytes()[..]);
    for probe in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(proxy.address(), probe).await.status, 200, "{probe}");
        assert_eq!(get(cache.address(), probe).await.status, 200, "{probe}");
    }
    // The cache serves it, over IPv6.
    registry.stop().await;
    assert_eq!(get(proxy.address(), path).await.body[..], image.index().bytes()[..]);
}

#[tokio::test]
async fn localhost_is_both_loopback_addresses() {
    let data = tempfile::tempdir().unwrap();
    let mut command = kuik(["serve", "--bind-address", "localhost:0", "--data-dir"]);
    command.arg(data.path());
    let kuik = Kuik::start(command).await;
    let port = kuik.address().port();
    for address in
        [SocketAddr::from((Ipv6Addr::LOCALHOST, port)), SocketAddr::from((Ipv4Addr::LOCALHOST, port))]
    {
        assert_eq!(get(address, "/v2/").await.status, 200, "{address}");
        assert_eq!(get(address, "/readyz").await.status, 200, "{address}");
    }
}
