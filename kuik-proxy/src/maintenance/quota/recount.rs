//! Recount of a whole store that changes meanwhile: pure.
//!
//! Invariant: content added or removed during the walk is counted by its final state, whether the walk sees it
//! before, after or never. It takes about fifty bytes of memory for each stored digest.

use std::collections::{HashMap, HashSet};

use crate::maintenance::gc::Key;

/// Intermediate state of a count.
#[derive(Debug, Default)]
pub(super) struct Recount {
    kept: HashMap<Key, u64>,
    /// Removed since the count began: a late entry of the walk was read before that.
    gone: HashSet<Key>,
}

impl Recount {
    /// Counts an entry of the walk.
    pub(super) fn seen(&mut self, key: Key, size: u64) {
        if !self.gone.contains(&key) {
            self.kept.entry(key).or_insert(size);
        }
    }

    /// Counts published content.
    pub(super) fn arrived(&mut self, key: Key, size: u64) {
        self.gone.remove(&key);
        self.kept.insert(key, size);
    }

    /// Counts a removal.
    pub(super) fn removed(&mut self, key: Key) {
        self.kept.remove(&key);
        self.gone.insert(key);
    }

    /// Returns the stored bytes after the walk.
    pub(super) fn bytes(&self) -> u64 {
        self.kept.values().fold(0, |sum, size| sum.saturating_add(*size))
    }
}

#[cfg(test)]
mod tests {
    use kuik_core::content::Digest;

    use super::*;

    enum Step {
        Seen,
        Arrived,
        Removed,
    }

    #[test]
    fn concurrent_changes_count_by_their_final_state() {
        use Step::{Arrived, Removed, Seen};
        for (what, steps, expected) in [
            ("existed before", vec![Seen], 10),
            ("added, missed by the walk", vec![Arrived], 10),
            ("added, seen by the walk", vec![Arrived, Seen], 10),
            ("overwritten", vec![Seen, Arrived], 10),
            ("removed after the walk saw it", vec![Seen, Removed], 0),
            ("removed before the walk returned it", vec![Removed, Seen], 0),
            ("removed unseen", vec![Removed], 0),
            ("removed and added again", vec![Seen, Removed, Arrived], 10),
            ("removed, added again and seen", vec![Removed, Arrived, Seen], 10),
            ("added and removed", vec![Arrived, Removed, Seen], 0),
        ] {
            let (mut recount, key) = (Recount::default(), Key::from(&Digest::sha256(b"it")));
            for step in steps {
                match step {
                    Seen => recount.seen(key, 10),
                    Arrived => recount.arrived(key, 10),
                    Removed => recount.removed(key),
                }
            }
            assert_eq!(recount.bytes(), expected, "{what}");
        }
    }
}
