//! Replica ranking by rendezvous hashing, also called highest random weight.
//!
//! Every proxy that knows the same replicas ranks them alike, without any coordination, and a replica that is added
//! or removed moves only the keys that it owns. The weight of a replica for a key is the SHA-256 of the replica's
//! name, a line feed, and the key; the highest weight, as a 256-bit number, is first:
//!
//! ```sh
//! printf '%s\n%s' 10.0.0.1:5000 sha256:2cf2… | sha256sum
//! ```
//!
//! Invariant: this never changes. Proxies of two versions that rank differently would each fetch every blob.

use kuik_core::{
    content::{Digest, TagOrDigest},
    reference::RepositoryName,
};

/// Returns the order in which `replicas` are tried for `key`, as indices. The order of the input makes no difference.
///
/// ```
/// use kuik_proxy::chain::rank;
///
/// let replicas = ["10.0.0.1:5000", "10.0.0.2:5000", "10.0.0.3:5000"];
/// let ranked: Vec<_> = rank("docker.io/library/nginx:1.25", replicas).map(|at| replicas[at]).collect();
/// assert_eq!(ranked, ["10.0.0.2:5000", "10.0.0.1:5000", "10.0.0.3:5000"]);
/// ```
pub fn rank<I>(key: &str, replicas: I) -> impl Iterator<Item = usize> + use<I>
where
    I: IntoIterator<Item: AsRef<str>>,
{
    let weight = |name: I::Item| Digest::sha256([name.as_ref(), "\n", key].concat().as_bytes());
    let mut weighted: Vec<_> = replicas.into_iter().map(weight).zip(0..).collect();
    // Lower-case hex strings of equal length sort like the numbers they represent.
    weighted.sort_unstable_by(|one, other| other.cmp(one));
    weighted.into_iter().map(|(_, at)| at)
}

/// Ranking key of a manifest: its digest, whichever repository it is requested from; for a tag, the repository and
/// the tag, so that all nodes ask the same replica for its target.
pub(super) fn manifest_key(repository: &RepositoryName, at: &TagOrDigest) -> String {
    match at {
        TagOrDigest::Tag(tag) => format!("{repository}:{tag}"),
        TagOrDigest::Digest(digest) => digest.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("10.0.0.{n}:5000")).collect()
    }

    fn ranked(key: &str, names: &[String]) -> Vec<String> {
        rank(key, names).map(|at| names[at].clone()).collect()
    }

    /// Computed with `sha256sum`, as in the module's documentation.
    #[test]
    fn golden() {
        const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        for (key, expected) in [
            (HELLO, [1, 2, 4, 3, 5]),
            ("docker.io/library/nginx:1.25", [2, 5, 4, 1, 3]),
            ("registry:5000/app", [4, 3, 1, 5, 2]),
        ] {
            let order: Vec<_> = rank(key, &names(5)).map(|at| at + 1).collect();
            assert_eq!(order, expected, "{key}");
        }
        assert_eq!(rank(HELLO, [""; 0]).count(), 0);
    }

    #[test]
    fn manifest_key_is_the_digest_or_the_repository_and_tag() {
        let repository: RepositoryName = "nginx".parse().unwrap();
        let digest = Digest::sha256(b"hello");
        let tag = TagOrDigest::Tag("1.25".parse().unwrap());
        assert_eq!(manifest_key(&repository, &tag), "docker.io/library/nginx:1.25");
        assert_eq!(manifest_key(&repository, &TagOrDigest::Digest(digest.clone())), digest.as_str());
    }

    #[test]
    fn rank_distributes_keys_evenly() {
        let names = names(5);
        let mut owned = [0_i32; 5];
        for n in 0..10_000_u32 {
            let key = Digest::sha256(&n.to_be_bytes());
            owned[rank(key.as_str(), &names).next().unwrap()] += 1;
        }
        // Five standard deviations of a fair draw: 5 × sqrt(10000 × 0.2 × 0.8) = 200.
        assert!(owned.iter().all(|share| (share - 2000).abs() < 200), "{owned:?}");
    }

    proptest! {
        #[test]
        fn rank_ignores_the_order_of_the_input(key: String, count in 1_usize..12, turn in 0_usize..12) {
            let names = names(count);
            let mut turned = names.clone();
            turned.rotate_left(turn % count);
            prop_assert_eq!(ranked(&key, &names), ranked(&key, &turned));
        }

        /// Removing a replica removes only its own place: keys of other replicas stay.
        #[test]
        fn removing_a_replica_moves_only_its_keys(key: String, count in 2_usize..12, gone in 0_usize..12) {
            let names = names(count);
            let gone = names[gone % count].clone();
            let rest: Vec<_> = names.iter().filter(|&name| *name != gone).cloned().collect();
            let mut before = ranked(&key, &names);
            before.retain(|name| *name != gone);
            prop_assert_eq!(before, ranked(&key, &rest));
        }
    }
}
