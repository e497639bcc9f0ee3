//! Polling of other programs, which offer nothing to await.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// How long anything may take on a machine that has more to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `look` succeeds; otherwise it returns what it saw. If it never succeeds, the test fails with the last
/// observation.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("it never came true within {PATIENCE:?} that {what}; what was seen last: {seen}")
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
