//! SSH with pinned host keys, commands as values, atomic files.

pub mod scripts;
