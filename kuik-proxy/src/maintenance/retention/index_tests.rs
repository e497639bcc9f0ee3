//! Tests of the index of retention documents.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use kuik_core::{
    content::{MetadataName, RegistryStore as _, TagOrDigest},
    retention::ImageRetention,
};
use kuik_testkit::MemoryStore;

use super::{super::fallible_store::FallibleStore, *};

fn id(text: &str) -> ClusterId {
    text.parse().unwrap()
}

fn app() -> RepositoryName {
    RepositoryName::local("registry.example/app").unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn document(images: &[(&str, ImageRetention)]) -> Bytes {
    let mut document = RetentionDocument::default();
    for (name, image) in images {
        document.insert(&app(), &TagOrDigest::Tag(tag(name)), *image);
    }
    document.to_json()
}

fn index_of(store: &MemoryStore, shared: bool) -> RetentionIndex {
    let options = RetentionOptions { is_shared: shared, ..RetentionOptions::default() };
    RetentionIndex::new(Arc::new(store.clone()), options, RetentionMetrics::default())
}

async fn loaded(store: &MemoryStore) -> RetentionIndex {
    let index = index_of(store, false);
    index.load().await.unwrap();
    index
}

/// Writes an entry past the index.
async fn overwrite(store: &MemoryStore, cluster: &str, entry: Option<Bytes>) {
    let name: MetadataName = format!("retention.{cluster}").parse().unwrap();
    store.put_metadata(&RepositoryName::local("kuik").unwrap(), &name, entry).await.unwrap();
}

#[tokio::test]
async fn standing_is_the_most_needed_over_clusters_and_names() {
    let index = loaded(&MemoryStore::new()).await;
    let (unused, expires) = (ImageRetention::unused(None), ImageRetention::unused(Some(7)));
    index.put(&id("a"), &document(&[("1", expires), ("2", unused), ("3", expires)])).await.unwrap();
    index
        .put(&id("b"), &document(&[("2", expires), ("3", ImageRetention::retained()), ("4", unused)]))
        .await
        .unwrap();
    let never = Standing::Unused { expires_at: u64::MAX };
    for (names, expected) in [
        (vec!["0"], Standing::Unmanaged),
        (vec!["0", "1"], Standing::Unused { expires_at: 7 }),
        (vec!["1", "2"], never),
        (vec!["3", "1"], Standing::Needed),
        (vec!["4"], never),
        (vec![], Standing::Unmanaged),
    ] {
        assert_eq!(index.standing(&app(), names.clone()), expected, "{names:?}");
    }
    let other = RepositoryName::local("registry.example/other").unwrap();
    assert_eq!(index.standing(&other, ["3"]), Standing::Unmanaged);
    assert!(index.is_managed(&app(), &tag("1")) && !index.is_managed(&app(), &tag("0")));
    for (cluster, name, held) in [("a", "1", false), ("b", "1", true), ("a", "2", true), ("c", "4", true)] {
        assert_eq!(index.is_held_by_others(&id(cluster), &app(), &tag(name)), held, "{cluster} {name}");
    }
}

#[tokio::test]
async fn documents_survive_a_restart_and_a_removed_one_does_not_count() {
    let store = MemoryStore::new();
    let index = loaded(&store).await;
    let text = document(&[("1", ImageRetention::in_use())]);
    let sent = index.put(&id("a"), &text).await.unwrap();
    assert_eq!(sent, etag(&text));
    let restarted = index_of(&store, false);
    assert_eq!(restarted.standing(&app(), ["0"]), Standing::Needed, "nothing is known yet");
    assert!(!restarted.is_managed(&app(), &tag("1")));
    assert!(restarted.is_held_by_others(&id("b"), &app(), &tag("0")));
    restarted.load().await.unwrap();
    assert_eq!(restarted.standing(&app(), ["1"]), Standing::Needed);
    assert_eq!(restarted.etag(&id("a")).await.unwrap(), Some(sent));
    assert_eq!(restarted.get(&id("a")).await.unwrap(), Some(text));
    restarted.remove(&id("a")).await.unwrap();
    assert_eq!(restarted.standing(&app(), ["1"]), Standing::Unmanaged);
    assert_eq!(
        (restarted.etag(&id("a")).await.unwrap(), restarted.get(&id("a")).await.unwrap()),
        (None, None)
    );
}

#[tokio::test(start_paused = true)]
async fn documents_that_cannot_be_read_at_start_keep_everything_until_they_are_read() {
    let store = FallibleStore::default();
    let index = RetentionIndex::new(
        Arc::new(store.clone()),
        RetentionOptions::default(),
        RetentionMetrics::default(),
    );
    store.set_failing(true);
    let running = tokio::spawn(index.clone().run());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(index.standing(&app(), ["1"]), Standing::Needed);
    store.set_failing(false);
    tokio::time::sleep(MAX_RETRY).await;
    assert_eq!(index.standing(&app(), ["1"]), Standing::Unmanaged);
    running.abort();
}

#[tokio::test]
async fn damaged_document_keeps_everything_until_it_is_replaced() {
    let store = MemoryStore::new();
    overwrite(&store, "a", Some("kuik-retention-1 damaged".into())).await;
    let index = loaded(&store).await;
    assert_eq!(index.standing(&app(), ["0"]), Standing::Needed);
    assert!(!index.is_managed(&app(), &tag("0")));
    assert!(index.is_held_by_others(&id("b"), &app(), &tag("0")));
    assert_eq!(index.etag(&id("a")).await.unwrap(), None, "its cluster sends it again");
    index.put(&id("a"), &document(&[])).await.unwrap();
    assert_eq!(index.standing(&app(), ["0"]), Standing::Unmanaged);
    let aside: MetadataName = "damaged-retention.a".parse().unwrap();
    let aside = store.metadata(&RepositoryName::local("kuik").unwrap(), &aside).await.unwrap();
    assert_eq!(aside.as_deref(), Some(&b"kuik-retention-1 damaged"[..]));
}

#[tokio::test]
async fn invalid_document_leaves_the_earlier_one_in_force() {
    let store = MemoryStore::new();
    let index = loaded(&store).await;
    let sent = index.put(&id("a"), &document(&[("1", ImageRetention::in_use())])).await.unwrap();
    assert!(matches!(index.put(&id("a"), b"{").await, Err(RejectedDocument::Invalid(_))));
    assert_eq!(index.etag(&id("a")).await.unwrap(), Some(sent));
    assert_eq!(index.standing(&app(), ["1"]), Standing::Needed);
}

#[tokio::test]
async fn other_processes_documents_are_read_on_refresh() {
    let store = MemoryStore::new();
    let (one, other) = (index_of(&store, true), index_of(&store, true));
    one.load().await.unwrap();
    other.load().await.unwrap();
    let sent = one.put(&id("a"), &document(&[("1", ImageRetention::in_use())])).await.unwrap();
    assert_eq!(other.etag(&id("a")).await.unwrap(), Some(sent), "a request for it reads it");
    one.put(&id("b"), &document(&[("2", ImageRetention::in_use())])).await.unwrap();
    other.refresh(true).await.unwrap();
    assert_eq!(other.standing(&app(), ["2"]), Standing::Needed);
    one.remove(&id("b")).await.unwrap();
    other.refresh(false).await.unwrap();
    assert_eq!(other.standing(&app(), ["2"]), Standing::Unmanaged);
}

/// The clock of this process or of an earlier one is wrong.
#[tokio::test]
async fn wrongly_dated_document_counts_and_is_requested_again() {
    let day = Duration::from_secs(24 * 3600);
    for renewed_at in [SystemTime::now() - 40 * day, SystemTime::now() + 400 * day] {
        let (store, text) = (MemoryStore::new(), document(&[("1", ImageRetention::in_use())]));
        overwrite(&store, "a", Some(documents::encode(&text, renewed_at))).await;
        let index = loaded(&store).await;
        assert_eq!(index.standing(&app(), ["1"]), Standing::Needed, "{renewed_at:?}");
        assert_eq!(index.etag(&id("a")).await.unwrap(), None, "{renewed_at:?}");
        let sent = index.put(&id("a"), &text).await.unwrap();
        assert_eq!(index.etag(&id("a")).await.unwrap(), Some(sent));
    }
}

#[tokio::test]
async fn lapsed_document_does_not_count_and_makes_space_for_another() {
    let store = MemoryStore::new();
    let text = document(&[("1", ImageRetention::in_use())]);
    for number in 0..MAX_CLUSTERS {
        let entry = documents::encode(&text, SystemTime::now());
        overwrite(&store, &format!("c{number}"), Some(entry)).await;
    }
    let options = RetentionOptions { lapse: Duration::from_millis(1), ..RetentionOptions::default() };
    let strict = loaded(&store).await;
    assert!(matches!(strict.put(&id("new"), &text).await, Err(RejectedDocument::TooManyClusters)));
    strict.put(&id("c0"), &text).await.unwrap();
    let index = RetentionIndex::new(Arc::new(store.clone()), options, RetentionMetrics::default());
    index.load().await.unwrap();
    while index.is_managed(&app(), &tag("1")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(index.standing(&app(), ["1"]), Standing::Unmanaged);
    assert_eq!(index.etag(&id("c0")).await.unwrap(), None, "its cluster sends it again");
    index.put(&id("new"), &text).await.unwrap();
    assert_eq!(index.0.documents.clusters().await.unwrap(), [id("new")].into());
}
