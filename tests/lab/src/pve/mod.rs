//! The Proxmox VE window.

pub mod schema;
