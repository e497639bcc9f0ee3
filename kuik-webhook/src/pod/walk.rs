//! Finds every image of a pod spec: containers, init containers, sidecars, ephemeral containers and image volumes.

use serde_json::{Map, Value};

use super::{ImageSite, Problem, SiteKind, Skipped};

/// Every image of a pod spec, in the order in which the spec lists them, and what was left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodImages<'a> {
    /// The places that name an image.
    pub sites: Vec<ImageSite<'a>>,
    /// The parts that have not the shape that Kubernetes demands.
    pub skipped: Vec<Skipped>,
}

/// Finds every image of `pod_spec`; `base` is put before each JSON pointer (`/spec` for a pod's own).
///
/// ```
/// use serde_json::json;
///
/// let spec = json!({ "containers": [{ "name": "web", "image": "nginx" }] });
/// let images = kuik_webhook::pod::walk(&spec, "/spec");
/// assert_eq!(images.sites[0].pointer, "/spec/containers/0/image");
/// assert_eq!(images.sites[0].image, "nginx");
/// ```
#[must_use]
pub fn walk<'a>(pod_spec: &'a Value, base: &str) -> PodImages<'a> {
    let mut found = PodImages::default();
    let Value::Object(spec) = pod_spec else {
        found.skip(SiteKind::Container, None, base.to_owned(), Problem::NotAnObject);
        return found;
    };
    found.containers(spec, base, "initContainers", SiteKind::InitContainer);
    found.containers(spec, base, "containers", SiteKind::Container);
    found.containers(spec, base, "ephemeralContainers", SiteKind::EphemeralContainer);
    found.volumes(spec, base);
    found
}

impl<'a> PodImages<'a> {
    fn containers(&mut self, spec: &'a Map<String, Value>, base: &str, field: &str, kind: SiteKind) {
        for (pointer, item) in self.items(spec, base, field, kind) {
            let Value::Object(container) = item else {
                self.skip(kind, None, pointer, Problem::NotAnObject);
                continue;
            };
            let always_on = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            let kind = match kind {
                SiteKind::InitContainer if always_on => SiteKind::Sidecar,
                other => other,
            };
            self.image(container, container, kind, &pointer, ("image", "imagePullPolicy"));
        }
    }

    fn volumes(&mut self, spec: &'a Map<String, Value>, base: &str) {
        let kind = SiteKind::ImageVolume;
        for (pointer, item) in self.items(spec, base, "volumes", kind) {
            let Value::Object(volume) = item else {
                self.skip(kind, None, pointer, Problem::NotAnObject);
                continue;
            };
            match volume.get("image") {
                None | Some(Value::Null) => {}
                Some(Value::Object(image)) => {
                    self.image(volume, image, kind, &format!("{pointer}/image"), ("reference", "pullPolicy"));
                }
                Some(_) => {
                    let name = volume.get("name").and_then(Value::as_str);
                    self.skip(kind, name, format!("{pointer}/image"), Problem::NotAnObject);
                }
            }
        }
    }

    /// One image, in `holder` at `pointer`, for what `named` names. A pull policy that is no string makes the whole
    /// site one that we do not understand, and so leave alone.
    fn image(
        &mut self,
        named: &'a Map<String, Value>,
        holder: &'a Map<String, Value>,
        kind: SiteKind,
        pointer: &str,
        (image_field, policy_field): (&str, &str),
    ) {
        let name = named.get("name").and_then(Value::as_str);
        let at = |field: &str| format!("{pointer}/{field}");
        let image = match holder.get(image_field) {
            Some(Value::String(image)) if !image.is_empty() => image,
            None | Some(Value::Null | Value::String(_)) => {
                return self.skip(kind, name, at(image_field), Problem::NoImage);
            }
            Some(_) => return self.skip(kind, name, at(image_field), Problem::NotAString),
        };
        let pull_policy = match holder.get(policy_field) {
            Some(Value::String(policy)) if !policy.is_empty() => Some(policy.as_str()),
            None | Some(Value::Null | Value::String(_)) => None,
            Some(_) => return self.skip(kind, name, at(policy_field), Problem::NotAString),
        };
        self.sites.push(ImageSite { kind, name, pointer: at(image_field), image, pull_policy });
    }

