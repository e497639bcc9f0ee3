//! Set of repositories authorized to read a fill's blob: upstream grants access to each of them.
//!
//! Invariant: the blob is linked into every authorized repository, or the authorization is refused. A repository that
//! is authorized while the blob is being published is linked after that; a later one is served from the store.

use kuik_core::reference::RepositoryName;
use parking_lot::{Mutex, MutexGuard};

/// The authorized repositories.
#[derive(Debug)]
pub(crate) struct Authorized(Mutex<List>);

#[derive(Debug)]
struct List {
    repositories: Vec<RepositoryName>,
    /// The fill has ended: no further repository is linked.
    closed: bool,
}

impl Authorized {
    /// Authorizes the repository that the blob is fetched from.
    pub(super) fn new(repository: RepositoryName) -> Self {
        Self(Mutex::new(List { repositories: vec![repository], closed: false }))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock()
    }

    /// Whether `repository` is authorized.
    pub(crate) fn has(&self, repository: &RepositoryName) -> bool {
        self.list().repositories.contains(repository)
    }

    /// Authorizes `repository`, to which upstream grants access to the blob. Returns `false` if it is too late: the
    /// store may have the blob.
    #[must_use]
    pub(crate) fn authorize(&self, repository: &RepositoryName) -> bool {
        let mut list = self.list();
        let has = list.repositories.contains(repository);
        if !has && !list.closed {
            list.repositories.push(repository.clone());
        }
        has || !list.closed
    }

    /// Returns the repositories after the first `linked`. If there are none, the set is closed.
    pub(super) fn after(&self, linked: usize) -> Vec<RepositoryName> {
        let mut list = self.list();
        let rest = list.repositories.get(linked..).unwrap_or_default().to_vec();
        list.closed |= rest.is_empty();
        rest
    }

    /// Refuses further repositories.
    pub(super) fn close(&self) {
        self.list().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorized_repositories_are_listed_until_the_set_is_closed() {
        let [first, second, third] =
            ["a", "b", "c"].map(|name| RepositoryName::new("r.example", name).unwrap());
        let authorized = Authorized::new(first.clone());
        assert_eq!(authorized.after(0), [first]);
        assert!(authorized.authorize(&second) && authorized.authorize(&second));
        assert_eq!(
            authorized.after(1),
            std::slice::from_ref(&second),
            "authorized while the first was linked"
        );
        assert!(authorized.after(2).is_empty());
        assert!(!authorized.authorize(&third) && !authorized.has(&third), "too late");
        assert!(authorized.authorize(&second), "already linked");
    }
}
