//! Object names of images and repositories.
//!
//! A name is the normalized reference, lower-cased, with every run of characters that Kubernetes does not allow
//! replaced by `-`. Two references can map to one name; if a name is taken by another image, the [`disambiguated`] one
//! is used. Invariant: every returned name is a valid object name (RFC 1123 subdomain, 253 bytes).

use crate::{
    content::Digest,
    reference::{ImageReference, RepositoryName},
};

/// Maximum length of an object name.
const MAX_NAME_BYTES: usize = 253;

/// A `-` and eight hex digits.
const SUFFIX_BYTES: usize = 9;

/// Returns the name of the CachedImage of an image.
///
/// ```
/// use kuik_core::{crd::cached_image_name, reference::ImageReference};
///
/// assert_eq!(cached_image_name(&ImageReference::parse("nginx:1.25")?), "docker.io-library-nginx-1.25");
/// assert_eq!(cached_image_name(&ImageReference::parse("nginx")?), "docker.io-library-nginx-latest");
/// assert_eq!(cached_image_name(&ImageReference::parse("host:5000/app:V1")?), "host-5000-app-v1");
/// # Ok::<(), kuik_core::reference::ReferenceError>(())
/// ```
#[must_use]
pub fn cached_image_name(image: &ImageReference<'_>) -> String {
    object_name(&image.normalized())
}

/// Returns the name of the Repository object of a repository. Also its label value on CachedImages, if short enough.
#[must_use]
pub fn repository_name(repository: &RepositoryName) -> String {
    object_name(&repository.to_string())
}

/// Returns the name of the object of `normalized` if the plain name is taken: it ends in `-` and eight hex digits of
/// the SHA-256 of the normalized reference.
#[must_use]
pub fn disambiguated(normalized: &str) -> String {
    hashed(&sanitized(normalized), normalized, MAX_NAME_BYTES)
}

/// Returns the value of the repository label on CachedImages, at most 63 bytes.
#[must_use]
pub fn repository_label(repository: &RepositoryName) -> String {
    const MAX_LABEL_BYTES: usize = 63;
    let name = repository.to_string();
    let label = sanitized(&name);
    match label.len() {
        0..=MAX_LABEL_BYTES if is_valid(&label) => label,
        _ => hashed(&label, &name, MAX_LABEL_BYTES),
    }
}

fn object_name(normalized: &str) -> String {
    let name = sanitized(normalized);
    if name.len() <= MAX_NAME_BYTES && is_valid(&name) { name } else { disambiguated(normalized) }
}

/// Lower-cases, and replaces every run of characters outside `[a-z0-9.-]` with `-`.
fn sanitized(normalized: &str) -> String {
    let mut name = String::with_capacity(normalized.len());
    let mut replacing = false;
    for character in normalized.chars().map(|character| character.to_ascii_lowercase()) {
        let taken = matches!(character, 'a'..='z' | '0'..='9' | '.' | '-');
        match (taken, replacing) {
            (true, _) => name.push(character),
            (false, false) => name.push('-'),
            (false, true) => {}
        }
        replacing = !taken;
    }
    name
}

/// Returns whether every part between dots begins and ends with a letter or a digit.
fn is_valid(name: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    name.split('.').map(str::as_bytes).all(|part| alphanumeric(part.first()) && alphanumeric(part.last()))
}

/// Truncates `name`, makes it valid and appends the hash of `normalized`.
fn hashed(name: &str, normalized: &str, most: usize) -> String {
    let digest = Digest::sha256(normalized.as_bytes());
    let mut short = String::with_capacity(most);
    for part in name.get(..most - SUFFIX_BYTES).unwrap_or(name).split('.') {
        let part = part.trim_matches('-');
        if part.is_empty() {
            continue;
        }
        if !short.is_empty() {
            short.push('.');
        }
        short.push_str(part);
    }
    short.push('-');
    short.push_str(digest.encoded().get(..SUFFIX_BYTES - 1).unwrap_or_default());
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(image: &str) -> String {
        cached_image_name(&ImageReference::parse(image).unwrap())
    }

    #[test]
    fn object_names_match_kuik_1_x() {
        for (image, expected) in [
            ("nginx:1.25", "docker.io-library-nginx-1.25"),
            ("jpetazzo/shpod", "docker.io-jpetazzo-shpod-latest"),
            ("registrish.s3.amazonaws.com/alpine", "registrish.s3.amazonaws.com-alpine-latest"),
            (
                "nvcr.io/nvidia/k8s/container-toolkit:v1.12.0-ubuntu20.04",
                "nvcr.io-nvidia-k8s-container-toolkit-v1.12.0-ubuntu20.04",
            ),
            ("registry:5000/app", "registry-5000-app-latest"),
            ("a/b__c:D_e", "docker.io-a-b-c-d-e"),
        ] {
            assert_eq!(name(image), expected);
        }
        let digest = "a".repeat(64);
        assert_eq!(
            name(&format!("nginx@sha256:{digest}")),
            format!("docker.io-library-nginx-sha256-{digest}")
        );
    }

    #[test]
    fn invalid_or_long_name_ends_in_a_hash() {
        let long = format!("{}/app:1", ["part"; 48].join("/"));
        for image in ["nginx:1.25-", "nginx:1.", "nginx:a._b", "nginx:a..b", &long] {
            let name = name(image);
            assert!(is_valid(&name), "{name}");
            assert!(name.len() <= MAX_NAME_BYTES, "{name}");
        }
        assert_eq!(name("nginx:a..b").split('-').next_back().map(str::len), Some(8));
    }

    #[test]
    fn disambiguated_names_of_colliding_images_differ() {
        let images = ["docker.io/foo/bar-baz:1", "docker.io/foo-bar/baz:1"];
        assert_eq!(name(images[0]), name(images[1]));
        assert_ne!(disambiguated(images[0]), disambiguated(images[1]));
        assert!(disambiguated(images[0]).starts_with("docker.io-foo-bar-baz-1-"));
    }

    #[test]
    fn repository_label_has_at_most_63_bytes() {
        let repository = |text: &str| text.parse::<RepositoryName>().unwrap();
        assert_eq!(repository_label(&repository("nginx")), "docker.io-library-nginx");
        let label = repository_label(&repository(&format!("quay.io/{}", "a".repeat(80))));
        assert_eq!(label.len(), 63);
    }
}
