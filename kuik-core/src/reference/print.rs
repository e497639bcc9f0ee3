//! Formatting of an [`ImageReference`], and equality of normalized references.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use super::{
    grammar,
    normalized::{DOCKER_HUB, Name, OFFICIAL},
    parse::ImageReference,
};

impl ImageReference<'_> {
    /// The full name: with registry and `library/`, and with `:latest` if there is neither tag nor digest.
    ///
    /// [`Display`](fmt::Display) prints the same text.
    #[must_use]
    pub fn normalized(&self) -> String {
        self.pieces().concat()
    }

    /// The shortest text for the same repository, with the tag and the digest as written.
    ///
    /// ```
    /// use kuik_core::reference::ImageReference;
    ///
    /// let familiar = |text| ImageReference::parse(text).map(|image| image.familiar());
    /// assert_eq!(familiar("docker.io/library/nginx:1.25")?, "nginx:1.25");
    /// // "localhost/app" would name the registry "localhost".
    /// assert_eq!(familiar("docker.io/localhost/app")?, "docker.io/localhost/app");
    /// # Ok::<(), kuik_core::reference::ReferenceError>(())
    /// ```
    #[must_use]
    pub fn familiar(&self) -> String {
        let Name { registry, official, path } = self.name;
        let bare = self.tag().is_none() && self.digest().is_none();
        let prefix = match registry {
            DOCKER_HUB if official && bare && grammar::is_identifier(path.as_bytes()) => [OFFICIAL, ""],
            DOCKER_HUB if official || grammar::registry_ahead(path.as_bytes()).is_none() => ["", ""],
            _ => [registry, "/"],
        };
        [prefix.as_slice(), &[path], &mark(":", self.tag()), &mark("@", self.digest())].concat().concat()
    }

    fn pieces(&self) -> [&str; 8] {
        let Name { registry, official, path } = self.name;
        let [colon, tag] = mark(":", self.tag_or_default());
        let [at, digest] = mark("@", self.digest());
        [registry, "/", if official { OFFICIAL } else { "" }, path, colon, tag, at, digest]
    }

    /// The normalized parts, which determine equality.
    fn normalized_parts(&self) -> (Name<'_>, Option<&str>, Option<&str>) {
        (self.name, self.tag_or_default(), self.digest())
    }
}

/// A part with its sign, or nothing.
fn mark<'a>(sign: &'a str, part: Option<&'a str>) -> [&'a str; 2] {
    part.map_or(["", ""], |part| [sign, part])
}

impl fmt::Display for ImageReference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces().into_iter().try_for_each(|piece| f.write_str(piece))
    }
}

impl PartialEq<ImageReference<'_>> for ImageReference<'_> {
    fn eq(&self, other: &ImageReference<'_>) -> bool {
        self.normalized_parts() == other.normalized_parts()
    }
}

impl Eq for ImageReference<'_> {}

impl Hash for ImageReference<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normalized_parts().hash(state);
    }
}
