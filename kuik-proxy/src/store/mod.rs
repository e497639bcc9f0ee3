//! Where content is kept. One layout for every backend: that of Docker's registry, version 2, so that an existing
//! volume is adopted in place and can be given back.

mod filesystem;

pub use filesystem::{FilesystemStore, OpenError};
