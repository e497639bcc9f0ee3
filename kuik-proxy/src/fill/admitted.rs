//! The repositories that may read a fill's blob, because upstream lets each of them.
//!
//! Invariant: the blob is linked into every one of them, or nobody is told that it was admitted. So who comes while the
//! blob is being published is linked into it after that, and who comes later is sent to the store.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kuik_core::reference::RepositoryName;

/// Who is admitted.
#[derive(Debug)]
pub(crate) struct Admitted(Mutex<List>);

#[derive(Debug)]
struct List {
    repositories: Vec<RepositoryName>,
    /// The fill is over: nobody else is linked.
    closed: bool,
}

impl Admitted {
    /// The repository that it is fetched from.
    pub(super) fn new(repository: RepositoryName) -> Self {
        Self(Mutex::new(List { repositories: vec![repository], closed: false }))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `repository` is.
    pub(crate) fn has(&self, repository: &RepositoryName) -> bool {
        self.list().repositories.contains(repository)
    }

    /// Admits `repository`, which upstream lets read the blob. `false` where it is too late: the store may have it.
    #[must_use]
    pub(crate) fn admit(&self, repository: &RepositoryName) -> bool {
        let mut list = self.list();
        let has = list.repositories.contains(repository);
        if !has && !list.closed {
            list.repositories.push(repository.clone());
        }
        has || !list.closed
    }

    /// Those after the first `linked`. Where there is none, none is admitted any more.
    pub(super) fn after(&self, linked: usize) -> Vec<RepositoryName> {
        let mut list = self.list();
        let rest = list.repositories.get(linked..).unwrap_or_default().to_vec();
        list.closed |= rest.is_empty();
        rest
    }

    /// Admits none any more.
    pub(super) fn close(&self) {
        self.list().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_admitted_is_named_before_the_end() {
        let [first, second, third] =
            ["a", "b", "c"].map(|name| RepositoryName::new("r.example", name).unwrap());
        let admitted = Admitted::new(first.clone());
        assert_eq!(admitted.after(0), [first]);
        assert!(admitted.admit(&second) && admitted.admit(&second));
        assert_eq!(admitted.after(1), std::slice::from_ref(&second), "it came while the first was linked");
        assert!(admitted.after(2).is_empty());
        assert!(!admitted.admit(&third) && !admitted.has(&third), "too late");
        assert!(admitted.admit(&second), "it is linked");
    }
}
