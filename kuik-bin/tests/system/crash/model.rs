//! Model of a repository: the images that each tag may point at. It is one image if the last change was acknowledged, and
//! the previous or the new one if the registry was killed during the change.

use std::collections::{BTreeMap, BTreeSet};

/// How sure a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It was acknowledged.
    Done,
    /// It may have been made, in part or as a whole.
    InFlight,
}

/// The tags of one repository. `None` is a missing tag, like all that were never pushed.
#[derive(Debug, Default)]
pub(crate) struct Model {
    tags: BTreeMap<String, BTreeSet<Option<usize>>>,
}

impl Model {
    /// A tag points at an image, or at nothing.
    pub(crate) fn set(&mut self, tag: &str, state: Option<usize>, certainty: Certainty) {
        let states = self.tags.entry(tag.to_owned()).or_insert_with(|| BTreeSet::from([None]));
        if certainty == Certainty::Done {
            states.clear();
        }
        states.insert(state);
    }

    /// An image is deleted, with every tag on it.
    pub(crate) fn delete(&mut self, image: usize, certainty: Certainty) {
        for states in self.tags.values_mut().filter(|states| states.contains(&Some(image))) {
            if certainty == Certainty::Done {
                states.clear();
            }
            states.insert(None);
        }
    }

    /// Returns the image of a tag, if it is certain.
    pub(crate) fn get(&self, tag: &str) -> Option<usize> {
        let states = self.tags.get(tag)?;
        assert_eq!(states.len(), 1, "{tag} was seen since it was changed");
        states.first().copied().flatten()
    }

    /// A tag was seen in this state: it may be, and from now on it is.
    pub(crate) fn saw(&mut self, tag: &str, found: Option<usize>) {
        let states = self.tags.entry(tag.to_owned()).or_insert_with(|| BTreeSet::from([None]));
        assert!(states.contains(&found), "{tag} points at {found:?}, not at one of {states:?}");
        *states = BTreeSet::from([found]);
    }

    /// Every tag that was ever changed.
    pub(crate) fn known(&self) -> Vec<String> {
        self.tags.keys().cloned().collect()
    }

    /// The images that tags point at, and those tags.
    pub(crate) fn present(&self) -> BTreeMap<String, usize> {
        self.tags.keys().filter_map(|tag| Some((tag.clone(), self.get(tag)?))).collect()
    }
}
