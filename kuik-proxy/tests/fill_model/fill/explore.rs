//! The exploration: one fill, its spool and two readers, in every order.

use std::sync::Arc;

use kuik_core::testkit::MemoryStore;

use super::{
    Fill,
    parts::{CHUNK, End, SIZE, keep, read, receive},
};
use crate::schedule::{self, Task};

/// One fill, on a disk with `room`; a client that stays for all of `from..`, and one that leaves after some chunks.
#[derive(Clone, Copy)]
struct Scene {
    end: End,
    room: u64,
    from: u64,
    chunks_of_second: usize,
}

const USUAL: Scene = Scene { end: End::Right, room: SIZE, from: 0, chunks_of_second: 1 };

fn explore(scene: Scene) {
    let orders = schedule::explore(schedule::preemptions(), || parts(scene));
    println!("{orders} orders");
    assert!(orders > 10, "only {orders} orders: nothing comes in between anything");
}

fn parts(scene: Scene) -> Vec<Task> {
    let Scene { end, room, from, chunks_of_second } = scene;
    let fill = Arc::new(Fill::new(Arc::new(MemoryStore::default())));
    // Both join before the task of the fill runs: one whose disk is full ends where it sees no reader.
    let (first, second) = (fill.reader(), fill.reader());
    vec![
        Task::new("receive", receive(fill.clone(), end)),
        Task::new("spool", {
            let fill = fill.clone();
            async move { assert_eq!(keep(fill, room).await, end == End::Right && room >= SIZE) }
        }),
        Task::new("reader", {
            let fill = fill.clone();
            async move {
                let reached = read(fill, first, from, usize::MAX).await;
                match end {
                    End::Right => assert_eq!(reached.unwrap(), SIZE),
                    End::Wrong | End::Broken => assert!(reached.is_err(), "it ended like a whole one"),
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
fn a_fill_that_succeeds() {
    explore(USUAL);
}

#[test]
fn a_part_of_a_fill_that_succeeds() {
    explore(Scene { from: CHUNK + 7, ..USUAL });
}

#[test]
fn a_fill_whose_disk_is_full() {
    explore(Scene { room: CHUNK, ..USUAL });
}

#[test]
fn a_fill_whose_disk_is_full_and_both_stay() {
    explore(Scene { room: 0, chunks_of_second: usize::MAX, ..USUAL });
}

#[test]
fn a_fill_that_breaks_off() {
    explore(Scene { end: End::Broken, ..USUAL });
}

#[test]
fn a_fill_with_a_wrong_digest() {
    explore(Scene { end: End::Wrong, ..USUAL });
}
