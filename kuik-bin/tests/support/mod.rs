//! Shared support of the tests: the programs as users run them, and the real programs around them.
//!
//! Each process is a child that the test owns and ends by its handle. Other processes offer nothing to await, so
//! [`eventually`] polls, with a deadline that a healthy machine never reaches.
#![allow(dead_code, unused_imports, reason = "every test file uses its own part")]

mod aftermath;
mod authority;
mod client;
mod clock;
mod cluster;
mod configure;
mod containerd;
mod exposition;
mod image;
mod kuik;
mod nginx;
mod remote;
mod storage;
mod tmpfs;
mod wire;

use std::{future::Future, path::Path, time::Duration};

pub(crate) use self::{
    aftermath::assert_contains_only,
    authority::Authority,
    client::{Client, Lost, Reply},
    clock::Clock,
    cluster::{
        api_server, api_server_with, but_for_the_lease, controllers_user, is_cached, name_of_app, object,
        pod, webhook_configuration, writes, writes_in_the_end,
    },
    configure::configure_containerd,
    containerd::Containerd,
    exposition::{documented, exposed, sample_name, types},
    image::{assert_layout, blob_data, blob_path, proxied, pull_with_skopeo, push},
    kuik::{Kuik, kuik, kuik_proxy, kuik_registry, kuik_webhook, output},
    nginx::Nginx,
    remote::{Failed, LeftUpload, Remote},
    storage::Storage,
    tmpfs::Tmpfs,
    wire::{Answer, Transfer, ask, get, head, over_tls},
};

/// How long a test waits for anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, and fails the test at the deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    within(PATIENCE, what, condition).await;
}

/// Like [`eventually`], with another time limit.
pub(crate) async fn within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + patience;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "it never came true that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many entries a folder has.
pub(crate) fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// The files that a cache in `data_dir` is writing, and has not published.
pub(crate) fn unpublished(data_dir: &Path) -> usize {
    entries(&data_dir.join(".kuik/unpublished"))
}
