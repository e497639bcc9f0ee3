//! Reachability over a graph of digests; pure.
//!
//! An edge leads from a referrer to the content it keeps: from an index to its manifests, from an image to its
//! configuration and layers, and from a manifest to its referrers (their `subject` points the other way). The target
//! of an edge may be missing: an index may be sparse. Cycles and any depth are harmless, because no node is visited
//! twice and nothing recurses.
//!
//! Memory is bounded by the number of digests and edges, not by the size of manifests: 32 bytes for each digest, and
//! 4 for each edge.

use std::collections::{HashMap, HashSet};

use kuik_core::content::{DecodedManifest, Digest, Manifest};

/// Digest in 32 bytes: the SHA-256 itself, or the SHA-256 of the text of any other digest. A collision would only
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

/// Reference graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    ids: HashMap<Key, u32>,
    keys: Vec<Key>,
    kept_by: Vec<Vec<u32>>,
    roots: HashSet<u32>,
    added: HashSet<u32>,
}

/// Rank in the removal order: after everything on lower levels. Nodes of one strongly connected component share a
/// rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// No node is kept by another node on its level, except within a component.
    pub(super) level: usize,
    component: usize,
}

/// Set of digests that must stay; it only grows.
#[derive(Debug, Default, Clone)]
pub(super) struct Reachable(HashSet<Key>);

impl Graph {
    /// Adds a manifest and its references.
    pub(super) fn add_manifest(&mut self, digest: &Digest, manifest: &Manifest) {
        let id = self.id(digest);
        // Many repositories may contain the same manifest.
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

    /// Returns whether the references of a manifest are known.
    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.ids.get(&Key::from(digest)).is_some_and(|id| self.added.contains(id))
    }

    /// Returns the graph without its roots. The references of a manifest never change.
    pub(super) fn without_roots(self) -> Self {
        Self { roots: HashSet::new(), ..self }
    }

    pub(super) fn add_edge(&mut self, from: &Digest, to: &Digest) {
        let (from, to) = (self.id(from), self.id(to));
        // A duplicate edge is harmless; searching a very long list of platforms for it would be slow.
        if let Some(edges) = self.kept_by.get_mut(from as usize) {
            edges.push(to);
        }
    }

    /// Adds a root, which is kept unconditionally.
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

    /// Returns what is reachable from the roots.
    pub(super) fn reachable(&self) -> Reachable {
        let mut reachable = Reachable::default();
        self.extend(&mut reachable, self.roots.iter().filter_map(|&id| self.keys.get(id as usize)).copied());
        reachable
    }

    /// Adds `keys` and everything reachable from them.
    pub(super) fn extend(&self, reachable: &mut Reachable, keys: impl IntoIterator<Item = Key>) {
        let mut open: Vec<Key> = keys.into_iter().filter(|key| reachable.0.insert(*key)).collect();
        while let Some(key) = open.pop() {
            let kept = self.ids.get(&key).and_then(|&id| self.kept_by.get(id as usize));
            let kept = kept.into_iter().flatten().filter_map(|&id| self.keys.get(id as usize));
            open.extend(kept.filter(|key| reachable.0.insert(**key)));
        }
    }

    /// Returns every digest of the graph with its rank, referrers before the content they keep. Digests in a cycle
    /// share a rank: an index that lists the subject of its own subject forms such a cycle, of any length.
    pub(super) fn top_down(&self) -> HashMap<Key, Rank> {
        let components = self.components();
        let mut levels = vec![0; self.keys.len()];
        let mut ids: Vec<usize> = (0..self.keys.len()).collect();
        let component = |id: usize| components.get(id).copied().unwrap_or_default();
        ids.sort_unstable_by_key(|&id| component(id));
        for id in ids {
            let below = levels.get(component(id)).copied().unwrap_or_default() + 1;
            let kept = self.kept_by.get(id).into_iter().flatten().map(|&to| component(to as usize));
            for kept in kept.filter(|kept| *kept != component(id)) {
                if let Some(level) = levels.get_mut(kept) {
                    *level = below.max(*level);
                }
            }
        }
        let rank = |id: usize| {
            let component = component(id);
            Rank { level: levels.get(component).copied().unwrap_or_default(), component }
        };
        self.keys.iter().enumerate().map(|(id, key)| (*key, rank(id))).collect()
    }

    /// Returns the number of the strongly connected component of each digest; referrers have lower numbers than the
    /// content they keep.
    ///
    /// This is Kosaraju's algorithm: walks against the edges, in reverse post-order, find the components.
    fn components(&self) -> Vec<usize> {
        let mut keepers = vec![Vec::new(); self.keys.len()];
        for (from, kept) in self.kept_by.iter().enumerate() {
            for to in kept {
                if let Some(keepers) = keepers.get_mut(*to as usize) {
                    keepers.push(from);
                }
            }
        }
        let mut components = vec![None; self.keys.len()];
        let mut next = 0;
        for start in self.bottom_up().into_iter().rev() {
            let mut open = vec![start];
            let before = next;
            while let Some(id) = open.pop() {
                if let Some(component @ None) = components.get_mut(id) {
                    *component = Some(before);
                    next = before + 1;
                    open.extend(keepers.get(id).into_iter().flatten());
                }
            }
        }
        components.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Returns every digest in post-order: each after the digests it leads to, except where a cycle closes.
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

/// Returns the references of a manifest: the manifests of an index, the configuration and layers of an image.
pub(crate) fn children(manifest: &Manifest) -> Vec<Digest> {
    match manifest.decode() {
        Ok(DecodedManifest::Index(index)) => index.manifests.into_iter().map(|entry| entry.digest).collect(),
        Ok(DecodedManifest::Image(image)) => {
            std::iter::once(image.config).chain(image.layers).map(|entry| entry.digest).collect()
        }
        // Manifest types unknown to this build have no known references.
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
