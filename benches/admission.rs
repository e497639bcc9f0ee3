//! Admission review of a pod with three containers: from its body to the response, on one core.
//!
//! The review has the fields that API servers send: managed fields, defaults, environment, probes, volumes.
//! `value-alone` is the baseline: the same text parsed into a tree of JSON values, before any decision.

#[path = "support/review.rs"]
mod review;

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kuik_webhook::admission::POD_PATH;

fn admission(criterion: &mut Criterion) {
    let service = review::service();
    let body = review::of_three_containers();
    let mut group = criterion.benchmark_group("admission");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("three-containers", |bencher| {
        bencher.iter(|| service.review(POD_PATH, black_box(body.as_bytes())));
    });
    group.bench_function("value-alone", |bencher| {
        bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(body.as_bytes())));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = admission
}
criterion_main!(benches);
