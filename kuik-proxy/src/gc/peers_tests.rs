//! Two processes on one store, in both orders, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::gc::Leases;

/// What all processes see.
#[derive(Debug, Clone, Default)]
struct Board(Arc<Mutex<Vec<Posted>>>);

/// An announcement, and what it names.
type Posted = (String, Vec<Digest>);

impl Board {
    fn process(&self) -> Leases {
        Leases::shared(Arc::new(self.clone()), NOTICE)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl Announcements for Board {
    async fn announce(&self, digests: &[Digest]) -> Result<String, SourceError> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut board = self.0.lock().unwrap();
        let name = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        board.push((name.clone(), digests.to_vec()));
        Ok(name)
    }

    async fn announced(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.0.lock().unwrap().iter().map(|(name, _)| name.clone()).collect())
    }

    async fn digests(&self, name: &str) -> Result<Option<Vec<Digest>>, SourceError> {
        let board = self.0.lock().unwrap();
        Ok(board.iter().find(|(other, _)| other == name).map(|(_, digests)| digests.clone()))
    }

    async fn withdraw(&self, name: &str) -> Result<(), SourceError> {
        self.0.lock().unwrap().retain(|(other, _)| other != name);
        Ok(())
    }
}

const NOTICE: Notice = Notice::new(Duration::from_secs(30));

fn digests() -> [Digest; 2] {
    [Digest::sha256(b"announced"), Digest::sha256(b"another")]
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_sees_an_announcement_waits_for_its_end() {
    let (board, [digest, another]) = (Board::default(), digests());
    let (remover, writer) = (board.process(), board.process());
    let removing = async {
        let announced = remover.announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
        sleep(Duration::from_secs(7)).await;
        announced.withdraw().await;
        Instant::now()
    };
    let writing = async {
        while board.count() == 0 {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        drop(writer.lease_for_writing([&another]).await.unwrap());
        assert_eq!(Instant::now(), began, "what is not named is not waited for");
        // Who announced it has its own leases for that.
        drop(remover.lease_for_writing([&digest]).await.unwrap());
        assert_eq!(Instant::now(), began);
        drop(writer.lease_for_writing([&digest]).await.unwrap());
        Instant::now()
    };
    let (removed, written) = tokio::join!(removing, writing);
    assert!(written >= removed && written <= removed + LOOK);
}

#[tokio::test(start_paused = true)]
async fn a_removal_begins_when_no_write_can_go_on_that_has_not_seen_it() {
    let (board, [digest, _]) = (Board::default(), digests());
    let (remover, writer) = (board.process(), board.process());
    let lease = writer.lease_for_writing([&digest]).await.unwrap();
    let announced = Instant::now();
    let write = async {
        // It begins as late as may be, and is as slow.
        sleep(NOTICE.section() - Duration::from_millis(1)).await;
        assert!(lease.counts());
        let written = lease.within(async {
            sleep(Duration::from_secs(3600)).await;
            Ok(())
        });
        let error = written.await.unwrap_err();
        assert_eq!(error.kind(), SourceErrorKind::Unavailable);
        Instant::now()
    };
    let remove = async {
        remover.announce(std::slice::from_ref(&digest)).await.unwrap();
        Instant::now()
    };
    let (given_up, begun) = tokio::join!(write, remove);
    assert!(given_up + NOTICE.section() <= begun, "what is on its way has as long again to arrive");
    assert_eq!(begun, announced + Duration::from_secs(30));
    assert!(!lease.counts());
    assert!(lease.within(async { Ok(()) }).await.is_err(), "it is too late to begin");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_process_that_is_gone_and_it_removes_nothing_then() {
    let (board, [digest, another]) = (Board::default(), digests());
    // It is gone: nothing renews what it said.
    let gone = board.process().announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
    let until = gone.until().end();
    drop(gone);
    let writer = board.process();
    let began = Instant::now();
    drop(writer.lease_for_writing([&digest]).await.unwrap());
    assert!(Instant::now() >= until + NOTICE.section());
    assert!(began.elapsed() < NOTICE.patience());

    // Whoever removes something next clears away what is left of it.
    assert_eq!(board.count(), 1);
    let announced = writer.announce(std::slice::from_ref(&another)).await.unwrap().unwrap();
    announced.withdraw().await;
    assert_eq!(board.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_is_announced_again_and_no_writer_finds_a_gap() {
    let (board, [digest, _]) = (Board::default(), digests());
    let (remover, writer) = (board.process(), board.process());
    let announced = remover.announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
    let end = Instant::now() + NOTICE.length() * 12;
    let removing = async {
        while Instant::now() < end {
            assert!(announced.until().counts());
            sleep(LOOK).await;
        }
        announced.withdraw().await;
    };
    let writing = async {
        let lease = loop {
            match writer.lease_for_writing([&digest]).await {
                Ok(lease) => break lease,
                Err(error) => assert_eq!(error.kind(), SourceErrorKind::Unavailable),
            }
        };
        assert!(Instant::now() >= end && lease.counts());
    };
    tokio::join!(removing, writing);
    assert_eq!(board.count(), 0, "all of it is taken back");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_hangs_is_not_waited_for_without_end() {
    let (board, [digest, _]) = (Board::default(), digests());
    let hangs = board.process().announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
    let writer = board.process();
    while writer.lease_for_writing([&digest]).await.is_err() {
        assert!(board.count() < 1000);
    }
    assert!(!hangs.until().counts(), "it removes nothing any more");
}

#[tokio::test(start_paused = true)]
async fn a_store_of_one_process_has_nothing_to_wait_for() {
    let (leases, [digest, _]) = (Leases::default(), digests());
    assert!(leases.announce(std::slice::from_ref(&digest)).await.unwrap().is_none());
    let lease = leases.lease_for_writing([&digest]).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert!(lease.counts());
}
