//! Memory-mapped windows of files, without a copy: the only file with `unsafe` code.
//!
//! A blob hit sends pages of the page cache straight to the socket: it fills no buffer, and the kernel can reclaim
//! mapped pages.

#![allow(unsafe_code, reason = "memory-mapped files; the proof stands at the call")]

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};

/// Maximum size of a window in bytes.
pub(crate) const WINDOW: u64 = 4 << 20;

/// Below this a copy is cheaper than a mapping.
const WORTH_MAPPING: u64 = 64 << 10;

/// Returns the bytes `start..end` of `file`, at most [`WINDOW`] of them. Blocks on the disk.
///
/// # Errors
/// Fails if the disk fails or the file ends before `end`.
pub(in crate::store) fn window(file: &File, start: u64, end: u64) -> io::Result<Bytes> {
    let length = end.saturating_sub(start).min(WINDOW);
    let size = usize::try_from(length).map_err(io::Error::other)?;
    if length < WORTH_MAPPING {
        let mut buffer = vec![0; size];
        file.read_exact_at(&mut buffer, start)?;
        return Ok(buffer.into());
    }
    let map = map(file, start, size)?;
    populate(&map, 0, size)?;
    Ok(Bytes::from_owner(map))
}

/// A whole file of `size` bytes, mapped for all concurrent readers. Its pages are loaded window by window.
#[derive(Debug)]
pub(in crate::store) struct Whole(Mmap);

impl Whole {
    /// Maps `file`; `None` if it is too small to be worth it, or too large for the address space.
    ///
    /// # Errors
    /// Fails if it has fewer bytes or cannot be mapped.
    pub(in crate::store) fn of(file: &File, size: u64) -> io::Result<Option<Self>> {
        let Some(length) = usize::try_from(size).ok().filter(|_| size >= WORTH_MAPPING) else {
            return Ok(None);
        };
        map(file, 0, length).map(|map| Some(Self(map)))
    }

    /// Returns the bytes `start..end` of `file`, at most [`WINDOW`] of them. Blocks on the disk.
    ///
    /// # Errors
    /// Fails if the disk fails or the file no longer has these bytes.
    pub(in crate::store) fn window(self: &Arc<Self>, file: &File, start: u64, end: u64) -> io::Result<Bytes> {
        let end = end.min(start.saturating_add(WINDOW));
        let (first, last) = (usize::try_from(start), usize::try_from(end));
        let (first, last) = (first.map_err(io::Error::other)?, last.map_err(io::Error::other)?);
        if self.0.get(first..last).is_none() || file.metadata()?.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        populate(&self.0, first, last - first)?;
        Ok(Bytes::from_owner(Part { whole: self.clone(), bytes: first..last }))
    }
}

/// A window of a mapped file, which keeps the mapping.
struct Part {
    whole: Arc<Whole>,
    bytes: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.whole.0.get(self.bytes.clone()).unwrap_or_default()
    }
}

fn map(file: &File, start: u64, size: usize) -> io::Result<Mmap> {
    if file.metadata()?.len() < start + size as u64 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: a mapping is sound while no code shrinks or rewrites the bytes that it covers.
    // - Files under the layout are never written or truncated after their rename gave them that name: publishing
    //   replaces the directory entry, and this mapping keeps the old inode. Files that are still being filled only
    //   grow, and callers ask only for bytes that were written (`BlobSpool::read`).
    // - The data directory is locked by this process (`filesystem/lock.rs`); that nothing else on the machine truncates files
    //   in it is the condition under which it was given to us, as for any database.
    // - A file of the scratch directory has no name, so that no other process can open it, and only grows.
    // - The length was checked above, so what is mapped lies within the file, and `populate` turns a disk that fails
    //   into an error, before the pages are accessed.
    unsafe { MmapOptions::new().offset(start).len(size).map(file) }
}

/// Loads pages, so that accesses do not wait for the disk.
fn populate(map: &Mmap, offset: usize, length: usize) -> io::Result<()> {
    match map.advise_range(Advice::PopulateRead, offset, length) {
        // Kernels before 5.14 do not support the advice: they load the pages on access.
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn windows_show_the_bytes_of_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..=u8::MAX).cycle().take(5 << 20).collect();
        file.write_all(&content).unwrap();
        let size = content.len() as u64;
        for (start, end) in [(0, 10), (3, 100_000), (4097, size), (size - 1, size), (7, 7)] {
            let seen = window(&file, start, end).unwrap();
            let length = (end - start).min(WINDOW) as usize;
            let start = start as usize;
            assert_eq!(seen.as_ref(), &content[start..start + length]);
        }
    }

    #[test]
    fn a_whole_file_is_shown_window_by_window() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..=u8::MAX).cycle().take(5 << 20).collect();
        file.write_all(&content).unwrap();
        let size = content.len() as u64;
        assert!(Whole::of(&file, 1000).unwrap().is_none(), "a small file is not worth it");
        let whole = Arc::new(Whole::of(&file, size).unwrap().unwrap());
        for (start, end) in [(0, 10), (3, 100_000), (4097, size), (WINDOW, size), (size - 1, size), (7, 7)] {
            let seen = whole.window(&file, start, end).unwrap();
            let (first, last) = (start as usize, end.min(start + WINDOW) as usize);
            assert_eq!(seen.as_ref(), &content[first..last]);
        }
        assert!(whole.window(&file, 0, size + 1).is_ok_and(|bytes| bytes.len() as u64 == WINDOW));
        assert!(whole.window(&file, WINDOW, size + 1).is_err());
        let kept = whole.window(&file, 0, 10).unwrap();
        file.set_len(100).unwrap();
        assert!(whole.window(&file, 50, 101).is_err(), "it was truncated meanwhile");
        drop(whole);
        assert_eq!(kept.as_ref(), &content[..10], "a window keeps the mapping");
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        assert!(window(&file, 0, 1001).is_err());
        assert!(window(&file, 0, 1 << 20).is_err());
    }
}
