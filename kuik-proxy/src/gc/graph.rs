//! What is reachable: pure, over a graph of digests.
//!
//! An edge leads from what keeps to what is kept: from an index to its manifests, from an image to its configuration
//! and layers, and from a manifest to its referrers (their `subject` points the other way). What an edge leads to need
//! not be there: an index may be sparse. Cycles and any depth are harmless, because nothing is visited twice and
//! nothing recurses.
//!
//! Memory is bounded by the number of digests and edges, not by the size of manifests: 32 bytes for each digest, and
//! 4 for each edge.

use std::collections::{HashMap, HashSet};

use kuik_core::content::{DecodedManifest, Digest, Manifest};

/// A digest in 32 bytes: a SHA-256 itself, and of any other digest the SHA-256 of its text. Two that meet would only
/// keep too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key([u8; 32]);

impl From<&Digest> for Key {
    fn from(digest: &Digest) -> Self {
        let hex = |digest: &Digest| {
            let mut key = [0; 32];
            let (pairs, _) = digest.encoded().as_bytes().as_chunks::<2>();
            for (byte, [high, low]) in key.iter_mut().zip(pairs) {
                *byte = nibble(*high) << 4 | nibble(*low);
            }
            Self(key)
        };
        match digest.algorithm_name() {
            "sha256" => hex(digest),
            _ => hex(&Digest::sha256(digest.as_str().as_bytes())),
        }
    }
}

/// Digests are lower-case hex by their type.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.wrapping_sub(b'a').wrapping_add(10) & 15,
    }
}

/// What keeps what.
#[derive(Debug, Default)]
pub(super) struct Graph {
    ids: HashMap<Key, u32>,
    keys: Vec<Key>,
    kept_by: Vec<Vec<u32>>,
    roots: HashSet<u32>,
    added: HashSet<u32>,
}

/// Where something is in the order in which it may be removed: after what is on the levels before. What has one place
/// keeps one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Nothing is kept by anything else on its level.
    pub(super) level: usize,
    circle: usize,
}

/// Everything that must stay, which can only grow.
#[derive(Debug, Default, Clone)]
pub(super) struct Reachable(HashSet<Key>);

impl Graph {
    /// Adds a manifest with what it refers to.
    pub(super) fn add_manifest(&mut self, digest: &Digest, manifest: &Manifest) {
        let id = self.id(digest);
        // Many repositories may have one manifest.
        if !self.added.insert(id) {
            return;
        }
        for child in children(manifest) {
            self.add_edge(digest, &child);
        }
        if let Some(subject) = manifest.subject() {
            self.add_edge(&subject, digest);
        }
    }

