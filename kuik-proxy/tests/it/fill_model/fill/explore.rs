//! The exploration: one fill, its spool and two readers, in every order.

use std::sync::Arc;

use kuik_testkit::MemoryStore;

use super::super::schedule::{self, Task};
use super::{
    Fill,
    parts::{CHUNK, End, SIZE, keep, read, receive},
};

/// One fill, on a disk with `capacity`; a client that reads all of `from..`, and one that disconnects after some
/// chunks.
#[derive(Clone, Copy)]
struct Scene {
    end: End,
    capacity: u64,
    from: u64,
    chunks_of_second: usize,
}

const USUAL: Scene = Scene { end: End::Right, capacity: SIZE, from: 0, chunks_of_second: 1 };

fn explore(scene: Scene) {
    let orders = schedule::explore(schedule::preemptions(), || parts(scene));
    println!("{orders} orders");
    assert!(orders > 10, "only {orders} orders: nothing is interleaved");
}

fn parts(scene: Scene) -> Vec<Task> {
    let Scene { end, capacity, from, chunks_of_second } = scene;
    let fill = Arc::new(Fill::new(Arc::new(MemoryStore::default())));
    // Both join before the task of the fill runs: a fill whose disk is full ends if it has no reader.
    let (first, second) = (fill.reader(), fill.reader());
    vec![
        Task::new("receive", receive(fill.clone(), end)),
        Task::new("spool", {
            let fill = fill.clone();
            async move { assert_eq!(keep(fill, capacity).await, end == End::Right && capacity >= SIZE) }
        }),
        Task::new("reader", {
            let fill = fill.clone();
            async move {
                let reached = read(fill, first, from, usize::MAX).await;
                match end {
                    End::Right => assert_eq!(reached.unwrap(), SIZE),
                    End::Wrong | End::Broken => {
                        assert!(reached.is_err(), "a failed fill ended like a complete one");
                    }
                }
            }
        }),
        Task::new("second reader", async move {
            let reached = read(fill, second, 0, chunks_of_second).await;
            assert!(reached.is_ok() || end != End::Right);
        }),
    ]
}

#[test]
fn successful_fill() {
    explore(USUAL);
}

#[test]
fn range_of_a_successful_fill() {
    explore(Scene { from: CHUNK + 7, ..USUAL });
}

#[test]
fn full_disk() {
    explore(Scene { capacity: CHUNK, ..USUAL });
}

#[test]
fn full_disk_with_both_readers_connected() {
    explore(Scene { capacity: 0, chunks_of_second: usize::MAX, ..USUAL });
}

#[test]
fn broken_upstream() {
    explore(Scene { end: End::Broken, ..USUAL });
}

#[test]
fn wrong_digest() {
    explore(Scene { end: End::Wrong, ..USUAL });
}
