//! The webhook's own certificates over years, by several replicas, with clocks that disagree, and after whatever happens
//! to the Secret and the configuration.
#![cfg(feature = "certificates")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::future::join_all;
use kuik_webhook::certificates::{
    Certificate, CertificateStore, Keeper, KeyPair, Lifetimes, Material, Observed, StoreError, Version,
    Written,
};

const START: i64 = 1_780_000_000;
const DAY: i64 = 24 * 3600;

type Data = BTreeMap<String, Vec<u8>>;

/// A cluster with the two objects, as its API keeps them: versioned. Every look gives way to whoever else wants to run.
#[derive(Debug, Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    secret: Option<(Data, u64)>,
    trust: Option<(Vec<Vec<u8>>, u64)>,
    writes: usize,
    conflicts: usize,
}

impl Cluster {
    fn with_webhooks(count: usize) -> Self {
        let cluster = Self::default();
        cluster.state(|state| state.trust = Some((vec![Vec::new(); count], 1)));
        cluster
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn writes(&self) -> usize {
        self.state(|state| state.writes)
    }

    fn material(&self) -> Material {
        self.state(|state| Material::read(&state.secret.as_ref().unwrap().0).unwrap())
    }

    /// What every API server trusts.
    fn trusted(&self) -> Vec<Certificate> {
        let bundles = self.state(|state| state.trust.clone().unwrap().0);
        assert!(bundles.windows(2).all(|pair| pair[0] == pair[1]));
        Certificate::read_all(&bundles[0]).unwrap()
    }

    fn keeper(&self) -> Keeper<Self> {
        Keeper::new(self.clone(), names(), Lifetimes::default())
    }
}

#[async_trait]
impl CertificateStore for Cluster {
    async fn observe(&self) -> Result<Observed, StoreError> {
        let observed = self.state(|state| Observed {
            secret: state.secret.clone().map(|(data, version)| (data, version.to_string())),
            trust: state.trust.clone().map(|(bundles, version)| (bundles, version.to_string())),
        });
        tokio::task::yield_now().await;
        Ok(observed)
    }

    async fn write(&self, data: Data, version: Option<&Version>) -> Result<Written, StoreError> {
        self.state(|state| {
            let now = state.secret.as_ref().map(|(_, version)| version.to_string());
            if now.as_ref() != version {
                state.conflicts += 1;
                return Ok(Written::Conflict);
            }
            let next = state.secret.as_ref().map_or(1, |(_, version)| version + 1);
            state.writes += 1;
            state.secret = Some((data, next));
            Ok(Written::Done)
        })
    }

