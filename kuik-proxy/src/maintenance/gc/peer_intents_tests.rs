//! Two processes on one store, in both orders, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::maintenance::gc::Leases;
use crate::maintenance::gc::peer_intents::*;

/// RemovalIntents that all processes see.
#[derive(Debug, Clone, Default)]
struct Board(Arc<Mutex<Vec<Posted>>>);

/// Name and digests of an announcement.
type Posted = (String, Vec<Digest>);

impl Board {
    fn process(&self) -> Leases {
        Leases::shared(Arc::new(self.clone()), NOTICE)
    }

    fn count(&self) -> usize {
        self.0.lock().len()
    }
}

#[async_trait]
impl RemovalIntents for Board {
    async fn announce(&self, digests: &[Digest]) -> Result<String, SourceError> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut board = self.0.lock();
        let name = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        board.push((name.clone(), digests.to_vec()));
        Ok(name)
    }

    async fn announced(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.0.lock().iter().map(|(name, _)| name.clone()).collect())
    }

    async fn digests(&self, name: &str) -> Result<Option<Vec<Digest>>, SourceError> {
        let board = self.0.lock();
        Ok(board.iter().find(|(other, _)| other == name).map(|(_, digests)| digests.clone()))
    }

    async fn withdraw(&self, name: &str) -> Result<(), SourceError> {
        self.0.lock().retain(|(other, _)| other != name);
        Ok(())
    }
}

const NOTICE: NoticePeriod = NoticePeriod::new(Duration::from_secs(30));

fn digests() -> [Digest; 2] {
    [Digest::sha256(b"announced"), Digest::sha256(b"another")]
}

#[tokio::test(start_paused = true)]
async fn writer_waits_for_the_end_of_a_seen_announcement() {
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
        assert_eq!(Instant::now(), began, "no wait for other digests");
        // The announcing process uses its own leases for that.
        drop(remover.lease_for_writing([&digest]).await.unwrap());
        assert_eq!(Instant::now(), began);
        drop(writer.lease_for_writing([&digest]).await.unwrap());
        Instant::now()
    };
    let (removed, written) = tokio::join!(removing, writing);
    assert!(written >= removed && written <= removed + POLL_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn removal_begins_after_every_write_that_has_not_seen_its_announcement() {
    let (board, [digest, _]) = (Board::default(), digests());
    let (remover, writer) = (board.process(), board.process());
    let lease = writer.lease_for_writing([&digest]).await.unwrap();
    let announced = Instant::now();
    let write = async {
        // It begins as late as possible and never ends.
        sleep(NOTICE.check_validity() - Duration::from_millis(1)).await;
        assert!(lease.is_valid());
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
    assert!(given_up + NOTICE.check_validity() <= begun, "a request on its way has as long again to arrive");
    assert_eq!(begun, announced + Duration::from_secs(30));
    assert!(!lease.is_valid());
    assert!(lease.within(async { Ok(()) }).await.is_err(), "it is too late to begin");
}

#[tokio::test(start_paused = true)]
async fn announcement_of_a_lost_process_expires() {
    let (board, [digest, another]) = (Board::default(), digests());
    // The process is gone: nothing renews its announcement.
    let gone = board.process().announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
    let deadline = gone.deadline().end();
    drop(gone);
    let writer = board.process();
    let began = Instant::now();
    drop(writer.lease_for_writing([&digest]).await.unwrap());
    assert!(Instant::now() >= deadline + NOTICE.check_validity());
    assert!(began.elapsed() < NOTICE.wait_limit());

    // The next process that removes something withdraws the remains.
    assert_eq!(board.count(), 1);
    let announced = writer.announce(std::slice::from_ref(&another)).await.unwrap().unwrap();
    announced.withdraw().await;
    assert_eq!(board.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn long_removal_is_renewed_without_a_gap() {
    let (board, [digest, _]) = (Board::default(), digests());
    let (remover, writer) = (board.process(), board.process());
    let announced = remover.announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
    let end = Instant::now() + NOTICE.length() * 12;
    let removing = async {
        while Instant::now() < end {
            assert!(announced.deadline().is_valid());
            sleep(POLL_INTERVAL).await;
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
        assert!(Instant::now() >= end && lease.is_valid());
    };
    tokio::join!(removing, writing);
    assert_eq!(board.count(), 0, "all announcements are withdrawn");
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_hung_process_is_bounded() {
    let (board, [digest, _]) = (Board::default(), digests());
    let hangs = board.process().announce(std::slice::from_ref(&digest)).await.unwrap().unwrap();
    let writer = board.process();
    while writer.lease_for_writing([&digest]).await.is_err() {
        assert!(board.count() < 1000);
    }
    assert!(!hangs.deadline().is_valid(), "it can no longer remove anything");
}

#[tokio::test(start_paused = true)]
async fn unshared_store_does_not_wait() {
    let (leases, [digest, _]) = (Leases::default(), digests());
    assert!(leases.announce(std::slice::from_ref(&digest)).await.unwrap().is_none());
    let lease = leases.lease_for_writing([&digest]).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert!(lease.is_valid());
}
