//! Eviction order of images: pure, over images that share content.
//!
//! The order is that of [`Rank`]. An image frees only content that no remaining image needs. That is computed again
//! after each choice, because of two images that share layers the second one frees them.

use std::time::{Duration, SystemTime};

use crate::maintenance::retention::Standing;

/// An unmanaged image pulled within this period is evicted last: it may be in use without being managed.
const RECENT: Duration = Duration::from_secs(24 * 3600);

/// Image, as far as its eviction depends on it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its content, each item once: manifests and blobs, as indexes into the list of sizes.
    pub members: Vec<u32>,
    pub rank: Rank,
    pub last_pulled: SystemTime,
}

/// Place of an image in the eviction order, first to be evicted first. Within a rank, the least recently pulled is
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// No cluster manages it, and it was not pulled recently.
    Unmanaged,
    /// No pod uses it, and it has expired, at this time in seconds since the Unix epoch.
    Expired(u64),
    /// No pod uses it, and it expires at this time.
    Unused(u64),
    /// No cluster manages it, but it was pulled recently.
    Recent,
    /// Never evicted: it is in use or retained, or its content was just written.
    Kept,
}

impl Rank {
    /// Returns the rank of an image at `now`.
    pub(super) fn of(standing: Standing, last_pulled: SystemTime, now: SystemTime) -> Self {
        let is_recent = now.duration_since(last_pulled).map_or(true, |ago| ago < RECENT);
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match standing {
            Standing::Unmanaged if is_recent => Self::Recent,
            Standing::Unmanaged => Self::Unmanaged,
            Standing::Unused { expires_at } if expires_at <= seconds => Self::Expired(expires_at),
            Standing::Unused { expires_at } => Self::Unused(expires_at),
            Standing::Needed => Self::Kept,
        }
    }

    /// Returns whether no cluster manages the image.
    pub(super) fn is_unmanaged(self) -> bool {
        matches!(self, Self::Unmanaged | Self::Recent)
    }

    /// Returns the reason for its eviction, for metrics and logs.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Unmanaged | Self::Recent => "unmanaged",
            Self::Expired(_) => "expired",
            Self::Unused(_) => "unused",
            Self::Kept => "needed",
        }
    }
}

/// Returns the indexes of the `images` to evict so that `need` bytes are freed, in the order of eviction; all
/// evictable ones if that is not enough.
pub(super) fn choose(images: &[Candidate], sizes: &[u64], need: u64) -> Vec<usize> {
    let mut held = vec![0_u32; sizes.len()];
    for member in images.iter().flat_map(|image| &image.members) {
        if let Some(count) = held.get_mut(*member as usize) {
            *count += 1;
        }
    }
    let mut order: Vec<(usize, &Candidate)> =
        images.iter().enumerate().filter(|(_, image)| image.rank != Rank::Kept).collect();
    order.sort_by_key(|(_, image)| (image.rank, image.last_pulled));

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
    use Rank::{Expired, Kept, Recent, Unmanaged, Unused};

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn image(members: &[u32], rank: Rank, pulled: u64) -> Candidate {
        Candidate { members: members.to_vec(), rank, last_pulled: at(pulled) }
    }

    #[test]
    fn rank_depends_on_standing_last_pull_and_time() {
        let (now, day) = (1_000_000, RECENT.as_secs());
        for (standing, pulled, expected) in [
            (Standing::Unmanaged, now - day, Unmanaged),
            (Standing::Unmanaged, now - day + 1, Recent),
            (Standing::Unmanaged, now + day, Recent),
            (Standing::Unused { expires_at: now }, 0, Expired(now)),
            (Standing::Unused { expires_at: now + 1 }, 0, Unused(now + 1)),
            (Standing::Unused { expires_at: u64::MAX }, 0, Unused(u64::MAX)),
            (Standing::Needed, 0, Kept),
        ] {
            assert_eq!(Rank::of(standing, at(pulled), at(now)), expected, "{standing:?} {pulled}");
        }
    }

    #[test]
    fn eviction_follows_rank_then_last_pull() {
        let alone = |ranks: [Rank; 3]| {
            let [a, b, c] = ranks;
            vec![image(&[0], a, 30), image(&[1], b, 10), image(&[2], c, 20)]
        };
        let same = [Unmanaged; 3];
        // Two images on a shared base, and one without.
        let shared =
            vec![image(&[0, 1], Unmanaged, 1), image(&[0, 2], Unmanaged, 2), image(&[3], Unmanaged, 3)];
        let base_kept =
            vec![image(&[0, 1], Unmanaged, 1), image(&[0, 2], Kept, 2), image(&[3], Unmanaged, 3)];
        let (tens, base) = (vec![10_u64; 4], vec![100_u64, 1, 1, 10]);
        for (what, images, sizes, need, expected) in [
            ("nothing is needed", alone(same), &tens, 0, vec![]),
            ("the least recently pulled is evicted", alone(same), &tens, 1, vec![1]),
            ("in their order, as many as it takes", alone(same), &tens, 11, vec![1, 2]),
            (
                "unmanaged before expired",
                alone([Expired(1), Unmanaged, Expired(2)]),
                &tens,
                30,
                vec![1, 0, 2],
            ),
            ("expired before unused", alone([Expired(1), Unused(5), Unused(4)]), &tens, 30, vec![0, 2, 1]),
            ("recently pulled last", alone([Recent, Recent, Unused(u64::MAX)]), &tens, 30, vec![2, 1, 0]),
            ("needed ones never", alone([Recent, Kept, Unused(1)]), &tens, 1000, vec![2, 0]),
            ("nothing is evictable", alone([Kept; 3]), &tens, 10, vec![]),
            ("shared content is not freed", shared.clone(), &base, 2, vec![0, 1]),
            ("its own part is enough", shared.clone(), &base, 1, vec![0]),
            ("the last image on a base frees it", shared, &base, 102, vec![0, 1]),
            ("a base that a needed image has is kept", base_kept, &base, 5, vec![0, 2]),
        ] {
            assert_eq!(choose(&images, sizes, need), expected, "{what}");
        }
        assert!(choose(&[image(&[7], Unmanaged, 0)], &[], 1) == [0], "content without a size frees nothing");
    }
}
