//! The client of Proxmox VE's REST API: requests as values, then sent.

mod client;
mod error;
mod far;
mod tasks;
mod tls;
mod upid;
mod values;

pub use client::{Client, Content, Login, Request, Unusable, Upload};
pub(crate) use client::{encode, fetch, passing};
pub use error::{Class, Error, class, grant};
pub use tls::{Trust, fingerprint};
pub use upid::Upid;
pub use values::{flag, list, number, text};
