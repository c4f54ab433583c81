//! The Proxmox VE API window.
