//! Leader election tests with a real API server.

#![cfg(feature = "controller")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::support::{cluster, eventually};
use http::{Method, Request};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube_client::{Api, Client, api::PostParams, client::Body};
use kuik_core::controller::leader::{Election, Timing};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// A replica: the clients it receives when it leads, and its shutdown.
struct Replica {
    leads: mpsc::UnboundedReceiver<Client>,
    election: Arc<Election>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn quick() -> Timing {
    let mut timing = Timing::default();
    (timing.lease, timing.renew_deadline, timing.retry) =
        (Duration::from_secs(3), Duration::from_secs(2), Duration::from_millis(300));
    timing
}

impl Replica {
    fn start(client: Client, identity: &str, timing: Timing) -> Self {
        let (leads_sender, leads) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let election = Arc::new(Election::new(client, "shop", "kuik-controller", identity, timing));
        let runs = election.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            runs.run(shutdown, |client| {
                leads_sender.send(client).unwrap();
                std::future::pending()
            })
            .await;
        });
        Self { leads, election, stop: Some(stop), task }
    }

    async fn leads(&mut self) -> Client {
        timeout(Duration::from_secs(60), self.leads.recv()).await.unwrap().unwrap()
    }

    fn is_leading(&self) -> bool {
        *self.election.leading().borrow()
    }
}

async fn write(client: &Client, name: &str) -> Result<(), kube_client::Error> {
    let object: ConfigMap =
        serde_json::from_value(serde_json::json!({ "metadata": { "name": name } })).unwrap();
    Api::namespaced(client.clone(), "shop").create(&PostParams::default(), &object).await.map(drop)
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn leader_releases_the_lease_on_shutdown_and_the_other_takes_over() {
    let (_server, client) = cluster().await;
    // Long enough that only a release can explain the takeover.
    let mut timing = quick();
    timing.lease = Duration::from_secs(3600);
    let mut first = Replica::start(client.clone(), "first", timing);
    let leader = first.leads().await;
    write(&leader, "one").await.unwrap();
    let mut second = Replica::start(client.clone(), "second", timing);
    // It has checked the lease a few times meanwhile.
    tokio::time::sleep(timing.retry * 4).await;
    assert!(first.is_leading() && !second.is_leading());
    assert!(second.leads.try_recv().is_err());

    drop(first.stop.take());
    first.task.await.unwrap();
    write(&leader, "two").await.unwrap_err();
    let leader = second.leads().await;
    write(&leader, "three").await.unwrap();
    let lease: Lease = Api::namespaced(client, "shop").get("kuik-controller").await.unwrap();
    let spec = lease.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("second"));
    assert_eq!(spec.lease_transitions, Some(3), "acquired, released, acquired");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn leader_stalled_past_its_lease_is_fenced() {
    let (_server, client) = cluster().await;
    // The renewals of this one no longer arrive, without an error.
    let stalled = Arc::new(AtomicBool::new(false));
    let (inner, stalls) = (client.clone(), stalled.clone());
    let stalling = tower::service_fn(move |request: Request<Body>| {
        let (inner, lost) = (inner.clone(), stalls.load(Relaxed) && request.method() == Method::PUT);
        async move {
            if lost {
                std::future::pending::<()>().await;
            }
            inner.send(request).await
        }
    });
    let mut first = Replica::start(Client::new(stalling, "default"), "first", quick());
    let leader = first.leads().await;
    write(&leader, "one").await.unwrap();
    let mut second = Replica::start(client.clone(), "second", quick());
    stalled.store(true, Relaxed);
    let next = second.leads().await;
    // The first replica cannot notice: its client refuses the write by itself.
    let refused = write(&leader, "two").await.unwrap_err();
    assert!(format!("{refused:?}").contains("NotLeading"), "{refused:?}");
    // Reads are allowed.
    Api::<ConfigMap>::namespaced(leader.clone(), "shop").get("one").await.unwrap();
    write(&next, "two").await.unwrap();
    assert!(!first.is_leading());

    // After it recovers it is a candidate again.
    stalled.store(false, Relaxed);
    drop(second.stop.take());
    second.task.await.unwrap();
    let leader = first.leads().await;
    write(&leader, "three").await.unwrap();
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn short_api_server_outage_keeps_leadership_and_long_one_loses_it() {
    let (mut server, client) = cluster().await;
    let mut timing = quick();
    timing.renew_deadline = Duration::from_secs(20);
    timing.lease = Duration::from_secs(30);
    let mut replica = Replica::start(client.clone(), "one", timing);
    let leader = replica.leads().await;
    server.stop().await.unwrap();
    server.resume().await.unwrap();
    eventually("the leader writes again", async || write(&leader, "one").await.ok()).await;
    assert!(replica.is_leading() && replica.leads.try_recv().is_err(), "it was never out of office");

    server.stop().await.unwrap();
    let mut leading = replica.election.leading();
    timeout(Duration::from_secs(60), leading.wait_for(|leads| !leads)).await.unwrap().unwrap();
    server.resume().await.unwrap();
    let again = replica.leads().await;
    write(&again, "two").await.unwrap();
}
