//! The Justfile against the lab.
