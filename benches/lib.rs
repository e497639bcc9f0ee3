//! Measurements of the hot paths; see the bench targets beside this file.