    /// The items of a list, each with its pointer; none where the list is absent.
    fn items(
        &mut self,
        spec: &'a Map<String, Value>,
        base: &str,
        field: &str,
        kind: SiteKind,
    ) -> Vec<(String, &'a Value)> {
        match spec.get(field) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                let pointer = |(index, item)| (format!("{base}/{field}/{index}"), item);
                items.iter().enumerate().map(pointer).collect()
            }
            Some(_) => {
                self.skip(kind, None, format!("{base}/{field}"), Problem::NotAList);
                Vec::new()
            }
        }
    }

    fn skip(&mut self, kind: SiteKind, name: Option<&str>, pointer: String, problem: Problem) {
        self.skipped.push(Skipped { kind, name: name.map(str::to_owned), pointer, problem });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: &Value) -> Vec<(SiteKind, String, String)> {
        let images = walk(spec, "/spec");
        images.sites.iter().map(|s| (s.kind, s.pointer.clone(), s.image.to_owned())).collect()
    }

    #[test]
    fn every_kind_of_site_is_found_with_its_pointer() {
        let spec = json!({
            "initContainers": [
                { "name": "setup", "image": "busybox:1" },
                { "name": "mesh", "image": "proxy:2", "restartPolicy": "Always" },
                { "name": "more", "image": "busybox:3" },
            ],
            "containers": [{ "name": "web", "image": "nginx", "imagePullPolicy": "IfNotPresent" }],
            "ephemeralContainers": [{ "name": "debug", "image": "tools" }],
            "volumes": [
                { "name": "tmp", "emptyDir": {} },
                { "name": "model", "image": { "reference": "ghcr.io/m/weights:v1", "pullPolicy": "Never" } },
            ],
        });
        let expected = [
            (SiteKind::InitContainer, "/spec/initContainers/0/image", "busybox:1"),
            (SiteKind::Sidecar, "/spec/initContainers/1/image", "proxy:2"),
            (SiteKind::InitContainer, "/spec/initContainers/2/image", "busybox:3"),
            (SiteKind::Container, "/spec/containers/0/image", "nginx"),
            (SiteKind::EphemeralContainer, "/spec/ephemeralContainers/0/image", "tools"),
            (SiteKind::ImageVolume, "/spec/volumes/1/image/reference", "ghcr.io/m/weights:v1"),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(kind, at, image)| (kind, at.to_owned(), image.to_owned())).collect();
        assert_eq!(found(&spec), expected);
        let images = walk(&spec, "");
        assert_eq!(images.sites[3].pull_policy, Some("IfNotPresent"));
        assert_eq!(images.sites[5].pull_policy, Some("Never"));
        assert_eq!(images.sites[5].name, Some("model"));
        assert_eq!(images.skipped, []);
    }

    #[test]
    fn every_pointer_leads_to_its_image() {
        let spec = json!({
            "containers": [{ "image": "a" }, { "image": "b" }],
            "volumes": [{ "image": { "reference": "c" } }],
        });
        let pod = json!({ "spec": spec });
        for site in walk(&spec, "/spec").sites {
            assert_eq!(pod.pointer(&site.pointer).and_then(Value::as_str), Some(site.image));
        }
    }

    #[test]
    fn what_is_malformed_is_reported_and_the_rest_is_found() {
        let spec = json!({
            "initContainers": "none",
            "containers": [
                7,
                { "name": "number", "image": 5 },
                { "name": "absent" },
                { "name": "empty", "image": "" },
                { "name": "policy", "image": "x", "imagePullPolicy": ["Always"] },
                { "name": ["odd"], "image": "good" },
            ],
            "ephemeralContainers": null,
            "volumes": [false, { "name": "v", "image": "nginx" }, { "image": {} }],
        });
        let images = walk(&spec, "/spec");
        let good: Vec<_> = images.sites.iter().map(|s| (s.name, s.image)).collect();
        assert_eq!(good, [(None, "good")]);
        let skipped: Vec<_> = images.skipped.iter().map(|s| format!("{} {}", s.pointer, s.problem)).collect();
        assert_eq!(
            skipped,
            [
                "/spec/initContainers is not a list",
                "/spec/containers/0 is not an object",
                "/spec/containers/1/image is not a string",
                "/spec/containers/2/image has no image",
                "/spec/containers/3/image has no image",
                "/spec/containers/4/imagePullPolicy is not a string",
                "/spec/volumes/0 is not an object",
                "/spec/volumes/1/image is not an object",
                "/spec/volumes/2/image/reference has no image",
            ]
        );
    }

    #[test]
    fn a_spec_that_is_no_object_has_no_images() {
        for spec in [json!(null), json!([]), json!("spec"), json!(1), json!(true)] {
            let images = walk(&spec, "/spec");
            assert_eq!(images.sites, []);
            assert_eq!(images.skipped[0].problem, Problem::NotAnObject);
        }
    }

    #[test]
    fn an_empty_spec_has_nothing_to_report() {
        assert_eq!(walk(&json!({}), ""), PodImages::default());
    }
}
