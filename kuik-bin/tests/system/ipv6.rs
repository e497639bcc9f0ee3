//! A name with addresses of both families, of which only the IPv6 address answers: in a mount namespace with an
//! `/etc/hosts` of its own.

use std::net::Ipv6Addr;

use kuik_testkit::{SampleImage, ScriptedRegistry};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::support::{Kuik, get};

#[tokio::test]
async fn upstream_named_localhost_is_reached_over_ipv6_whatever_the_order_of_its_addresses() {
    let image = SampleImage::small(502);
    let registry = ScriptedRegistry::start().await.unwrap();
    registry.add_image("app", "v1", &image);
    let behind = registry.host();
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut behind = TcpStream::connect(&behind).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut behind).await });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let upstream = format!("registry.example=http://localhost:{port}");
    for addresses in [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]] {
        let hosts = folder.path().join("hosts");
        let lines = addresses.map(|address| format!("{address} localhost\n"));
        std::fs::write(&hosts, lines.concat()).unwrap();
        let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
        let launcher = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
        let arguments = ["--upstream", upstream.as_str()];
        let nowhere = ["[::1]:1".to_owned()];
        let proxy = Kuik::proxy_at("localhost:0", &nowhere, &arguments, &[], &launcher).await;
        let pulled = get(proxy.address(), "/v2/registry.example/app/manifests/v1").await;
        assert_eq!(pulled.body[..], image.index().bytes()[..], "{addresses:?}: {}", proxy.log());
    }
}
