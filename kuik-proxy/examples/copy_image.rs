//! Copies an image from one registry to another, under a name of one's own, and reports progress.
//!
//! [`RegistryClient`] is the client of any OCI registry. [`PushCopier`] copies with it: only the wanted platforms, blobs
//! that the target has are not sent again, and digests never change, so that signatures stay valid.
//!
//! `cargo run -p kuik-proxy --example copy_image quay.io/prometheus/busybox:latest http://localhost:5000 team/busybox v1`

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kuik_core::{
    client::{RegistryClient, TransportConfig, Upstreams},
    copy::{Copied, ImageCopier as _, Platforms, Progress, PushCopier, SourceImage},
    credentials::Anonymous,
    reference::{ImageReference, RepositoryName},
};

/// The target of a copy.
struct Destination<'a> {
    /// The registry's URL: plain HTTP and private addresses are allowed for this host because it is named.
    url: &'a str,
    repository: &'a str,
    tag: &'a str,
}

/// Counts the bytes of a copy. A program would draw a progress bar; these methods must not block.
#[derive(Debug, Default)]
struct Counter {
    expected: AtomicU64,
    done: AtomicU64,
}

impl Progress for Counter {
    fn expects(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advances(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Copies the image `source` with its Linux manifests for amd64 and arm64.
async fn copy(
    source: &str,
    upstreams: Upstreams,
    destination: Destination<'_>,
    progress: &Counter,
) -> Result<Copied, Box<dyn Error>> {
    let image = SourceImage::new(&ImageReference::parse(source)?)?;
    // Without this, kuik's own name is used: `quay.io/prometheus/busybox` in the target registry.
    let image = image.copied_to(RepositoryName::local(destination.repository)?, destination.tag.parse()?);

    // One client for sources: it follows mirrors and fallbacks in `upstreams`, and refuses other private addresses.
    let reader = RegistryClient::of_upstreams(upstreams, Anonymous, TransportConfig::default())?;
    // One for the target. Its credentials would be the second argument, for example a `DockerConfig`.
    let target = RegistryClient::of_cache(destination.url, Anonymous, TransportConfig::default())?;

    let platforms = Arc::new(Platforms::parse(["amd64", "arm64"])?);
    let copier = PushCopier::new(Arc::new(reader), target, platforms);
    Ok(copier.copy(&image, progress).await?)
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the result of the example")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, url, repository, tag] = arguments.as_slice() else {
        return Err("usage: copy_image IMAGE TARGET_URL REPOSITORY TAG".into());
    };
    let destination = Destination { url, repository, tag };
    let copied = copy(source, Upstreams::default(), destination, &Counter::default()).await?;
    println!("{} ({} bytes sent)", copied.digest, copied.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kuik_core::content::{ContentSource as _, Freshness, TagOrDigest};
    use kuik_proxy::{
        registry::{access::AccessPolicy, push::RegistryOptions},
        serve::{BindAddress, serve},
        stack::{MaintenanceOptions, Storage, StoreMaintenance, registry},
        store::FilesystemStore,
    };
    use kuik_testkit::{SampleImage, ScriptedRegistry};

    use super::{Arc, Counter, Destination, Ordering, RepositoryName, Upstreams, copy};

    #[tokio::test]
    async fn image_arrives_under_the_given_name_with_its_digest() {
        let source = ScriptedRegistry::start().await.unwrap();
        let builder = SampleImage::builder().platform("linux", "amd64").platform("windows", "amd64");
        let image = builder.layer(100_000).build();
        source.add_image("app", "v1", &image);

        // The target is kuik's registry, which accepts pushes without a token here.
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(FilesystemStore::open(directory.path()).unwrap());
        let storage =
            Storage { pushed: store.clone(), fetched: store.clone(), redirects: false, announcements: None };
        let maintenance = StoreMaintenance::new(storage, MaintenanceOptions::default());
        let mut access = AccessPolicy::default();
        access.allow_anonymous_push = true;
        let target = registry(maintenance, None, access, RegistryOptions::default(), None, None);
        let listeners = BindAddress::localhost(0).listen().unwrap();
        let url = format!("http://{}", listeners[0].local_addr().unwrap());
        tokio::spawn(serve(listeners, target.frontend, std::future::pending(), Duration::ZERO));

        let upstreams = Upstreams::default().insecure(&source.host()).unwrap();
        let destination = Destination { url: &url, repository: "team/app", tag: "approved" };
        let progress = Counter::default();
        let reference = format!("{}/app:v1", source.host());
        let copied = copy(&reference, upstreams, destination, &progress).await.unwrap();

        assert_eq!(copied.digest, *image.index().digest());
        assert!(copied.bytes > 100_000, "{copied:?}");
        assert_eq!(progress.done.load(Ordering::Relaxed), progress.expected.load(Ordering::Relaxed));
        let (name, tag) = (RepositoryName::local("team/app").unwrap(), "approved".parse().unwrap());
        let found = store.manifest(&name, &TagOrDigest::Tag(tag), Freshness::Cached).await.unwrap();
        assert_eq!(found.content.bytes(), image.index().bytes());
    }
}
