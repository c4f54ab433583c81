//! The client of Proxmox VE's REST API: requests as values, then sent.

mod client;
mod error;
mod far;
mod fetch;
mod login;
mod request;
mod tasks;
mod tls;
mod upid;
mod values;

pub use client::Client;
pub(crate) use client::{encode, passing};
pub use error::{Class, Error, class, grant};
pub use fetch::Unusable;
pub(crate) use fetch::fetch;
pub use login::Login;
pub use request::{Content, Request, Upload};
pub use tls::{Trust, fingerprint};
pub use upid::Upid;
pub use values::{flag, list, number, text};
