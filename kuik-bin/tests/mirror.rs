//! containerd with kuik as a mirror: `kuik-proxy configure-containerd` on a folder of registry hosts, and containerd
//! itself pulling through it, past it, and without it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod support;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use kuik_core::testkit::{
    SampleImage,
    real::{DockerRegistry, RegistryOptions},
};
use support::{Containerd, Kuik, get, kuik_proxy, proxied, push};

/// Runs `configure-containerd`; what it says, and whether it was content.
async fn configure(certs_dir: &Path, arguments: &[&str]) -> (String, bool) {
    let mut command = kuik_proxy(["configure-containerd", "--certs-dir"]);
    let output = command.arg(certs_dir).args(arguments).output().await.unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (said, output.status.success())
}

/// Every file and folder below `folder`, with what is in it and its mode.
fn snapshot(folder: &Path) -> BTreeMap<String, (Option<String>, u32)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                all.insert(name, (None, mode));
                folders.push(path);
            } else {
                all.insert(name, (Some(fs::read_to_string(&path).unwrap()), mode));
            }
        }
    }
    all
}

/// How many requests the proxy has answered.
async fn answered(proxy: &Kuik) -> u64 {
    let metrics = String::from_utf8(get(proxy.address(), "/metrics").await.body).unwrap();
    let counted =
        metrics.lines().filter(|line| line.starts_with("kube_image_keeper_proxy_http_requests_total{"));
    counted.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Docker's registry is the cache and the upstream. One image is in the cache alone, one upstream alone.
#[tokio::test]
async fn containerd_pulls_through_the_proxy_and_past_it() {
    let [cached, fresh, past, after] = [101, 102, 103, 104].map(SampleImage::small);
    let upstream = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    let cache = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(&cached, &format!("{}/{}:cached", cache.host(), proxied(&upstream.host(), "team/app")), &[]).await;
    for (tag, image) in [("fresh", &fresh), ("past", &past), ("after", &after)] {
        push(image, &format!("{}/team/app:{tag}", upstream.host()), &[]).await;
    }
    let insecure = ["--insecure-registries", &upstream.host()];
    let proxy = Kuik::proxy(&[cache.host()], &insecure).await;
    let containerd = Containerd::start().await;
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path().join("certs.d");
    let endpoint = format!("http://{}", proxy.host());
    let hosts = ["--hosts-dir", certs_dir.to_str().unwrap()];
    let named = |tag: &str| format!("{}/team/app:{tag}", upstream.host());

    // For the registry by its name, then for all.
    let to = ["--endpoint", endpoint.as_str()];
    let (said, done) = configure(&certs_dir, &[&to[..], &["--registries", &upstream.host()]].concat()).await;
    assert!(done, "{said}");
    containerd.pull(&named("cached"), &hosts, &cached).await;
    let before = answered(&proxy).await;
    assert!(before > 0, "it is in the cache alone, which the proxy alone asks");
    let (said, done) = configure(&certs_dir, &["--remove"]).await;
    assert!(done && !certs_dir.exists(), "{said}");
    let (said, done) = configure(&certs_dir, &to).await;
    assert!(done && certs_dir.join("_default/hosts.toml").exists(), "{said}");
    containerd.pull(&named("fresh"), &hosts, &fresh).await;
    assert!(answered(&proxy).await > before, "it came from upstream, through the proxy");

    // A rewritten name asks the proxy alone, and needs no hosts.toml.
    let rewritten = format!("{}/{}:fresh", proxy.host(), proxied(&upstream.host(), "team/app"));
    containerd.pull(&rewritten, &["--plain-http"], &fresh).await;
    let rewritten = format!("{}/{}:cached", proxy.host(), proxied(&upstream.host(), "team/app"));
    containerd.pull(&rewritten, &["--plain-http"], &cached).await;

    // A proxy that is away costs nobody the image: containerd goes on with the registry itself.
    proxy.kill().await;
    containerd.pull(&named("past"), &hosts, &past).await;
    assert!(configure(&certs_dir, &["--remove"]).await.1 && !certs_dir.exists());
    containerd.pull(&named("after"), &[], &after).await;
}

#[tokio::test]
async fn what_others_wrote_stays_and_everything_can_be_undone() {
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path();
    let write = |name: &str, content: &str| {
        let path = certs_dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let theirs = "server = \"https://registry-1.docker.io\"\n\n# ours, in the cellar\n[host.\"https://mirror.example\"]";
    write("docker.io/hosts.toml", theirs);
    write("docker.io/ca.crt", "it stays");
    write("registry.example_5000_/hosts.toml", "server = \"https://registry.example:5000\"");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(certs_dir.join("docker.io/hosts.toml"), mode).unwrap();
    let before = snapshot(certs_dir);

    let all = ["--registries", "docker.io,registry.example:5000", "--registries", "ghcr.io"];
    let (said, done) = configure(certs_dir, &all).await;
    assert!(done, "{said}");
    let once = snapshot(certs_dir);
    let (docker, mode) = &once["docker.io/hosts.toml"];
    let docker = docker.as_ref().unwrap();
    assert!(
        docker.find("127.0.0.1:7439").unwrap() < docker.find("# ours, in the cellar").unwrap(),
        "{docker}"
    );
    assert_eq!(mode & 0o777, 0o640);
    assert!(once["registry.example_5000_/hosts.toml"].0.as_ref().unwrap().contains("127.0.0.1:7439"));
    assert_eq!(once["ghcr.io/hosts.toml"].1 & 0o777, 0o644);
    assert_eq!(once["ghcr.io"].1 & 0o777, 0o755);
    assert!(configure(certs_dir, &all).await.1);
    assert_eq!(snapshot(certs_dir), once, "a second run changes nothing");

    let (said, done) = configure(certs_dir, &[]).await;
    assert!(done && said.contains("docker.io has a folder of its own"), "{said}");
    assert!(configure(certs_dir, &["--remove", "--registries", "_default"]).await.1);
    assert_eq!(snapshot(certs_dir), once, "what was not named stays");
    let (said, done) = configure(certs_dir, &["--remove"]).await;
    assert!(done, "{said}");
    assert_eq!(snapshot(certs_dir), before);
}

#[tokio::test]
async fn one_file_that_cannot_be_merged_leaves_all_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path();
    for (name, content) in
        [("broken.example/hosts.toml", "server = "), ("docker.example/ca.crt", "a certificate")]
    {
        fs::create_dir_all(certs_dir.join(name).parent().unwrap()).unwrap();
        fs::write(certs_dir.join(name), content).unwrap();
    }
    let before = snapshot(certs_dir);
    let arguments = ["--registries", "ghcr.io,broken.example,docker.example"];
    let (said, done) = configure(certs_dir, &arguments).await;
    assert!(!done && said.contains("nothing was changed"), "{said}");
    for expected in
        ["broken.example/hosts.toml: it is not TOML (line 1)", "has \"ca.crt\", which containerd reads only"]
    {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(snapshot(certs_dir), before);
    for arguments in [["--registries", "../up"], ["--endpoint", "proxy:7439"]] {
        let (said, done) = configure(certs_dir, &arguments).await;
        assert!(!done && said.contains(arguments[0]), "{said}");
    }
}
