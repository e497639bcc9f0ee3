//! Parsing and normalizing references, compared with the parser of the `oci-spec` crate on the same inputs.
//!
//! The figure is for one round over all inputs; `cargo bench --bench reference` prints references per second. Budget:
//! 180 ns per reference, and four times as fast as `oci-spec`.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kuik_core::reference::ImageReference;

/// Images of real pods: short names, hosts with and without ports, tags, digests.
const IMAGES: [&str; 10] = [
    "nginx",
    "nginx:1.25",
    "bitnami/postgresql:16.1.0-debian-11-r15",
    "docker.io/library/redis:7.2-alpine",
    "quay.io/jetstack/cert-manager-controller:v1.14.4",
    "registry.k8s.io/ingress-nginx/controller:v1.10.0@sha256:42b3f0e5d0846876b1791cd3afeb5f1cbbe4259d6f35651dcc1b5c980925379c",
    "ghcr.io/enix/kube-image-keeper@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "registry:5000/team/app:main-4f2a91c",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/platform/billing-api:2024.04.11",
    "localhost:7439/registry.example.com__5000/team/app:1.0.0",
];

fn parse_and_normalize(criterion: &mut Criterion) {
    for image in IMAGES {
        let ours = ImageReference::parse(image).map(|image| image.normalized());
        let theirs = image.parse().map(|image: oci_spec::distribution::Reference| image.whole());
        assert_eq!(ours.ok(), theirs.ok(), "{image}");
    }
    let mut group = criterion.benchmark_group("reference");
    group.throughput(Throughput::Elements(IMAGES.len() as u64));
    group.bench_function("kuik", |bencher| {
        bencher.iter(|| {
            for image in IMAGES {
                let _ = black_box(ImageReference::parse(black_box(image)).map(|image| image.normalized()));
            }
        });
    });
    group.bench_function("oci-spec", |bencher| {
        bencher.iter(|| {
            for image in IMAGES {
                let parsed = black_box(image).parse::<oci_spec::distribution::Reference>();
                let _ = black_box(parsed.map(|image| image.whole()));
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = parse_and_normalize
}
criterion_main!(benches);
