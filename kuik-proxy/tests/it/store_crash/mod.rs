//! Crash test: `kill -9` at random instants under concurrent pushes, puts and deletes. Afterwards all acknowledged
//! content is intact, and nothing else is visible.
//!
//! The test runs itself as a second process that loads a store and keeps a journal of its attempts and their results
//! (`load`). After the kill, the journal determines what the store may and must have (`model`).

mod load;
mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use kuik_core::content::{Digest, RegistryStore as _};
use kuik_proxy::store::FilesystemStore;

use self::model::Model;

/// Working directory of the second process.
const CHILD_DIR: &str = "KUIK_STORE_CRASH_DIR";
/// Number of the round: each has its own repositories.
const CHILD_ROUND: &str = "KUIK_STORE_CRASH_ROUND";

/// Number of kills, unless this variable overrides it.
const ROUNDS: &str = "KUIK_CRASH_ROUNDS";
const WORKERS: u32 = 4;

/// Not a test: the second process, which runs until it is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let round = std::env::var(CHILD_ROUND).unwrap().parse().unwrap();
    load::run(Path::new(&dir), round, WORKERS);
}

#[test]
fn acknowledged_changes_survive_a_kill_at_any_instant() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut models = BTreeMap::new();
    let mut acknowledged = 0;
    let rounds = std::env::var(ROUNDS).map_or(5, |text| text.parse().unwrap());
    for round in 0..rounds {
        let mut child = start(dir.path(), round);
        await_load(dir.path(), round, &mut child);
        sleep(Duration::from_micros(RandomState::new().build_hasher().finish() % 250_000));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = FilesystemStore::open(&dir.path().join("store")).unwrap();
        for worker in 0..WORKERS {
            let mut model = Model::read(&load::journal(dir.path(), round, worker));
            acknowledged += model.acknowledged;
            runtime.block_on(model.check(&store, round, worker));
            models.insert((round, worker), model);
        }
        runtime.block_on(only_known_content_is_visible(&store, &models, dir.path()));
    }
    let store = FilesystemStore::open(&dir.path().join("store")).unwrap();
    for ((round, worker), model) in &mut models {
        runtime.block_on(model.check(&store, *round, *worker));
    }
    println!("{acknowledged} acknowledged changes survived {rounds} kills");
    assert!(acknowledged > u64::from(rounds * WORKERS), "the load was too small: {acknowledged}");
}

fn start(dir: &Path, round: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_crash::child", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_ROUND, round.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until every worker has acknowledged changes. Another process offers nothing to await, so its journals are polled.
fn await_load(dir: &Path, round: u32, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let has_begun = |worker| {
        let journal = load::journal(dir, round, worker);
        journal.exists() && Model::read(&journal).acknowledged > 1
    };
    while !(0..WORKERS).all(has_begun) {
        assert!(child.try_wait().unwrap().is_none(), "the load ended by itself");
        assert!(Instant::now() < deadline, "the load does not begin");
        sleep(Duration::from_millis(2));
    }
}

async fn only_known_content_is_visible(
    store: &FilesystemStore,
    models: &BTreeMap<(u32, u32), Model>,
    dir: &Path,
) {
    let unpublished = fs::read_dir(dir.join("store/.kuik/unpublished")).unwrap().count();
    assert_eq!(unpublished, 0, "unpublished files are removed");
    let known: BTreeSet<String> =
        models.keys().map(|(round, worker)| load::repository(*round, *worker).to_string()).collect();
    let found: Vec<_> = store.repositories().try_collect().await.unwrap();
    for repository in found {
        assert!(known.contains(&repository.to_string()), "{repository} is unknown");
    }
    let blobs: Vec<_> = store.blobs().try_collect().await.unwrap();
    assert!(!blobs.is_empty(), "blobs can be listed");
    for blob in blobs {
        let encoded = blob.digest.encoded();
        let path = format!("store/docker/registry/v2/blobs/sha256/{}/{encoded}/data", &encoded[..2]);
        let bytes = fs::read(dir.join(path)).unwrap();
        assert_eq!(Digest::sha256(&bytes), blob.digest, "the blob matches its digest");
    }
}
