//! Which object stands for an image, and what of us is on it.

use super::{Facts, Observed, Step, naming::Naming};

/// The object is made again under its right name, and goes.
pub(super) fn rename(observed: &Observed, right: &str) -> Vec<Step> {
    let mut steps = vec![Step::Recreate { name: right.to_owned() }];
    steps.extend(give_way(observed));
    steps
}

/// Lets go of what the object stood for before it was edited: nobody else would.
pub(super) fn let_go(observed: &Observed) -> Option<Step> {
    let before = observed.memory.image.as_ref().filter(|before| observed.image.as_ref() != Some(before))?;
    Some(Step::LetGo { image: before.clone() })
}

/// What goes on for the object ends, and so does what it stood for before.
pub(super) fn leave(observed: &Observed) -> impl Iterator<Item = Step> {
    let abandon = observed.job.is_some().then_some(Step::Abandon);
    abandon.into_iter().chain(let_go(observed))
}

/// The object goes: another stands for its image.
pub(super) fn give_way(observed: &Observed) -> Vec<Step> {
    leave(observed).chain([Step::GiveWay]).collect()
}

/// What of us is missing on the object. One that names no image gets nothing: there is nothing to clean up after it.
pub(super) fn adopt(observed: &Observed) -> Vec<Step> {
    if matches!(observed.naming, Naming::Invalid { .. }) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let Facts { finalizer, label, owner } = &observed.facts;
    let repository = observed.repository.as_ref().filter(|repository| !repository.deleting);
    // The one that owns a new object was made a moment ago, and is only not seen yet.
    let is_new = observed.status.used_by.is_none() && owner.is_some();
    if observed.repository.is_none() && !is_new {
        steps.push(Step::CreateRepository { name: observed.others.repository_name.clone() });
    }
    let wanted = &observed.others.label;
    let label = (label.as_ref() != Some(wanted)).then(|| wanted.clone());
    let uid = repository.map(|repository| &repository.uid);
    let owner = uid.filter(|uid| owner.as_ref() != Some(uid)).cloned();
    if !finalizer || label.is_some() || owner.is_some() {
        steps.push(Step::Adopt { finalizer: !finalizer, label, owner });
    }
    steps
}
