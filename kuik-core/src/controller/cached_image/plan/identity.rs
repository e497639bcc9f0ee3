//! Object identity: one canonical object per image, with our finalizer, label and owner reference.

use super::{Observed, OwnedMetadata, Step, naming::Naming};

/// Recreates the object under its canonical name and deletes this one.
pub(super) fn rename(observed: &Observed, right: &str) -> Vec<Step> {
    let mut steps = vec![Step::Recreate { name: right.to_owned() }];
    steps.extend(delete_duplicate(observed));
    steps
}

/// Untags the image that the object named before it was edited: nothing else would clean it up.
pub(super) fn untag(observed: &Observed) -> Option<Step> {
    let before = observed.memory.image.as_ref().filter(|before| observed.image.as_ref() != Some(before))?;
    Some(Step::Untag { image: before.clone() })
}

/// Cancels the running job and untags the previous image.
pub(super) fn leave(observed: &Observed) -> impl Iterator<Item = Step> {
    let abandon = observed.job.is_some().then_some(Step::Abandon);
    abandon.into_iter().chain(untag(observed))
}

/// Deletes the object because another object has the same image.
pub(super) fn delete_duplicate(observed: &Observed) -> Vec<Step> {
    leave(observed).chain([Step::DeleteDuplicate]).collect()
}

/// Adds missing metadata to the object. An object without a valid image gets none: there is nothing to clean up.
pub(super) fn adopt(observed: &Observed) -> Vec<Step> {
    if matches!(observed.naming, Naming::Invalid { .. }) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let OwnedMetadata { finalizer, label, owner } = &observed.metadata;
    let repository = observed.repository.as_ref().filter(|repository| !repository.deleting);
    // The owner of a new object was created just before it and may not have reached the informer yet.
    let is_new = observed.status.used_by.is_none() && owner.is_some();
    if observed.repository.is_none() && !is_new {
        steps.push(Step::CreateRepository { name: observed.siblings.repository_name.clone() });
    }
    let wanted = &observed.siblings.label;
    let label = (label.as_ref() != Some(wanted)).then(|| wanted.clone());
    let uid = repository.map(|repository| &repository.uid);
    let owner = uid.filter(|uid| owner.as_ref() != Some(uid)).cloned();
    if !finalizer || label.is_some() || owner.is_some() {
        steps.push(Step::Adopt { finalizer: !finalizer, label, owner });
    }
    steps
}
