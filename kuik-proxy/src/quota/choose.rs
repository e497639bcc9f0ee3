//! Which images go when space is short: pure, over images that share what they are made of.
//!
//! Expired ones go first, then those that were pulled least recently, and pinned ones never. What an image gives back
//! is what no image that stays needs: that is counted again after each choice, because of two images that share their
//! layers the second one gives them back.

use std::time::SystemTime;

/// An image, as far as it matters for this.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// What it is made of, each once: manifests and blobs, as places in the list of sizes.
    pub members: Vec<u32>,
    pub standing: Standing,
    pub last_pulled: SystemTime,
}

/// What somebody has said about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Its time is over: it goes first.
    Expired,
    /// Nothing that matters now.
    Usual,
    /// It stays.
    Pinned,
}

/// Places in `images` of those that go so that `need` bytes come back, in the order in which they go; all that may go
/// where that is not enough.
pub(super) fn choose(images: &[Candidate], sizes: &[u64], need: u64) -> Vec<usize> {
    let mut held = vec![0_u32; sizes.len()];
    for member in images.iter().flat_map(|image| &image.members) {
        if let Some(count) = held.get_mut(*member as usize) {
            *count += 1;
        }
    }
    let mut order: Vec<(usize, &Candidate)> =
        images.iter().enumerate().filter(|(_, image)| image.standing != Standing::Pinned).collect();
    order.sort_by_key(|(_, image)| (image.standing, image.last_pulled));

    let (mut freed, mut chosen) = (0_u64, Vec::new());
    for (place, image) in order {
        if freed >= need {
            break;
        }
        for member in &image.members {
            let (Some(count), Some(size)) = (held.get_mut(*member as usize), sizes.get(*member as usize))
            else {
                continue;
            };
            *count = count.saturating_sub(1);
            if *count == 0 {
                freed = freed.saturating_add(*size);
            }
        }
        chosen.push(place);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use Standing::{Expired, Pinned, Usual};

    use super::*;

    fn image(members: &[u32], standing: Standing, pulled: u64) -> Candidate {
        let last_pulled = SystemTime::UNIX_EPOCH + Duration::from_secs(pulled);
        Candidate { members: members.to_vec(), standing, last_pulled }
    }

    #[test]
    fn who_goes() {
        let alone = |standing: [Standing; 3]| {
            let [a, b, c] = standing;
            vec![image(&[0], a, 30), image(&[1], b, 10), image(&[2], c, 20)]
        };
        // Two images on a base that they share, and one alone.
        let shared = vec![image(&[0, 1], Usual, 1), image(&[0, 2], Usual, 2), image(&[3], Usual, 3)];
        let base_pinned = vec![image(&[0, 1], Usual, 1), image(&[0, 2], Pinned, 2), image(&[3], Usual, 3)];
        let (tens, base) = (vec![10_u64; 4], vec![100_u64, 1, 1, 10]);
        for (what, images, sizes, need, expected) in [
            ("nothing is needed", alone([Usual; 3]), &tens, 0, vec![]),
            ("the least recently pulled goes", alone([Usual; 3]), &tens, 1, vec![1]),
            ("in their order, as many as it takes", alone([Usual; 3]), &tens, 11, vec![1, 2]),
            ("expired ones go first", alone([Expired, Usual, Usual]), &tens, 20, vec![0, 1]),
            ("the oldest of the expired first", alone([Expired, Expired, Usual]), &tens, 10, vec![1]),
            ("pinned ones never", alone([Usual, Pinned, Usual]), &tens, 1000, vec![2, 0]),
            ("nothing may go", alone([Pinned; 3]), &tens, 10, vec![]),
            ("what another needs does not come back", shared.clone(), &base, 2, vec![0, 1]),
            ("its own part is enough", shared.clone(), &base, 1, vec![0]),
            ("the last one on a base gives it back", shared, &base, 102, vec![0, 1]),
            ("a base that a pinned one needs stays", base_pinned, &base, 5, vec![0, 2]),
        ] {
            assert_eq!(choose(&images, sizes, need), expected, "{what}");
        }
        assert!(choose(&[image(&[7], Usual, 0)], &[], 1) == [0], "what has no size gives nothing back");
    }
}