    async fn trust(&self, bundle: &str, version: &Version) -> Result<Written, StoreError> {
        self.state(|state| {
            let Some((bundles, now)) = &mut state.trust else { return Ok(Written::Conflict) };
            if now.to_string() != *version {
                state.conflicts += 1;
                return Ok(Written::Conflict);
            }
            bundles.fill(bundle.as_bytes().to_vec());
            *now += 1;
            state.writes += 1;
            Ok(Written::Done)
        })
    }
}

fn names() -> Vec<String> {
    vec!["kuik-webhook.kuik-system.svc".to_owned(), "kuik-webhook.kuik-system.svc.cluster.local".to_owned()]
}

/// Whether API servers that trust these accept the pair at this second.
fn accepted(pair: &KeyPair, trusted: &[Certificate], now: i64) -> bool {
    let serving = &pair.certificate;
    let signed = trusted.iter().any(|authority| authority.holds_at(now) && serving.is_signed_by(authority));
    serving.holds_at(now) && serving.is_for(&names()) && signed
}

#[tokio::test]
async fn from_nothing_there_is_a_certificate_and_then_nothing_is_written() {
    let cluster = Cluster::with_webhooks(2);
    let pair = cluster.keeper().settle(START).await.unwrap();
    assert!(accepted(&pair, &cluster.trusted(), START));
    assert!(!pair.certificate.is_for(&["other.svc".to_owned()]));
    assert_eq!(cluster.writes(), 2, "the Secret, and the configuration");
    for hour in 0..100 {
        assert_eq!(cluster.keeper().settle(START + hour * 3600).await.unwrap(), pair);
    }
    assert_eq!(cluster.writes(), 2);
    assert!(!format!("{pair:?} {:?}", cluster.material()).contains("PRIVATE"), "Debug prints no key");
}

#[tokio::test]
async fn for_ten_years_what_is_served_is_trusted_before_it_is_served() {
    let cluster = Cluster::with_webhooks(2);
    let keeper = cluster.keeper();
    let mut served = keeper.settle(START).await.unwrap();
    let (mut serving, mut authorities) = (0, 0);
    for day in (0..3650).step_by(5) {
        let now = START + day * DAY;
        assert!(accepted(&served, &cluster.trusted(), now), "on day {day}");
        let (trusted, authority) = (cluster.trusted(), cluster.material().authority);
        let next = keeper.settle(now).await.unwrap();
        if next != served {
            serving += 1;
            assert!(accepted(&next, &cluster.trusted(), now), "on day {day}");
            if !trusted.iter().any(|authority| next.certificate.is_signed_by(authority)) {
                // One who was told of the new authority in this call has also been told before it signed.
                assert_ne!(cluster.material().authority, authority);
            }
        }
        authorities += usize::from(cluster.material().authority != authority);
        assert!(
            cluster.trusted().iter().any(|trusted| served.certificate.is_signed_by(trusted)),
            "what another replica still serves is trusted, on day {day}"
        );
        served = next;
    }
    assert!((50..=80).contains(&serving), "{serving} certificates");
    assert!((6..=9).contains(&authorities), "{authorities} authorities");
    assert!(cluster.trusted().len() <= 2);
}

/// Says of every write whether what it serves was trusted by then.
#[derive(Debug, Clone)]
struct Watched(Cluster);

#[async_trait]
impl CertificateStore for Watched {
    async fn observe(&self) -> Result<Observed, StoreError> {
        self.0.observe().await
    }

    async fn write(&self, data: Data, version: Option<&Version>) -> Result<Written, StoreError> {
        let (new, old) = (Material::read(&data).unwrap(), self.0.material());
        if new.serving != old.serving {
            let trusted = self.0.trusted();
            let certificate = &new.serving.as_ref().unwrap().certificate;
            assert!(trusted.iter().any(|authority| certificate.is_signed_by(authority)));
        }
        self.0.write(data, version).await
    }

