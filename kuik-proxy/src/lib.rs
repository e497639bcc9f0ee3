//! The OCI distribution API as tower services.
