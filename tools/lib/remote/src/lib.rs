//! SSH with pinned host keys, commands as values, atomic files.
//!
//! A [`Target`] says where and as whom; [`Host::connect`] gives a [`Host`], which is one connection that all
//! commands share. A [`Command`] is an argument list and is quoted once, by [`quote`]; its [`Output`] is a
//! value whatever the exit code. Transport trouble is an [`Error`], and [`Error::class`] says what it means
//! for the caller. Nothing here knows of documents, machines' roles or Kubernetes.

mod auth;
mod check;
mod command;
mod converse;
mod error;
mod file;
mod held;
mod host;
mod hostkeys;
mod link;
mod lock;
mod newkey;
mod quote;
pub mod scripts;
mod session;
mod stream;
mod target;

pub use command::{Command, Output};
pub use error::{Class, Error};
pub use file::RemoteFile;
pub use host::Host;
pub use link::Tunnel;
pub use lock::Lock;
pub use newkey::NewHostKey;
pub use quote::quote;
pub use stream::{Content, Meter};
pub use target::Target;
