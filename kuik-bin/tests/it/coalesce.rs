//! Many clients, one cold blob: upstream sends it once, and memory does not grow with the clients or with the blob.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::support::{Kuik, Transfer, blob_path};
use bytes::Bytes;
use kuik_testkit::{Behavior, Gate, Rule, ScriptedRegistry, Target};

const CLIENTS: usize = 64;

/// The size of the blob in bytes.
const SIZE: usize = 512 << 20;

/// How much anonymous memory the process may have at its peak, in bytes.
const MEMORY: u64 = 64 << 20;

/// Bytes in which no two places are the same.
fn content() -> Bytes {
    let mut content = Vec::with_capacity(SIZE);
    (0..SIZE as u64 / 8).for_each(|number| content.extend_from_slice(&number.to_le_bytes()));
    content.into()
}

/// Watches the anonymous memory of a process until it is asked for the peak.
struct MemoryWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl MemoryWatch {
    fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut peak = Kuik::rss_anon(pid);
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                peak = peak.max(Kuik::rss_anon(pid));
            }
            peak
        });
        Self { stop, thread }
    }

    fn peak(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cold_blob_for_64_clients_is_fetched_once_in_little_memory() {
    let registry = ScriptedRegistry::start().await.unwrap();
    let content = content();
    let digest = registry.add_blob("app", content.clone());
    // No client is late: upstream continues when every client has its headers.
    let gate = Gate::new();
    let stall = Behavior::Stall { after: 1 << 20, until: gate.clone() };
    registry.script(Rule::on(Target::Blob).does(stall));
    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &["--insecure-registries", &registry.host()]).await;
    let target = blob_path(&registry.host(), "app", &digest);
    let (memory, start) = (MemoryWatch::start(kuik.pid()), Instant::now());

    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        // Every eighth wants a part of what has not arrived yet, as containerd fetches layers.
        let range = if number % 8 == 7 { SIZE / 2..SIZE / 2 + SIZE / 8 } else { 0..SIZE };
        let header = match range.len() {
            SIZE => String::new(),
            _ => format!("Range: bytes={}-{}\r\n", range.start, range.end - 1),
        };
        let transfer = Transfer::begin(kuik.address(), "GET", &target, &header).await;
        assert_eq!(transfer.status, if range.len() == SIZE { 200 } else { 206 }, "{}", transfer.head);
        clients.push((transfer, content.slice(range)));
    }
    gate.open();
    let moved: usize = clients.iter().map(|(_, expected)| expected.len()).sum();
    let clients: Vec<_> = clients
        .into_iter()
        .map(|(transfer, expected)| tokio::spawn(async move { transfer.is(&expected).await }))
        .collect();
    for client in clients {
        client.await.unwrap().unwrap();
    }

    let (peak, elapsed) = (memory.peak(), start.elapsed());
    println!("{CLIENTS} clients, {moved} bytes in {elapsed:.1?}, at most {} KiB of memory", peak >> 10);
    let log = registry.log();
    let sent: u64 =
        log.iter().filter(|entry| entry.target == Target::Blob).map(|entry| entry.bytes_sent).sum();
    assert_eq!(sent, SIZE as u64, "upstream sent every byte once: {log:?}");
    assert!(peak < MEMORY, "{peak} bytes of anonymous memory");
}
