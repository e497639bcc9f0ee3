//! Real clients pull a multi-platform image through `kuik serve`, and again when its registry is down.

use crate::support::{Containerd, Kuik, proxied, pull_with_skopeo, push};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions};

/// A registry that has `image` as `app/one:v1`.
async fn registry_with(image: &SampleImage) -> DockerRegistry {
    let registry = DockerRegistry::start(&RegistryOptions::default()).await.unwrap();
    push(image, &format!("{}/app/one:v1", registry.host()), &[]).await;
    registry
}

/// The image by its tag and by its digest.
fn references(repository: &str, image: &SampleImage) -> [String; 2] {
    [format!("{repository}:v1"), format!("{repository}@{}", image.index().digest())]
}

#[tokio::test]
async fn skopeo_pulls_by_tag_and_by_digest_with_and_without_the_registry() {
    let image = SampleImage::small(1);
    let mut registry = registry_with(&image).await;
    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &["--insecure-registries", &registry.host()]).await;
    let through_kuik = format!("{}/{}", kuik.host(), proxied(&registry.host(), "app/one"));

    for reference in references(&through_kuik, &image) {
        pull_with_skopeo(&reference, &image).await;
    }
    registry.stop().await.unwrap();
    for reference in references(&through_kuik, &image) {
        pull_with_skopeo(&reference, &image).await;
    }
}

#[tokio::test]
async fn next_process_serves_cached_content() {
    let image = SampleImage::small(2);
    let mut registry = registry_with(&image).await;
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--insecure-registries", &registry.host(), "--revalidate-after", "0s"];
    let repository = proxied(&registry.host(), "app/one");

    let mut kuik = Kuik::serve(data.path(), &arguments).await;
    pull_with_skopeo(&format!("{}/{repository}:v1", kuik.host()), &image).await;
    kuik.terminate();
    assert!(kuik.ended().await.success(), "{}", kuik.log());

    registry.stop().await.unwrap();
    let kuik = Kuik::serve(data.path(), &arguments).await;
    for reference in references(&format!("{}/{repository}", kuik.host()), &image) {
        pull_with_skopeo(&reference, &image).await;
    }
}

#[tokio::test]
async fn containerd_pulls_by_tag_and_by_digest_with_and_without_the_registry() {
    let image = SampleImage::small(3);
    let mut registry = registry_with(&image).await;
    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &["--insecure-registries", &registry.host()]).await;
    let through_kuik = format!("{}/{}", kuik.host(), proxied(&registry.host(), "app/one"));

    // Each pull has a containerd of its own: what one has pulled, it would not fetch again.
    for reference in references(&through_kuik, &image) {
        Containerd::start().await.pull(&reference, &["--plain-http"], &image).await;
    }
    registry.stop().await.unwrap();
    for reference in references(&through_kuik, &image) {
        Containerd::start().await.pull(&reference, &["--plain-http"], &image).await;
    }
}

#[tokio::test]
async fn containerd_pulls_through_a_mirror_without_another_name() {
    let image = SampleImage::small(4);
    let mut registry = registry_with(&image).await;
    let data = tempfile::tempdir().unwrap();
    // The name does not resolve: containerd can have the image from the mirror alone.
    let upstream = format!("registry.test={}", registry.url());
    let kuik = Kuik::serve(data.path(), &["--upstream", &upstream]).await;
    let hosts = tempfile::tempdir().unwrap();
    std::fs::create_dir(hosts.path().join("registry.test")).unwrap();
    let mirror = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", kuik.host());
    std::fs::write(hosts.path().join("registry.test/hosts.toml"), mirror).unwrap();
    let arguments = ["--hosts-dir", hosts.path().to_str().unwrap()];

    for reference in references("registry.test/app/one", &image) {
        Containerd::start().await.pull(&reference, &arguments, &image).await;
    }
    registry.stop().await.unwrap();
    for reference in references("registry.test/app/one", &image) {
        Containerd::start().await.pull(&reference, &arguments, &image).await;
    }
}