    async fn trust(&self, bundle: &str, version: &Version) -> Result<Written, StoreError> {
        self.0.trust(bundle, version).await
    }
}

#[tokio::test]
async fn a_new_authority_signs_when_it_is_trusted_and_the_old_one_stays() {
    let cluster = Cluster::with_webhooks(1);
    let old = cluster.keeper().settle(START).await.unwrap();
    // Kept alive until the authority is due, by a keeper that is watched.
    let keeper = Keeper::new(Watched(cluster.clone()), names(), Lifetimes::default());
    let first = cluster.material().authority;
    let mut now = START;
    while cluster.material().authority == first {
        now += 5 * DAY;
        keeper.settle(now).await.unwrap();
    }
    assert!(cluster.trusted().contains(&first.certificate));
    assert!(cluster.trusted().contains(&cluster.material().authority.certificate));
    assert!(old.certificate.is_signed_by(&first.certificate));
    assert!(first.certificate.holds_at(now), "long before the old one ends");
}

#[tokio::test]
async fn replicas_that_start_at_once_agree() {
    let cluster = Cluster::with_webhooks(2);
    let replicas: Vec<_> = (0..8).map(|_| cluster.keeper()).collect();
    let pairs = join_all(replicas.iter().map(|keeper| keeper.settle(START))).await;
    let pairs: Vec<_> = pairs.into_iter().map(Result::unwrap).collect();
    assert!(pairs.windows(2).all(|two| two[0] == two[1]));
    assert!(accepted(&pairs[0], &cluster.trusted(), START));
    assert_eq!(cluster.writes(), 2, "one of them writes");
    assert!(cluster.state(|state| state.conflicts) > 0, "the others have tried");
}

#[tokio::test]
async fn clocks_that_differ_by_a_day_change_nothing() {
    let cluster = Cluster::with_webhooks(1);
    let pair = cluster.keeper().settle(START).await.unwrap();
    for skew in [-DAY + 60, -3600, 3600, DAY] {
        assert_eq!(cluster.keeper().settle(START + skew).await.unwrap(), pair);
        assert!(accepted(&pair, &cluster.trusted(), START + skew));
    }
    assert_eq!(cluster.writes(), 2);
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_cannot_fill_the_secret() {
    let cluster = Cluster::with_webhooks(1);
    let (right, wrong) = (cluster.keeper(), cluster.keeper());
    for minute in 0..20 {
        for now in [START + minute * 60, START + 3000 * DAY + minute * 60] {
            let pair = if now > START + DAY { &wrong } else { &right }.settle(now).await.unwrap();
            assert!(accepted(&pair, &cluster.trusted(), now), "each serves what it takes for valid");
        }
    }
    assert!(cluster.material().authorities().count() <= 4);
}

#[tokio::test]
async fn whatever_has_happened_to_the_secret_is_mended() {
    for (what, break_it) in [
        ("deleted", (|state: &mut State| state.secret = None) as fn(&mut State)),
        ("emptied", |state| state.secret.as_mut().unwrap().0.clear()),
        ("garbage", |state| {
            state
                .secret
                .as_mut()
                .unwrap()
                .0
                .values_mut()
                .for_each(|value| *value = b"\xff\x00-----BEGIN".to_vec());
        }),
        ("half an authority", |state| drop(state.secret.as_mut().unwrap().0.remove("ca.key"))),
        ("no certificate", |state| drop(state.secret.as_mut().unwrap().0.remove("tls.crt"))),
        ("another key", |state| {
            let data = &mut state.secret.as_mut().unwrap().0;
            let key = data["ca.key"].clone();
            data.insert("tls.key".to_owned(), key);
        }),
        ("forgotten trust", |state| state.trust.as_mut().unwrap().0.fill(Vec::new())),
        ("trust in garbage", |state| state.trust.as_mut().unwrap().0.fill(b"garbage".to_vec())),
        ("a webhook more", |state| state.trust.as_mut().unwrap().0.push(Vec::new())),
    ] {
        let cluster = Cluster::with_webhooks(2);
        cluster.keeper().settle(START).await.unwrap();
        cluster.state(break_it);
        let pair = cluster.keeper().settle(START + 60).await.unwrap();
        assert!(accepted(&pair, &cluster.trusted(), START + 60), "{what}");
    }
}

#[tokio::test]
async fn after_years_without_kuik_there_is_a_certificate_at_once() {
    let cluster = Cluster::with_webhooks(1);
    cluster.keeper().settle(START).await.unwrap();
    let now = START + 4000 * DAY;
    let pair = cluster.keeper().settle(now).await.unwrap();
    assert!(accepted(&pair, &cluster.trusted(), now));
    assert_eq!(cluster.trusted().len(), 1, "what has expired is trusted no longer");
}

#[tokio::test]
async fn another_name_of_the_service_gets_a_certificate_at_once() {
    let cluster = Cluster::with_webhooks(1);
    cluster.keeper().settle(START).await.unwrap();
    let renamed = vec!["other.kuik-system.svc".to_owned()];
    let pair =
        Keeper::new(cluster.clone(), renamed.clone(), Lifetimes::default()).settle(START).await.unwrap();
    assert!(pair.certificate.is_for(&renamed));
}

#[tokio::test]
async fn without_a_configuration_there_is_a_certificate_all_the_same() {
    let cluster = Cluster::default();
    let pair = cluster.keeper().settle(START).await.unwrap();
    let again = cluster.keeper().settle(START + 70 * DAY).await.unwrap();
    assert_ne!(pair, again, "it is renewed, though nobody can be told of an authority");
    assert_eq!(cluster.writes(), 2);
}

#[test]
fn what_is_no_certificate_is_refused() {
    for text in
        ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----"]
    {
        assert!(
            Certificate::read_all(text.as_bytes()).is_err()
                || Certificate::read_all(text.as_bytes()) == Ok(vec![])
        );
    }
    assert_eq!(Certificate::read_all(b""), Ok(Vec::new()));
    assert!(Certificate::read_all(&vec![b'x'; 1 << 20]).is_err());
}
