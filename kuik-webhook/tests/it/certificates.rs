//! Certificate rotation: over years, by several replicas, with clock skew, and after damage to the Secret or the
//! configuration.
#![cfg(feature = "certificates")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::future::join_all;
use kuik_webhook::certificates::{
    Certificate, CertificateSecret, CertificateSpec, CertificateStore, KeyPair, Observed, Rotator,
    StoreError, Version, Written,
};

const START: i64 = 1_780_000_000;
const DAY: i64 = 24 * 3600;

type Data = BTreeMap<String, Vec<u8>>;

/// A cluster with the two objects and their resource versions. Every observation yields to other tasks.
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

    fn secret(&self) -> CertificateSecret {
        self.state(|state| CertificateSecret::parse(&state.secret.as_ref().unwrap().0).unwrap())
    }

    /// Returns the CAs that every API server trusts.
    fn trusted(&self) -> Vec<Certificate> {
        let bundles = self.state(|state| state.trust.clone().unwrap().0);
        assert!(bundles.windows(2).all(|pair| pair[0] == pair[1]));
        Certificate::read_all(&bundles[0]).unwrap()
    }

    fn rotator(&self) -> Rotator<Self> {
        Rotator::new(self.clone(), CertificateSpec::new(names()))
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

    async fn publish(&self, bundle: &str, version: &Version) -> Result<Written, StoreError> {
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

/// Returns true if API servers that trust these CAs accept the pair at this time.
fn accepted(pair: &KeyPair, trusted: &[Certificate], now: i64) -> bool {
    let serving = &pair.certificate;
    let signed =
        trusted.iter().any(|authority| authority.is_valid_at(now) && serving.is_signed_by(authority));
    serving.is_valid_at(now) && serving.is_for(&names()) && signed
}

#[tokio::test]
async fn first_rotation_issues_certificate_and_later_ones_write_nothing() {
    let cluster = Cluster::with_webhooks(2);
    let pair = cluster.rotator().rotate(START).await.unwrap();
    assert!(accepted(&pair, &cluster.trusted(), START));
    assert!(!pair.certificate.is_for(&["other.svc".to_owned()]));
    assert_eq!(cluster.writes(), 2, "the Secret, and the configuration");
    for hour in 0..100 {
        assert_eq!(cluster.rotator().rotate(START + hour * 3600).await.unwrap(), pair);
    }
    assert_eq!(cluster.writes(), 2);
    assert!(!format!("{pair:?} {:?}", cluster.secret()).contains("PRIVATE"), "Debug prints no key");
}

#[tokio::test]
async fn served_certificates_are_trusted_first_for_ten_years() {
    let cluster = Cluster::with_webhooks(2);
    let rotator = cluster.rotator();
    let mut served = rotator.rotate(START).await.unwrap();
    let (mut serving, mut authorities) = (0, 0);
    for day in (0..3650).step_by(5) {
        let now = START + day * DAY;
        assert!(accepted(&served, &cluster.trusted(), now), "on day {day}");
        let (trusted, authority) = (cluster.trusted(), cluster.secret().authority);
        let next = rotator.rotate(now).await.unwrap();
        if next != served {
            serving += 1;
            assert!(accepted(&next, &cluster.trusted(), now), "on day {day}");
            if !trusted.iter().any(|authority| next.certificate.is_signed_by(authority)) {
                // The CA published in this call was also published before it signed.
                assert_ne!(cluster.secret().authority, authority);
            }
        }
        authorities += usize::from(cluster.secret().authority != authority);
        assert!(
            cluster.trusted().iter().any(|trusted| served.certificate.is_signed_by(trusted)),
            "the certificate that another replica still serves is trusted on day {day}"
        );
        served = next;
    }
    assert!((50..=80).contains(&serving), "{serving} certificates");
    assert!((6..=9).contains(&authorities), "{authorities} authorities");
    assert!(cluster.trusted().len() <= 2);
}

/// Checks on every write that the serving certificate is trusted.
#[derive(Debug, Clone)]
struct Checked(Cluster);

#[async_trait]
impl CertificateStore for Checked {
    async fn observe(&self) -> Result<Observed, StoreError> {
        self.0.observe().await
    }

    async fn write(&self, data: Data, version: Option<&Version>) -> Result<Written, StoreError> {
        let (new, old) = (CertificateSecret::parse(&data).unwrap(), self.0.secret());
        if new.serving != old.serving {
            let trusted = self.0.trusted();
            let certificate = &new.serving.as_ref().unwrap().certificate;
            assert!(trusted.iter().any(|authority| certificate.is_signed_by(authority)));
        }
        self.0.write(data, version).await
    }

    async fn publish(&self, bundle: &str, version: &Version) -> Result<Written, StoreError> {
        self.0.publish(bundle, version).await
    }
}

#[tokio::test]
async fn new_ca_signs_after_it_is_trusted_and_old_ca_stays() {
    let cluster = Cluster::with_webhooks(1);
    let old = cluster.rotator().rotate(START).await.unwrap();
    // Rotates until the CA is due.
    let rotator = Rotator::new(Checked(cluster.clone()), CertificateSpec::new(names()));
    let first = cluster.secret().authority;
    let mut now = START;
    while cluster.secret().authority == first {
        now += 5 * DAY;
        rotator.rotate(now).await.unwrap();
    }
    assert!(cluster.trusted().contains(&first.certificate));
    assert!(cluster.trusted().contains(&cluster.secret().authority.certificate));
    assert!(old.certificate.is_signed_by(&first.certificate));
    assert!(first.certificate.is_valid_at(now), "long before the old one expires");
}

#[tokio::test]
async fn concurrent_replicas_agree_on_one_certificate() {
    let cluster = Cluster::with_webhooks(2);
    let replicas: Vec<_> = (0..8).map(|_| cluster.rotator()).collect();
    let pairs = join_all(replicas.iter().map(|rotator| rotator.rotate(START))).await;
    let pairs: Vec<_> = pairs.into_iter().map(Result::unwrap).collect();
    assert!(pairs.windows(2).all(|two| two[0] == two[1]));
    assert!(accepted(&pairs[0], &cluster.trusted(), START));
    assert_eq!(cluster.writes(), 2, "one replica writes");
    assert!(cluster.state(|state| state.conflicts) > 0, "the others conflicted");
}

#[tokio::test]
async fn clock_skew_of_a_day_writes_nothing() {
    let cluster = Cluster::with_webhooks(1);
    let pair = cluster.rotator().rotate(START).await.unwrap();
    for skew in [-DAY + 60, -3600, 3600, DAY] {
        assert_eq!(cluster.rotator().rotate(START + skew).await.unwrap(), pair);
        assert!(accepted(&pair, &cluster.trusted(), START + skew));
    }
    assert_eq!(cluster.writes(), 2);
}

#[tokio::test]
async fn clock_years_ahead_does_not_fill_the_secret() {
    let cluster = Cluster::with_webhooks(1);
    let (right, wrong) = (cluster.rotator(), cluster.rotator());
    for minute in 0..20 {
        for now in [START + minute * 60, START + 3000 * DAY + minute * 60] {
            let pair = if now > START + DAY { &wrong } else { &right }.rotate(now).await.unwrap();
            assert!(
                accepted(&pair, &cluster.trusted(), now),
                "each replica serves a certificate that is valid by its clock"
            );
        }
    }
    assert!(cluster.secret().authorities().count() <= 4);
}

#[tokio::test]
async fn damaged_secret_and_configuration_are_repaired() {
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
        ("CA without its key", |state| drop(state.secret.as_mut().unwrap().0.remove("ca.key"))),
        ("no certificate", |state| drop(state.secret.as_mut().unwrap().0.remove("tls.crt"))),
        ("another key", |state| {
            let data = &mut state.secret.as_mut().unwrap().0;
            let key = data["ca.key"].clone();
            data.insert("tls.key".to_owned(), key);
        }),
        ("empty CA bundles", |state| state.trust.as_mut().unwrap().0.fill(Vec::new())),
        ("garbage CA bundles", |state| state.trust.as_mut().unwrap().0.fill(b"garbage".to_vec())),
        ("additional webhook", |state| state.trust.as_mut().unwrap().0.push(Vec::new())),
    ] {
        let cluster = Cluster::with_webhooks(2);
        cluster.rotator().rotate(START).await.unwrap();
        cluster.state(break_it);
        let pair = cluster.rotator().rotate(START + 60).await.unwrap();
        assert!(accepted(&pair, &cluster.trusted(), START + 60), "{what}");
    }
}

#[tokio::test]
async fn expired_ca_is_replaced_immediately() {
    let cluster = Cluster::with_webhooks(1);
    cluster.rotator().rotate(START).await.unwrap();
    let now = START + 4000 * DAY;
    let pair = cluster.rotator().rotate(now).await.unwrap();
    assert!(accepted(&pair, &cluster.trusted(), now));
    assert_eq!(cluster.trusted().len(), 1, "expired CAs are not trusted");
}

#[tokio::test]
async fn renamed_service_gets_certificate_immediately() {
    let cluster = Cluster::with_webhooks(1);
    cluster.rotator().rotate(START).await.unwrap();
    let renamed = vec!["other.kuik-system.svc".to_owned()];
    let pair =
        Rotator::new(cluster.clone(), CertificateSpec::new(renamed.clone())).rotate(START).await.unwrap();
    assert!(pair.certificate.is_for(&renamed));
}

#[tokio::test]
async fn certificate_is_issued_without_webhook_configuration() {
    let cluster = Cluster::default();
    let pair = cluster.rotator().rotate(START).await.unwrap();
    let again = cluster.rotator().rotate(START + 70 * DAY).await.unwrap();
    assert_ne!(pair, again, "renewed, although no CA bundle can be published");
    assert_eq!(cluster.writes(), 2);
}

#[test]
fn malformed_certificates_are_rejected() {
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
