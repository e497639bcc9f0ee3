//! Which images are rewritten to the proxy, and why the others are kept.
