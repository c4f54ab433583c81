//! A tool's manifests in the cluster: which there are, in what order they go, and what is waited for.
//!
//! Where the document, the shell of the tools and `kube-apply` meet. A tool describes an [`Addon`]: waves of
//! objects, each with the evidence that the next one waits for, and says in an [`Installer`] what is its own; the rest of
//! the movements is the same for all of them and stands in [`Tool`].
//!
//! Without a cluster, `plan` still works: everything is planned as new. Only `apply` needs the API.

mod access;
mod apply;
mod artefacts;
mod failure;
mod installer;
mod lease;
mod offline;
mod plan;
mod ready;
mod seen;
mod set;

pub use access::{Access, Flags, Link};
pub use apply::wait;
pub use artefacts::{Pin, Texts, artefacts};
pub use failure::{exit, failure};
pub use installer::{Change, Installer, Tool, Verb, View, Wanted, World, images};
pub use kube_apply::{Artefact, Cluster, ObjectId};
pub use offline::Offline;
pub use plan::{Recreated, Step, hold_lost, plan, teardown};
pub use ready::{Ready, lost};
pub use seen::{Left, Seen, findings};
pub use set::{Addon, Once, digest};
