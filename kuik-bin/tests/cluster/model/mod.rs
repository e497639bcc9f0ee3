//! Model test of the whole system: real controllers of one or two clusters, a real cache with a size limit, a real API
//! server for each cluster, and an upstream registry that counts what it sends.
//!
//! Random steps from a seed, which is printed: pods come and go, tags move and images are refreshed, images vanish upstream
//! and return, images are retained and expire, are pulled without a pod, the cache is killed, replaced, shrunk and grown,
//! controllers restart, a second cluster joins and leaves. After a few steps the test waits until nothing more is to be
//! done, and checks the invariants of [`invariants`].
//!
//! Time passes in three ways. Images that a cluster manages expire because the date in their object is set to the past, or
//! because the clock of the controllers is moved forward by forty days, and back. For the cache, everything that it has
//! stored is made an hour older while it does not run, times of files included. And its unmanaged images expire after
//! half a minute, which passes.
//!
//! `KUIK_MODEL_STEPS` steps (60) from `KUIK_MODEL_SEED` (random): `make system-model STEPS=2000`.

mod cache;
mod clusters;
mod images;
mod invariants;
mod random;
mod steps;
mod world;

use std::time::Instant;

use self::{random::Random, world::World};

/// Most steps between two checks.
const BATCH: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs parts built from Go: make built"]
async fn random_steps_keep_the_promises_between_controllers_and_cache() {
    let steps = number("KUIK_MODEL_STEPS").unwrap_or(60);
    let seed = number("KUIK_MODEL_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    println!("{steps} steps, to repeat with KUIK_MODEL_SEED={seed}");
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let mut world = World::start().await;
    let (mut done, mut checks) = (0, 0);
    while done < steps {
        for _ in 0..1 + random.below(BATCH) {
            world.step(&mut random).await;
            done += 1;
        }
        world.check().await;
        checks += 1;
    }
    println!("seed {seed}: {done} steps and {checks} checks in {:.0?}\n{}", begun.elapsed(), world.summary());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}
