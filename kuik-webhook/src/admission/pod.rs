//! What a pod becomes: its images through the proxy, and what kuik writes about them beside.
//!
//! A pure function of the pod, as it was and as it is to be. It touches the images that are rewritten, one label, and
//! annotations that are kuik's own. What Kubernetes lets nobody change is left alone, for a pod is never refused because
//! of kuik: of a pod that runs, image volumes are fixed; and where debug containers are added, nothing but those new
//! ones can change, not even metadata.
//!
//! An update changes no image that it does not bring: a container whose image changes is started again.

use std::borrow::Cow;

use kuik_core::{
    crd::{
        MANAGED_LABEL, REWRITE_IMAGES_ANNOTATION, original_image_annotation, original_init_image_annotation,
    },
    reference::{ImageReference, ProxyAuthority, decode},
    rewrite::{Decision, RewritePolicy},
};
use serde_json::Value;

use super::patch::Patch;
use crate::pod::{Decided, SiteKind, decide, walk};

/// How many bytes the annotations of an object may have together.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// What is done to a pod.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum PodChange<'a> {
    /// It is made.
    Create,
    /// It is changed; what it was.
    Update {
        /// The pod until now.
        old: &'a Value,
    },
    /// Debug containers are added to it; what it was.
    Debug {
        /// The pod until now.
        old: &'a Value,
    },
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PodPatch {
    /// What changes.
    pub patch: Patch,
    /// What became of each image that was looked at.
    pub images: Vec<ImageOutcome>,
}

/// What became of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageOutcome {
    /// Where it is.
    pub kind: SiteKind,
    /// `rewritten` or `kept`.
    pub decision: &'static str,
    /// Why it was kept, as metrics name it; empty where it was rewritten.
    pub reason: &'static str,
}

/// Whether images are rewritten, in a pod that is kept track of in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every image.
    All,
    /// Those that the update brings.
    New,
    /// None: the pod predates kuik, or asks for that.
    None,
}

/// What becomes of `pod`, whose images `policy` decides about; those that have the prefix of `proxy` come from there.
#[must_use]
pub fn patch_pod(
    pod: &Value,
    change: PodChange<'_>,
    policy: &dyn RewritePolicy,
    proxy: &ProxyAuthority,
) -> PodPatch {
    let (spec, annotations) = (pod.get("spec").unwrap_or(&Value::Null), pod.pointer("/metadata/annotations"));
    let (mode, rewrite_images) = mode(annotations, change);
    let before = Before::of(change);
    let decisions = decide(spec, "/spec", policy);

    let mut result =
        PodPatch { patch: Patch::default(), images: Vec::with_capacity(decisions.decided.len()) };
    let mut noted = vec![(REWRITE_IMAGES_ANNOTATION.to_owned(), Some(rewrite_images.to_owned()))];
    for decided in &decisions.decided {
        if !can_change(decided, change, &before) {
            continue;
        }
        let is_new = before.is_new(decided);
        let rewrites = mode == Mode::All || (mode == Mode::New && is_new);
        if rewrites && let Some(image) = decided.change() {
            result.patch.replace(&decided.site.pointer, image);
        }
        result.images.push(outcome(decided, rewrites, mode));
        noted.extend(note(decided, annotations, is_new, proxy));
    }
    let malformed = |kind| ImageOutcome { kind, decision: "kept", reason: "malformed" };
    result.images.extend(decisions.skipped.iter().map(|skipped| malformed(skipped.kind)));

    if !matches!(change, PodChange::Debug { .. }) {
        let managed = [(MANAGED_LABEL.to_owned(), Some("true".to_owned()))];
        result.patch.entries(pod, "/metadata/labels", &managed);
        if !has_room(annotations, &noted) {
            noted.truncate(1);
        }
        // A pod that is full says nothing of kuik, and starts.
        if !has_room(annotations, &noted) {
            noted.clear();
        }
        result.patch.entries(pod, "/metadata/annotations", &noted);
    }
    result
}

