//! The JSON Patch for a pod: rewritten images, and kuik's label and annotations.
//!
//! A pure function of the pod before and after the change. It changes only images to be rewritten, one label, and kuik's
//! own annotations. Fields that Kubernetes does not allow to change are never patched, so that no pod is rejected because
//! of kuik: image volumes of a running pod are immutable, and when ephemeral containers are added, only the new ones can
//! change, not even metadata.
//!
//! An update changes only images that it introduces: a container whose image changes is restarted.
//!
//! A pod whose images are all kept for reasons of the pod is not managed, and does not change at all.

use kuik_core::rewrite::{
    ImageRewrite, KeepReason, MANAGED_LABEL, REWRITE_IMAGES_ANNOTATION, Rewriter, is_rewriting_of,
};
use serde_json::Value;

use super::patch::Patch;
use crate::pod::{Decided, ImageField, PodMetadata, decide, walk};

/// Kubernetes' limit for the total size of an object's annotations.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// The operation on a pod.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum PodChange<'a> {
    /// The pod is created.
    Create,
    /// The pod is updated.
    Update {
        /// The pod before the update.
        old: &'a Value,
    },
    /// Ephemeral containers are added to the pod.
    EphemeralContainers {
        /// The pod before the update.
        old: &'a Value,
    },
}

/// The patch of a pod, and the outcome for each of its images.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PodPatch {
    /// The changes.
    pub patch: Patch,
    /// The outcome for each image that can change.
    pub images: Vec<ImageOutcome>,
}

/// The outcome for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageOutcome {
    /// Kind of its field.
    pub field: ImageField,
    /// JSON pointer to the image.
    pub pointer: String,
    /// `rewritten` or `kept`.
    pub decision: &'static str,
    /// Metric label of the reason for keeping it; empty if rewritten.
    pub reason: &'static str,
    /// Reason of the policy, if the policy kept it.
    pub kept: Option<KeepReason>,
}

/// Which images are rewritten, in a pod that is tracked in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every image.
    All,
    /// The images that the update introduces.
    New,
    /// None: the pod is older than kuik, or opts out by annotation.
    None,
}

/// Returns the patch of `pod` in `namespace`, with the images that `rewriter` decides to rewrite.
///
/// Applied again to its own result, as API servers do on reinvocation, it changes nothing.
#[must_use]
pub fn patch_pod(pod: &Value, namespace: &str, change: PodChange<'_>, rewriter: &Rewriter) -> PodPatch {
    let [spec, metadata] = ["spec", "metadata"].map(|key| pod.get(key).unwrap_or(&Value::Null));
    let annotations = metadata.get("annotations");
    let (mode, rewrite_images) = mode(annotations, change);
    let before = Before::new(change);
    let context = PodMetadata::new(metadata, spec).with_namespace(namespace);
    let decisions = decide(spec, "/spec", context.context(), rewriter);

    let mut result =
        PodPatch { patch: Patch::default(), images: Vec::with_capacity(decisions.decided.len()) };
    let mut originals = Vec::new();
    let mut is_managed = is_managed_already(metadata, annotations) || decisions.decided.is_empty();
    for decided in decisions.decided {
        if !can_change(&decided, change, &before) {
            continue;
        }
        let is_new = before.is_new(&decided);
        let rewrites = mode == Mode::All || (mode == Mode::New && is_new);
        is_managed |= manages(&decided, rewriter);
        if rewrites && let Some(image) = decided.change() {
            result.patch.replace(&decided.source.pointer, image);
        }
        originals.extend(original_annotation(&decided, annotations, (is_new, rewrites), rewriter));
        result.images.push(outcome(decided, rewrites, mode));
    }
    result.images.extend(decisions.skipped.into_iter().map(|skipped| ImageOutcome {
        field: skipped.field,
        pointer: skipped.pointer,
        decision: "kept",
        reason: "malformed",
        kept: None,
    }));

    if is_managed && !matches!(change, PodChange::EphemeralContainers { .. }) {
        let managed = [(MANAGED_LABEL.to_owned(), Some("true".to_owned()))];
        result.patch.entries(pod, "/metadata/labels", &managed);
        let mut wanted = vec![(REWRITE_IMAGES_ANNOTATION.to_owned(), Some(rewrite_images.to_owned()))];
        let required = wanted.len();
        wanted.extend(originals);
        // A pod with full annotations is created with fewer of kuik's, or none.
        if !fits(annotations, &wanted) {
            wanted.truncate(required);
        }
        if !fits(annotations, &wanted) {
            wanted.clear();
        }
        result.patch.entries(pod, "/metadata/annotations", &wanted);
    }
    result
}

