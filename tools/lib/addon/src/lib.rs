//! A tool's manifests in the cluster: which there are, in what order they go, and what is waited for.
//!
//! Where the document, the shell of the tools and `kube-apply` meet. A tool describes an [`Addon`]: waves of
//! objects, each with the evidence that the next one waits for. From there on all tools do the same: [`connect`],
//! [`observe`] by server-side dry run, [`plan`], [`apply`] one [`Step`], [`teardown`], [`rendered`].
//!
//! Without a cluster, `plan` still works: everything is planned as new. Only `apply` needs the API.

mod access;
mod apply;
mod artefacts;
mod failure;
mod lease;
mod plan;
mod ready;
mod seen;
mod set;

pub use access::{Access, Flags, World, connect};
pub use apply::apply;
pub use artefacts::{Pin, Texts, artefacts, fetch_all};
pub use failure::failure;
pub use kube_apply::{Artefact, ObjectId};
pub use lease::guard;
pub use plan::{Recreated, Step, hold_lost, plan, teardown};
pub use ready::Ready;
pub use seen::{Left, Offline, Seen, findings, observe};
pub use set::{Addon, Once, digest, rendered};
