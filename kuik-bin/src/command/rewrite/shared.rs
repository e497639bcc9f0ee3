//! Resolution of shared values: selects the text to edit for each image when anchors and aliases share values.
//!
//! An image shared through aliases is edited once, at its anchor, if all uses of the anchor are images with the same
//! result. Otherwise an alias that must change is replaced by the new value, and an anchored image that must change is
//! kept, because editing it would also change other values or images that are kept.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    edit::Edit,
    scalar::value_range,
    tree::{Content, NodeId, Slot, Tree},
};

/// Top-level fields of Kubernetes objects. An anchor under any other key (`x-image: &image nginx`) is a definition, which
/// has no meaning besides that of its aliases.
const FIELDS_OF_OBJECTS: [&str; 7] =
    ["apiVersion", "kind", "metadata", "spec", "status", "template", "items"];

/// Reason that a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The same text is the image of a container that keeps it.
    SharedWithKept,
    /// An alias of the same text is not an image, or must not change.
    AnchorOfOthers,
    /// Its text was not found.
    NotFound,
}

/// An image in the tree, and its target (the same image if it is kept).
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) slot: Slot,
    pub(super) image: &'a str,
}

/// Returns the edits for the wishes, and a conflict for each wish that cannot be fulfilled.
pub(super) fn settle(text: &str, tree: &Tree, wishes: &[Wish<'_>]) -> (Vec<Edit>, BTreeMap<usize, Conflict>) {
    let mut settlement = Settlement { text, tree, edits: Vec::new(), conflicts: BTreeMap::new() };
    let mut by_node: BTreeMap<NodeId, BTreeMap<Slot, Vec<usize>>> = BTreeMap::new();
    for (index, wish) in wishes.iter().enumerate() {
        by_node.entry(wish.slot.node).or_default().entry(wish.slot).or_default().push(index);
    }
    let mut aliases: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
    for alias in tree.aliases().filter(|alias| by_node.contains_key(&alias.node)) {
        aliases.entry(alias.node).or_default().push(alias);
    }
    for (node, slots) in &by_node {
        let aliases = aliases.get(node).map_or(&[][..], Vec::as_slice);
        settlement.node(*node, slots, aliases, wishes);
    }
    (settlement.edits, settlement.conflicts)
}

struct Settlement<'t> {
    text: &'t str,
    tree: &'t Tree,
    edits: Vec<Edit>,
    conflicts: BTreeMap<usize, Conflict>,
}

impl Settlement<'_> {
    fn node(
        &mut self,
        node: NodeId,
        slots: &BTreeMap<Slot, Vec<usize>>,
        aliases: &[Slot],
        wishes: &[Wish<'_>],
    ) {
        let Some(current) = self.tree.scalar(node).map(|scalar| scalar.text.as_ref()) else {
            let lost = slots.values().flatten().map(|index| (*index, Conflict::NotFound));
            return self.conflicts.extend(lost);
        };
        // Target of each position: the common target of its images, or unchanged if they differ.
        let mut targets: BTreeMap<Slot, &str> = BTreeMap::new();
        for (slot, indices) in slots {
            let wanted: BTreeSet<_> =
                indices.iter().filter_map(|index| wishes.get(*index)).map(|wish| wish.image).collect();
            let agreed = (wanted.len() == 1).then(|| wanted.first().copied()).flatten();
            if agreed.is_none() {
                self.refuse(indices, wishes, current, Conflict::SharedWithKept);
            }
            targets.insert(*slot, agreed.unwrap_or(current));
        }

        let anchor = Slot { node, alias: None };
        let wanted = match targets.get(&anchor) {
            Some(target) => Some(*target),
            None if self.is_there_to_be_shared(node) => {
                aliases.first().and_then(|alias| targets.get(alias)).copied()
            }
            None => None,
        };
        if let Some(target) = wanted.filter(|target| *target != current) {
            if aliases.iter().all(|alias| targets.get(alias) == Some(&target)) {
                return self.edit_anchor(node, target, slots);
            }
            if let Some(indices) = slots.get(&anchor) {
                self.refuse(indices, wishes, current, Conflict::AnchorOfOthers);
            }
        }
        for (slot, target) in targets.into_iter().filter(|(_, target)| *target != current) {
            if let Some(alias) = slot.alias.and_then(|id| self.tree.alias(id)) {
                self.edits.push(Edit {
                    range: alias.range.clone(),
                    text: target.to_owned(),
                    event: alias.event,
                });
            }
        }
    }

    fn edit_anchor(&mut self, node: NodeId, target: &str, slots: &BTreeMap<Slot, Vec<usize>>) {
        let edit = self.tree.scalar(node).and_then(|scalar| {
            let source = self.text.get(scalar.range.clone())?;
            let range = value_range(source, scalar.style, &scalar.text)?;
            let start = scalar.range.start;
            let range = start + range.start..start + range.end;
            Some(Edit { range, text: target.to_owned(), event: scalar.event })
        });
        match edit {
            Some(edit) => self.edits.push(edit),
            None => self.conflicts.extend(slots.values().flatten().map(|index| (*index, Conflict::NotFound))),
        }
    }

    fn refuse(&mut self, indices: &[usize], wishes: &[Wish<'_>], current: &str, why: Conflict) {
        let changes = |index: &&usize| wishes.get(**index).is_some_and(|wish| wish.image != current);
        self.conflicts.extend(indices.iter().filter(changes).map(|index| (*index, why)));
    }

    /// Returns whether `node` is under a top-level key that is not a field of Kubernetes objects.
    fn is_there_to_be_shared(&self, node: NodeId) -> bool {
        let Some(Content::Map(entries)) = self.tree.node(self.tree.root.node).map(|root| &root.content)
        else {
            return false;
        };
        // Nodes are numbered in text order, so `node` is under the last key before it.
        let mut keys =
            entries.iter().map(|(key, _)| key).filter(|key| key.alias.is_none() && key.node < node);
        let key = keys.next_back().and_then(|key| self.tree.scalar(key.node));
        key.is_some_and(|key| !FIELDS_OF_OBJECTS.contains(&key.text.as_ref()))
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SharedWithKept => "shared through an anchor with a container that keeps its image",
            Self::AnchorOfOthers => "its anchor is also used for other values",
            Self::NotFound => "its text cannot be edited in place",
        })
    }
}
