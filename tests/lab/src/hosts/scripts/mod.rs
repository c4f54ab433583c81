//! The fixed scripts that the tools send, by the marker in their first line.
//!
//! To add one: write `fn(ctx, args) -> Output` in a module here (one for each crate that sends scripts) and
//! list it in that module's `TABLE` as `(marker, reads standard input, how)`. The lab implements a script's
//! meaning, it does not read its text: a changed meaning must get a new version in its marker.

use super::programs::Run;

pub mod backup;
pub mod cni;
pub mod kadm;
pub mod lb;
pub mod remote;

/// A script: `NAME vN`, whether it reads standard input to its end first, and its meaning.
pub type Script = (&'static str, bool, Run);

/// The script of this name and version.
pub fn find(marker: &str) -> Option<Script> {
    let tables: [&[Script]; 4] = [cni::TABLE, kadm::TABLE, remote::TABLE, lb::TABLE];
    tables.into_iter().flatten().find(|(known, _, _)| *known == marker).copied()
}
