//! Unit tests of the window: its contents, and the slowest reader.

use std::sync::Arc;

use bytes::Bytes;

use super::window::Window;

const CHUNK: u64 = 1 << 20;

fn filled() -> Arc<Window> {
    let window = Arc::new(Window::default());
    window.push(&(0..6).map(|n| Bytes::from(vec![n; 1 << 20])).collect::<Vec<_>>());
    window
}

#[test]
fn reads_return_bytes_that_were_not_trimmed() {
    let window = filled();
    assert_eq!(window.read(CHUNK - 3, u64::MAX).unwrap(), Bytes::from_static(&[0; 3]), "a chunk at a time");
    assert_eq!(window.read(CHUNK + 5, CHUNK + 7).unwrap(), Bytes::from_static(&[1; 2]));
    assert_eq!(window.trim(2 * CHUNK + 1), 4 * CHUNK, "a partly needed chunk stays");
    assert!(window.read(2 * CHUNK - 1, u64::MAX).is_none());
    assert!(window.read(6 * CHUNK, u64::MAX).is_none());
    assert_eq!(window.all_from(4 * CHUNK), [vec![4; 1 << 20], vec![5; 1 << 20]]);
    assert!(window.all_from(6 * CHUNK).is_empty());
}

#[test]
fn slowest_reader_is_tracked() {
    let window = filled();
    assert_eq!(window.slowest(), None);
    let (slow, fast) = (window.reader_at(10), window.reader_at(20));
    assert_eq!(window.slowest(), Some(10));
    slow.advance_to(30);
    assert_eq!(window.slowest(), Some(20));
    window.leave_behind(20);
    assert_eq!(window.slowest(), Some(30));
    drop((slow, fast));
    assert_eq!(window.slowest(), None);
}
