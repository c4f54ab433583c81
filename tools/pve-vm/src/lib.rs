//! Machines on Proxmox VE from one JSON document.