    /// Whether it is known what a manifest refers to.
    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.ids.get(&Key::from(digest)).is_some_and(|id| self.added.contains(id))
    }

    /// The same, where nothing is kept for its own sake. What manifests refer to never changes.
    pub(super) fn without_roots(self) -> Self {
        Self { roots: HashSet::new(), ..self }
    }

    pub(super) fn add_edge(&mut self, from: &Digest, to: &Digest) {
        let (from, to) = (self.id(from), self.id(to));
        // An edge twice does no harm, and to look for it in a very long list of platforms would take long.
        if let Some(edges) = self.kept_by.get_mut(from as usize) {
            edges.push(to);
        }
    }

    /// Keeps something for its own sake.
    pub(super) fn add_root(&mut self, digest: &Digest) {
        let id = self.id(digest);
        self.roots.insert(id);
    }

    fn id(&mut self, digest: &Digest) -> u32 {
        let key = Key::from(digest);
        let next = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        *self.ids.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.kept_by.push(Vec::new());
            next
        })
    }

    /// What the roots keep.
    pub(super) fn reachable(&self) -> Reachable {
        let mut reachable = Reachable::default();
        self.extend(&mut reachable, self.roots.iter().filter_map(|&id| self.keys.get(id as usize)).copied());
        reachable
    }

    /// Adds `keys` and what they keep.
    pub(super) fn extend(&self, reachable: &mut Reachable, keys: impl IntoIterator<Item = Key>) {
        let mut open: Vec<Key> = keys.into_iter().filter(|key| reachable.0.insert(*key)).collect();
        while let Some(key) = open.pop() {
            let kept = self.ids.get(&key).and_then(|&id| self.kept_by.get(id as usize));
            let kept = kept.into_iter().flatten().filter_map(|&id| self.keys.get(id as usize));
            open.extend(kept.filter(|key| reachable.0.insert(**key)));
        }
    }

    /// Every digest of the graph, with its place in an order in which what keeps comes before what is kept. What keeps
    /// one another has one place: an index that lists the subject of its own subject is such a circle, of any length.
    pub(super) fn top_down(&self) -> HashMap<Key, Place> {
        let circles = self.circles();
        let mut levels = vec![0; self.keys.len()];
        let mut ids: Vec<usize> = (0..self.keys.len()).collect();
        let circle = |id: usize| circles.get(id).copied().unwrap_or_default();
        ids.sort_unstable_by_key(|&id| circle(id));
        for id in ids {
            let below = levels.get(circle(id)).copied().unwrap_or_default() + 1;
            let kept = self.kept_by.get(id).into_iter().flatten().map(|&to| circle(to as usize));
            for kept in kept.filter(|kept| *kept != circle(id)) {
                if let Some(level) = levels.get_mut(kept) {
                    *level = below.max(*level);
                }
            }
        }
        let place = |id: usize| {
            let circle = circle(id);
            Place { level: levels.get(circle).copied().unwrap_or_default(), circle }
        };
        self.keys.iter().enumerate().map(|(id, key)| (*key, place(id))).collect()
    }

    /// The number of the circle that each digest is in, alone or with others; what keeps has a lower one than what is
    /// kept.
    ///
    /// That is Kosaraju's algorithm: in the order in which a walk down leaves digests last, walks up find the circles.
    fn circles(&self) -> Vec<usize> {
        let mut keepers = vec![Vec::new(); self.keys.len()];
        for (from, kept) in self.kept_by.iter().enumerate() {
            for to in kept {
                if let Some(keepers) = keepers.get_mut(*to as usize) {
                    keepers.push(from);
                }
            }
        }
        let mut circles = vec![None; self.keys.len()];
        let mut next = 0;
        for start in self.bottom_up().into_iter().rev() {
            let mut open = vec![start];
            let before = next;
            while let Some(id) = open.pop() {
                if let Some(circle @ None) = circles.get_mut(id) {
                    *circle = Some(before);
                    next = before + 1;
                    open.extend(keepers.get(id).into_iter().flatten());
                }
            }
        }
        circles.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Every digest, each after what it leads to, but for where a circle closes.
    fn bottom_up(&self) -> Vec<usize> {
        let mut seen = vec![false; self.keys.len()];
        let mut bottom_up = Vec::with_capacity(self.keys.len());
        for start in 0..self.keys.len() {
            let mut open = vec![(start, false)];
            while let Some((id, left)) = open.pop() {
                if left {
                    bottom_up.push(id);
                } else if let Some(seen) = seen.get_mut(id).filter(|seen| !**seen) {
                    *seen = true;
                    open.push((id, true));
                    let kept = self.kept_by.get(id).into_iter().flatten();
                    open.extend(kept.map(|&id| (id as usize, false)));
                }
            }
        }
        bottom_up
    }
}

impl Reachable {
    pub(super) fn contains(&self, key: Key) -> bool {
        self.0.contains(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a manifest needs: the manifests of an index, the configuration and layers of an image.
pub(crate) fn children(manifest: &Manifest) -> Vec<Digest> {
    match manifest.decode() {
        Ok(DecodedManifest::Index(index)) => index.manifests.into_iter().map(|entry| entry.digest).collect(),
        Ok(DecodedManifest::Image(image)) => {
            std::iter::once(image.config).chain(image.layers).map(|entry| entry.digest).collect()
        }
        // Kinds of manifests that this build does not know refer to nothing that it knows.
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
