//! Server-side apply of a manifest set, with pruning, drift and waits.
//!
//! A tool builds a [`ManifestSet`] (its own templates and fetched [`Artefact`]s), asks a [`Cluster`]
//! what would change ([`Cluster::observe`], by server-side dry run), and has it made so
//! ([`Cluster::apply`], [`Cluster::prune`], [`Cluster::wait`]).
//!
//! What holds here:
//!
//! * Every write is a server-side apply under the tool's own field manager with strict field validation. What
//!   another manager owns is refused by field and manager, unless [`Cluster::force_conflicts`] was asked for.
//! * An object that would not change is not written.
//! * Order: namespaces; custom resource definitions, until they are established; the rest, in parallel.
//! * A request is repeated only for a fault that passes by itself, and only up to a deadline.
//! * A set is an ApplySet (KEP-3659): its objects carry the set's label, a ConfigMap in kube-system is its parent,
//!   and pruning deletes only what carries that label and was applied by this manager.
//!
//! This crate knows neither the cluster document nor another crate of the workspace.

mod apply;
mod artefact;
mod cluster;
mod diff;
mod discovery;
mod error;
mod files;
mod health;
mod images;
mod object;
mod observe;
mod owners;
mod path;
mod prune;
mod reasons;
mod set;
mod wait;
mod waiting;
mod wire;
mod yaml;

pub use apply::{Applied, Outcome, Progress};
pub use artefact::{Artefact, fetch};
pub use cluster::Cluster;
pub use diff::FieldChange;
pub use error::{Class, Error};
pub use images::in_registry;
pub use object::{Object, ObjectId};
pub use observe::{Difference, What, refuse_blocked};
pub use prune::{Leftover, Prune};
pub use set::{ManifestSet, Stage};
pub use wait::Wait;
