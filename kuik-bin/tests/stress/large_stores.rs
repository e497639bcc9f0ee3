//! Large stores, built directly in their layout: the memory and the start of `kuik-registry` do not grow with them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::support::{Answer, Kuik, blob_data, eventually, get};
use kuik_core::content::Digest;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// No task of its own disturbs what is measured, or depends on when it runs.
const QUIET: &[&str] = &["--gc-interval", "never"];

fn repository(data: &Path, name: &str) -> PathBuf {
    data.join("docker/registry/v2/repositories").join(name)
}

/// Writes a blob or manifest, and what says in `folder` that a repository has it.
fn keep(data: &Path, folder: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let file = blob_data(data, &digest);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
    link(&folder.join("sha256").join(digest.encoded()), &digest);
    digest
}

fn link(folder: &Path, digest: &Digest) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("link"), digest.as_str()).unwrap();
}

/// An image of a few bytes under the tag `v1`, which no other number has. Returns the digest of its manifest.
fn image(data: &Path, name: &str, number: usize) -> Digest {
    let folder = repository(data, name);
    let (config, layer) = (format!("{{\"config\":{number}}}"), format!("layer {number}"));
    let layers = folder.join("_layers");
    let descriptor = |media_type: &str, text: &str| {
        let digest = keep(data, &layers, text.as_bytes());
        json!({ "mediaType": media_type, "digest": digest.as_str(), "size": text.len() })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let digest = keep(data, &folder.join("_manifests/revisions"), manifest.to_string().as_bytes());
    link(&folder.join("_manifests/tags/v1/current"), &digest);
    digest
}

fn tags(answer: &Answer) -> Vec<String> {
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// The request that the `Link` of an answer leads to.
fn next(answer: &Answer) -> &str {
    answer.header("link").strip_prefix('<').and_then(|link| link.split_once('>')).map_or("", |(next, _)| next)
}

/// Lists pages of a repository of so many tags. All but one are symbolic links to one tag, which is what a disk can be
/// filled with in a reasonable time; a registry reads them as it reads any other. One in the middle is another image.
async fn pages_of(count: usize) {
    let data = tempfile::tempdir().unwrap();
    let digest = image(data.path(), "app", 0);
    let folder = repository(data.path(), "app").join("_manifests/tags");
    fs::rename(folder.join("v1"), folder.join("t0000000")).unwrap();
    for number in 1..count {
        symlink("t0000000", folder.join(format!("t{number:07}"))).unwrap();
    }
    let tag = |number: usize| format!("t{number:07}");
    let other = image(data.path(), "app", 1);
    fs::remove_file(folder.join(tag(count / 2))).unwrap();
    fs::rename(folder.join("v1"), folder.join(tag(count / 2))).unwrap();
    let kuik = Kuik::registry(data.path(), QUIET).await;
    let list = async |query: &str| get(kuik.address(), &format!("/v2/app/tags/list{query}")).await;

    // Pages at the beginning, in the middle and at the end.
    let first = list("?n=100").await;
    assert_eq!(tags(&first), (0..100).map(tag).collect::<Vec<_>>());
    let second = get(kuik.address(), next(&first)).await;
    assert_eq!(tags(&second), (100..200).map(tag).collect::<Vec<_>>());
    let middle = list(&format!("?n=100&last={}", tag(count / 2))).await;
    assert_eq!(tags(&middle), (count / 2 + 1..=count / 2 + 100).map(tag).collect::<Vec<_>>());
    let last = list(&format!("?n=100&last={}", tag(count - 51))).await;
    assert_eq!(tags(&last), (count - 50..count).map(tag).collect::<Vec<_>>());
    assert_eq!(next(&last), "");

    // Without a number, or with too large a one, the response is one page, too.
    for query in ["", "?n=100000000"] {
        let page = list(query).await;
        assert_eq!(tags(&page), (0..10_000).map(tag).collect::<Vec<_>>(), "{query:?}");
        assert_eq!(next(&page), format!("/v2/app/tags/list?n=10000&last={}", tag(9_999)));
    }
    for (number, digest) in [(0, &digest), (count / 2, &other), (count - 1, &digest)] {
        let path = format!("/v2/app/manifests/{}", tag(number));
        assert_eq!(get(kuik.address(), &path).await.header("docker-content-digest"), digest.as_str());
    }
    let memory = Kuik::rss_anon(kuik.pid());
    println!("{count} tags: {} KiB", memory / 1024);
    assert!(memory < 64 * MIB, "{count} tags take {memory} bytes of memory");
}

#[tokio::test]
async fn a_hundred_thousand_tags_are_listed_in_pages_and_bounded_memory() {
    pages_of(100_000).await;
}

#[tokio::test]
#[ignore = "takes minutes: make stress"]
async fn a_million_tags_are_listed_in_pages_and_bounded_memory() {
    pages_of(1_000_000).await;
}

/// Starts the registry on a store of so many images, and shows how long that took, and how much memory.
async fn starts_with(count: usize) {
    let data = tempfile::tempdir().unwrap();
    for number in 0..count {
        image(data.path(), &format!("team{}/app{number}", number % 100), number);
    }
    let started = Instant::now();
    let kuik = Kuik::registry(data.path(), QUIET).await;
    eventually("it is ready", async || get(kuik.address(), "/readyz").await.status == 200).await;
    let (ready, cpu) = (started.elapsed(), Kuik::cpu(kuik.pid()));
    let pulled = get(kuik.address(), "/v2/team7/app107/manifests/v1").await;
    assert_eq!(pulled.header("docker-content-digest"), Digest::sha256(&pulled.body).as_str());
    let memory = Kuik::rss_anon(kuik.pid());
    println!("{count} images: ready after {ready:?}, {cpu:?} of CPU, {} KiB", memory / 1024);
    assert!(memory < 16 * MIB, "{count} images take {memory} bytes of memory");
    // As promised. A busy machine may take longer, but not more CPU.
    assert!(cpu < Duration::from_secs(1), "{count} images take {cpu:?} of CPU until it is ready");
}

#[tokio::test]
async fn a_registry_of_a_thousand_images_starts_at_once_and_small() {
    starts_with(1_000).await;
}

#[tokio::test]
#[ignore = "takes minutes: make stress"]
async fn a_registry_of_ten_thousand_images_starts_at_once_and_small() {
    starts_with(10_000).await;
}
