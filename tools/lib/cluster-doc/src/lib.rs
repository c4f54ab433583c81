//! The contract of all tools: the document, its sections, newtypes and exit codes.
//!
//! This crate does no I/O and knows no tool. A [`Document`] is made from text; its `spec` is strict and
//! read-only, its `status` is opaque but for the section of the tool at hand.
//!
//! ```
//! use cluster_doc::{Document, Section};
//! let doc = Document::parse(r#"{"apiVersion":"kubeline/v1","kind":"Cluster",
//!     "spec":{"vip":{"address":"10.0.0.9","routerId":3}}}"#)?;
//! let spec = doc.spec(&[Section::Vip])?;
//! assert_eq!(spec.vip()?.address.to_string(), "10.0.0.9");
//! # Ok::<(), cluster_doc::Refusals>(())
//! ```

mod cross;
mod document;
mod exit;
mod locate;
mod machines;
mod parse;
mod pointer;
mod read;
mod refusal;
mod schema;

pub mod calico;
pub mod spec;
pub mod status;
pub mod types;

pub use document::Document;
pub use exit::Exit;
pub use machines::Machine;
pub use parse::MAX_BYTES;
pub use pointer::Pointer;
pub use refusal::{Refusal, Refusals};
pub use schema::schema;
pub use spec::{Section, Spec};
pub use types::*;
