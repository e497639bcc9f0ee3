//! A count of the whole store, while the store goes on changing: pure.
//!
//! Invariant: whatever comes or goes while the walk goes on is counted as it is at the end, whether the walk sees it
//! before that, after it or never. This takes some fifty bytes of memory for everything that is kept.

use std::collections::{HashMap, HashSet};

use crate::gc::Key;

/// What a count has found so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kept: HashMap<Key, u64>,
    /// What has gone since the count began: a walk that comes to it late saw it before.
    gone: HashSet<Key>,
}

impl Tally {
    /// The walk has come to something.
    pub(super) fn seen(&mut self, key: Key, size: u64) {
        if !self.gone.contains(&key) {
            self.kept.entry(key).or_insert(size);
        }
    }

    /// Something was published.
    pub(super) fn arrived(&mut self, key: Key, size: u64) {
        self.gone.remove(&key);
        self.kept.insert(key, size);
    }

    /// Something was removed.
    pub(super) fn removed(&mut self, key: Key) {
        self.kept.remove(&key);
        self.gone.insert(key);
    }

    /// How many bytes are kept, once the walk is over.
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
    fn what_changes_during_a_count_is_counted_as_it_is_at_its_end() {
        use Step::{Arrived, Removed, Seen};
        for (what, steps, expected) in [
            ("it was there", vec![Seen], 10),
            ("it came, and the walk missed it", vec![Arrived], 10),
            ("it came, and the walk saw it", vec![Arrived, Seen], 10),
            ("it was written again", vec![Seen, Arrived], 10),
            ("it went after the walk saw it", vec![Seen, Removed], 0),
            ("it went before the walk told of it", vec![Removed, Seen], 0),
            ("it went unseen", vec![Removed], 0),
            ("it went and came again", vec![Seen, Removed, Arrived], 10),
            ("it went, came again and was seen", vec![Removed, Arrived, Seen], 10),
            ("it came and went", vec![Arrived, Removed, Seen], 0),
        ] {
            let (mut tally, key) = (Tally::default(), Key::from(&Digest::sha256(b"it")));
            for step in steps {
                match step {
                    Seen => tally.seen(key, 10),
                    Arrived => tally.arrived(key, 10),
                    Removed => tally.removed(key),
                }
            }
            assert_eq!(tally.bytes(), expected, "{what}");
        }
    }
}