/// Whether images are rewritten, and what the pod's annotation says of that from now on. Who makes a pod may ask that its
/// images stay; who changes one says nothing new by leaving the annotation out.
fn mode<'a>(annotations: Option<&'a Value>, change: PodChange<'a>) -> (Mode, &'a str) {
    let says = |annotations: Option<&'a Value>| annotations?.get(REWRITE_IMAGES_ANNOTATION)?.as_str();
    match change {
        PodChange::Create => match says(annotations) {
            Some("false") => (Mode::None, "false"),
            _ => (Mode::All, "true"),
        },
        PodChange::Update { old } | PodChange::Debug { old } => {
            let said = says(old.pointer("/metadata/annotations"));
            match (said, says(annotations).or(said).unwrap_or("false")) {
                (Some("true"), "true") => (Mode::New, "true"),
                (_, "true") => (Mode::All, "true"),
                (_, other) => (Mode::None, other),
            }
        }
    }
}

/// Whether Kubernetes lets this image be changed now.
fn can_change(decided: &Decided<'_>, change: PodChange<'_>, before: &Before<'_>) -> bool {
    match (change, decided.site.kind) {
        (PodChange::Create, SiteKind::EphemeralContainer) => false,
        (PodChange::Create, _) => true,
        (PodChange::Update { .. }, kind) => {
            !matches!(kind, SiteKind::EphemeralContainer | SiteKind::ImageVolume)
        }
        (PodChange::Debug { .. }, SiteKind::EphemeralContainer) => before.is_new(decided),
        (PodChange::Debug { .. }, _) => false,
    }
}

fn outcome(decided: &Decided<'_>, rewrites: bool, mode: Mode) -> ImageOutcome {
    let (decision, reason) = match &decided.decision {
        Decision::Keep(reason) => ("kept", reason.as_label()),
        Decision::Rewrite { .. } if rewrites => ("rewritten", ""),
        Decision::Rewrite { .. } if mode == Mode::None => ("kept", "pod_not_rewritten"),
        Decision::Rewrite { .. } => ("kept", "unchanged"),
    };
    ImageOutcome { kind: decided.site.kind, decision, reason }
}

/// The annotation that says what an image was before it was rewritten: there for what goes through the proxy, and for
/// nothing else. The images of debug containers and volumes have none.
fn note(
    decided: &Decided<'_>,
    annotations: Option<&Value>,
    is_new: bool,
    proxy: &ProxyAuthority,
) -> Option<(String, Option<String>)> {
    let (site, name) = (&decided.site, decided.site.name?);
    let key = match site.kind {
        SiteKind::Container => original_image_annotation(name),
        SiteKind::InitContainer | SiteKind::Sidecar => original_init_image_annotation(name),
        _ => return None,
    };
    let present = annotations.and_then(|all| all.get(&key)).and_then(Value::as_str);
    if present.is_some_and(|original| !is_new || was_written_as(site.image, original, proxy)) {
        return None;
    }
    let original = match decided.decision {
        Decision::Rewrite { .. } => {
            Some(decode(site.image, proxy).unwrap_or(Cow::Borrowed(site.image)).into_owned())
        }
        Decision::Keep(_) => None,
    };
    Some((key, original))
}

/// Whether `image` is what kuik 1.x made of `original`: it wrote a registry's port behind a dash.
fn was_written_as(image: &str, original: &str, proxy: &ProxyAuthority) -> bool {
    let behind = image.strip_prefix(proxy.as_str()).and_then(|rest| rest.strip_prefix('/'));
    let port = || ImageReference::parse(original).is_ok_and(|original| original.registry().contains(':'));
    behind.is_some_and(|path| port() && path == original.replacen(':', "-", 1))
}

/// Whether the annotations have room for what is noted: too many would have the pod refused.
fn has_room(annotations: Option<&Value>, noted: &[(String, Option<String>)]) -> bool {
    let present = annotations.and_then(Value::as_object).into_iter().flatten();
    let present = present.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum::<usize>();
    let added =
        noted.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len)).sum::<usize>();
    present + added <= MAX_ANNOTATIONS_BYTES
}

/// The images that a pod had.
struct Before<'a>(Vec<(SiteKind, Option<&'a str>, &'a str)>);

impl<'a> Before<'a> {
    fn of(change: PodChange<'a>) -> Self {
        let (PodChange::Update { old } | PodChange::Debug { old }) = change else { return Self(Vec::new()) };
        let images = old.get("spec").map(|spec| walk(spec, "").sites).unwrap_or_default();
        Self(images.into_iter().map(|site| (site.kind, site.name, site.image)).collect())
    }

    /// Whether the pod had not this image in this place.
    fn is_new(&self, decided: &Decided<'_>) -> bool {
        let site = &decided.site;
        !self.0.contains(&(site.kind, site.name, site.image))
    }
}
