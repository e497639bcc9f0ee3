//! Windows of files as bytes, without a copy: the one file with `unsafe` code.
//!
//! A blob hit sends pages of the page cache straight to the socket: no buffer of ours is filled, and what is mapped
//! is the kernel's to take back.

#![allow(unsafe_code, reason = "memory-mapped files; the proof stands at the call")]

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions};

/// The most bytes that one window has.
pub(crate) const WINDOW: u64 = 4 << 20;

/// Below this a copy is cheaper than a mapping.
const WORTH_MAPPING: u64 = 64 << 10;

/// The bytes `start..end` of `file`, at most [`WINDOW`] of them. Blocks on the disk.
///
/// # Errors
/// Where the disk fails, or the file ends before `end`.
pub(in crate::store) fn window(file: &File, start: u64, end: u64) -> io::Result<Bytes> {
    let length = end.saturating_sub(start).min(WINDOW);
    let size = usize::try_from(length).map_err(io::Error::other)?;
    if length < WORTH_MAPPING {
        let mut buffer = vec![0; size];
        file.read_exact_at(&mut buffer, start)?;
        return Ok(buffer.into());
    }
    if file.metadata()?.len() < start + length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: a mapping is sound while nobody shrinks or rewrites the bytes that it covers.
    // - Files under the layout are never written or truncated after their rename gave them that name: publishing
    //   replaces the directory entry, and this mapping keeps the old inode. Files that are still being filled only
    //   grow, and callers ask only for bytes that were written (`BlobSpool::read`).
    // - The data directory is locked by this process (`filesystem/lock.rs`); that nothing else on the machine truncates files
    //   in it is the condition under which it was given to us, as for any database.
    // - A file of the scratch directory has no name, so that nobody else can open it, and only grows.
    // - The length was checked above, so the window lies within the file, and the read-ahead below turns a disk
    //   that fails into an error here, before anybody touches the pages.
    let map = unsafe { MmapOptions::new().offset(start).len(size).map(file)? };
    match map.advise(Advice::PopulateRead) {
        // Kernels before 5.14 do not know the advice: the pages then come in when they are touched.
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
        _ => Ok(Bytes::from_owner(map)),
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
    fn a_file_that_is_too_short_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        assert!(window(&file, 0, 1001).is_err());
        assert!(window(&file, 0, 1 << 20).is_err());
    }
}