/// Returns which images are rewritten, and the new value of the pod's `rewrite-images` annotation.
///
/// The author of a new pod can opt out by the annotation. An update that omits the annotation keeps its value.
fn mode<'a>(annotations: Option<&'a Value>, change: PodChange<'a>) -> (Mode, &'a str) {
    let value = |annotations: Option<&'a Value>| annotations?.get(REWRITE_IMAGES_ANNOTATION)?.as_str();
    match change {
        PodChange::Create => match value(annotations) {
            Some("false") => (Mode::None, "false"),
            _ => (Mode::All, "true"),
        },
        PodChange::Update { old } | PodChange::EphemeralContainers { old } => {
            let before = value(old.pointer("/metadata/annotations"));
            match (before, value(annotations).or(before).unwrap_or("false")) {
                (Some("true"), "true") => (Mode::New, "true"),
                (_, "true") => (Mode::All, "true"),
                (_, other) => (Mode::None, other),
            }
        }
    }
}

/// Returns true if the pod has kuik's label or annotation, from kuik or from its author.
fn is_managed_already(metadata: &Value, annotations: Option<&Value>) -> bool {
    let labels = metadata.get("labels");
    labels.is_some_and(|all| all.get(MANAGED_LABEL).is_some())
        || annotations.is_some_and(|all| all.get(REWRITE_IMAGES_ANNOTATION).is_some())
}

/// Returns true if the pod of this image is managed: the image goes through the proxy, or is kept for a reason that
/// another image of the pod may not have.
fn manages(decided: &Decided<'_>, rewriter: &Rewriter) -> bool {
    match &decided.rewrite {
        ImageRewrite::Kept(reason) if reason.leaves_pod_unmanaged() => {
            rewriter.original(decided.source.image).is_some()
        }
        _ => true,
    }
}

/// Returns true if Kubernetes allows this image to change in this operation.
fn can_change(decided: &Decided<'_>, change: PodChange<'_>, before: &Before<'_>) -> bool {
    match (change, decided.source.field) {
        (PodChange::Create, ImageField::EphemeralContainer) => false,
        (PodChange::Create, _) => true,
        (PodChange::Update { .. }, field) => {
            !matches!(field, ImageField::EphemeralContainer | ImageField::ImageVolume)
        }
        (PodChange::EphemeralContainers { .. }, ImageField::EphemeralContainer) => before.is_new(decided),
        (PodChange::EphemeralContainers { .. }, _) => false,
    }
}

fn outcome(decided: Decided<'_>, rewrites: bool, mode: Mode) -> ImageOutcome {
    let (field, pointer) = (decided.source.field, decided.source.pointer);
    let (decision, reason, kept) = match decided.rewrite {
        ImageRewrite::Kept(reason) => ("kept", reason.as_label(), Some(reason)),
        _ if rewrites => ("rewritten", "", None),
        _ if mode == Mode::None => ("kept", "pod_not_rewritten", None),
        _ => ("kept", "unchanged", None),
    };
    ImageOutcome { field, pointer, decision, reason, kept }
}

/// Returns the change of the annotation with the original image: present for images that are rewritten or to be
/// rewritten, removed for all others. An image that goes through the proxy has an original even if the policy keeps it.
/// Images of ephemeral containers and volumes have no annotation.
fn original_annotation(
    decided: &Decided<'_>,
    annotations: Option<&Value>,
    (is_new, rewrites): (bool, bool),
    rewriter: &Rewriter,
) -> Option<(String, Option<String>)> {
    let image = decided.source.image;
    let key = decided.source.original_annotation()?;
    let present = annotations.and_then(|all| all.get(&key)).and_then(Value::as_str);
    // An image that stays as an earlier kuik has written it keeps the annotation that proves this.
    let stays = rewriter.original(image).is_some() || !rewrites;
    match present {
        Some(_) if !is_new => None,
        Some(original) if stays && is_rewriting_of(image, original) => Some((key, Some(original.to_owned()))),
        _ => Some((key, decided.original(rewriter))),
    }
}

/// Returns true if the annotations stay within the limit of the API server with the `wanted` ones added.
fn fits(annotations: Option<&Value>, wanted: &[(String, Option<String>)]) -> bool {
    let present = annotations.and_then(Value::as_object).into_iter().flatten();
    let present = present.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum::<usize>();
    let added =
        wanted.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len)).sum::<usize>();
    present + added <= MAX_ANNOTATIONS_BYTES
}

/// The images of a pod before an update.
struct Before<'a>(Vec<(ImageField, Option<&'a str>, &'a str)>);

impl<'a> Before<'a> {
    fn new(change: PodChange<'a>) -> Self {
        let (PodChange::Update { old } | PodChange::EphemeralContainers { old }) = change else {
            return Self(Vec::new());
        };
        let images = old.get("spec").map(|spec| walk(spec, "").images).unwrap_or_default();
        Self(images.into_iter().map(|image| (image.field, image.name, image.image)).collect())
    }

    /// Returns true if the pod did not have this image in this place.
    fn is_new(&self, decided: &Decided<'_>) -> bool {
        let source = &decided.source;
        !self.0.contains(&(source.field, source.name, source.image))
    }
}
