//! Image extraction from a pod spec: containers, init containers, sidecars, ephemeral containers and image volumes.

use serde_json::{Map, Value};

use super::{ImageField, PodImage, Problem, Skipped};

/// Every image of a pod spec, in the order of the spec, and the skipped parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodImages<'a> {
    /// The images.
    pub images: Vec<PodImage<'a>>,
    /// The parts without the shape that Kubernetes requires.
    pub skipped: Vec<Skipped>,
}

/// Finds every image of `pod_spec`. `base` is prepended to each JSON pointer (`/spec` for a pod).
///
/// ```
/// use serde_json::json;
///
/// let spec = json!({ "containers": [{ "name": "web", "image": "nginx" }] });
/// let found = kuik_webhook::pod::walk(&spec, "/spec");
/// assert_eq!(found.images[0].pointer, "/spec/containers/0/image");
/// assert_eq!(found.images[0].image, "nginx");
/// ```
#[must_use]
pub fn walk<'a>(pod_spec: &'a Value, base: &str) -> PodImages<'a> {
    let mut found = PodImages::default();
    let Value::Object(spec) = pod_spec else {
        found.skip(ImageField::Container, None, base.to_owned(), Problem::NotAnObject);
        return found;
    };
    found.containers(spec, base, "initContainers", ImageField::InitContainer);
    found.containers(spec, base, "containers", ImageField::Container);
    found.containers(spec, base, "ephemeralContainers", ImageField::EphemeralContainer);
    found.volumes(spec, base);
    found
}

impl<'a> PodImages<'a> {
    fn containers(&mut self, spec: &'a Map<String, Value>, base: &str, list: &str, field: ImageField) {
        for (pointer, item) in self.items(spec, base, list, field) {
            let Value::Object(container) = item else {
                self.skip(field, None, pointer, Problem::NotAnObject);
                continue;
            };
            let always_on = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            let field = match field {
                ImageField::InitContainer if always_on => ImageField::Sidecar,
                other => other,
            };
            self.image(container, container, field, &pointer, ("image", "imagePullPolicy"));
        }
    }

    fn volumes(&mut self, spec: &'a Map<String, Value>, base: &str) {
        let field = ImageField::ImageVolume;
        for (pointer, item) in self.items(spec, base, "volumes", field) {
            let Value::Object(volume) = item else {
                self.skip(field, None, pointer, Problem::NotAnObject);
                continue;
            };
            match volume.get("image") {
                None | Some(Value::Null) => {}
                Some(Value::Object(image)) => {
                    let pointer = format!("{pointer}/image");
                    self.image(volume, image, field, &pointer, ("reference", "pullPolicy"));
                }
                Some(_) => {
                    let name = volume.get("name").and_then(Value::as_str);
                    self.skip(field, name, format!("{pointer}/image"), Problem::NotAnObject);
                }
            }
        }
    }

    /// Adds the image of the object `holder` at `pointer`, whose container or volume is `named`. A pull policy that is
    /// not a string makes the whole image malformed, and so skipped.
    fn image(
        &mut self,
        named: &'a Map<String, Value>,
        holder: &'a Map<String, Value>,
        field: ImageField,
        pointer: &str,
        (image_key, policy_key): (&str, &str),
    ) {
        let name = named.get("name").and_then(Value::as_str);
        let at = |key: &str| format!("{pointer}/{key}");
        let image = match holder.get(image_key) {
            Some(Value::String(image)) if !image.is_empty() => image,
            None | Some(Value::Null | Value::String(_)) => {
                return self.skip(field, name, at(image_key), Problem::NoImage);
            }
            Some(_) => return self.skip(field, name, at(image_key), Problem::NotAString),
        };
        let pull_policy = match holder.get(policy_key) {
            Some(Value::String(policy)) if !policy.is_empty() => Some(policy.as_str()),
            None | Some(Value::Null | Value::String(_)) => None,
            Some(_) => return self.skip(field, name, at(policy_key), Problem::NotAString),
        };
        self.images.push(PodImage { field, name, pointer: at(image_key), image, pull_policy });
    }

    /// Returns the items of a list, each with its pointer; empty if the list is absent.
    fn items(
        &mut self,
        spec: &'a Map<String, Value>,
        base: &str,
        list: &str,
        field: ImageField,
    ) -> Vec<(String, &'a Value)> {
        match spec.get(list) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                let pointer = |(index, item)| (format!("{base}/{list}/{index}"), item);
                items.iter().enumerate().map(pointer).collect()
            }
            Some(_) => {
                self.skip(field, None, format!("{base}/{list}"), Problem::NotAList);
                Vec::new()
            }
        }
    }

    fn skip(&mut self, field: ImageField, name: Option<&str>, pointer: String, problem: Problem) {
        self.skipped.push(Skipped { field, name: name.map(str::to_owned), pointer, problem });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: &Value) -> Vec<(ImageField, String, String)> {
        let found = walk(spec, "/spec");
        found.images.into_iter().map(|image| (image.field, image.pointer, image.image.to_owned())).collect()
    }

    #[test]
    fn walk_finds_every_field_with_its_pointer() {
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
            (ImageField::InitContainer, "/spec/initContainers/0/image", "busybox:1"),
            (ImageField::Sidecar, "/spec/initContainers/1/image", "proxy:2"),
            (ImageField::InitContainer, "/spec/initContainers/2/image", "busybox:3"),
            (ImageField::Container, "/spec/containers/0/image", "nginx"),
            (ImageField::EphemeralContainer, "/spec/ephemeralContainers/0/image", "tools"),
            (ImageField::ImageVolume, "/spec/volumes/1/image/reference", "ghcr.io/m/weights:v1"),
        ];
        let expected: Vec<_> =
            Vec::from(expected.map(|(field, at, image)| (field, at.to_owned(), image.to_owned())));
        assert_eq!(found(&spec), expected);
        let found = walk(&spec, "");
        assert_eq!(found.images[3].pull_policy, Some("IfNotPresent"));
        assert_eq!(found.images[5].pull_policy, Some("Never"));
        assert_eq!(found.images[5].name, Some("model"));
        assert_eq!(found.skipped, []);
    }

    #[test]
    fn pointers_resolve_to_images() {
        let spec = json!({
            "containers": [{ "image": "a" }, { "image": "b" }],
            "volumes": [{ "image": { "reference": "c" } }],
        });
        let pod = json!({ "spec": spec });
        for image in walk(&spec, "/spec").images {
            assert_eq!(pod.pointer(&image.pointer).and_then(Value::as_str), Some(image.image));
        }
    }

    #[test]
    fn malformed_parts_are_reported_and_rest_is_found() {
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
        let found = walk(&spec, "/spec");
        let good: Vec<_> = found.images.iter().map(|image| (image.name, image.image)).collect();
        assert_eq!(good, [(None, "good")]);
        let skipped = found.skipped.iter().map(|skipped| format!("{} {}", skipped.pointer, skipped.problem));
        let skipped: Vec<_> = skipped.collect();
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
    fn spec_that_is_not_an_object_has_no_images() {
        for spec in [json!(null), json!([]), json!("spec"), json!(1), json!(true)] {
            let found = walk(&spec, "/spec");
            assert_eq!(found.images, []);
            assert_eq!(found.skipped[0].problem, Problem::NotAnObject);
        }
    }

    #[test]
    fn empty_spec_has_no_images_and_no_problems() {
        assert_eq!(walk(&json!({}), ""), PodImages::default());
    }
}
