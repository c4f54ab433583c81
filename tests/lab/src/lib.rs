//! One simulated world behind three windows: the Proxmox API, SSH hosts and the Kubernetes API.
//!
//! The windows are real servers on real sockets; no client code is shared with the tools, and a client
//! cannot tell that it talks to the lab. What the lab does not know fails loudly and is kept in the
//! [`Journal`] as [`Entry::unknown`], so that a test can fail on it.
//!
//! ```text
//!   pve      starts and stops machines            -> world::Machines
//!   hosts    kubeadm, kubelet on those machines   -> world::Kubernetes
//!   kube     the API, served at each control plane's own address
//! ```

pub mod clock;
pub mod control;
pub mod faults;
pub mod hosts;
pub mod journal;
pub mod kube;
pub mod lab;
pub mod pve;
pub mod subnet;
mod twin;
pub mod world;

pub use clock::Clock;
pub use faults::{Action, Event, Fault, Faults};
pub use journal::{Entry, Journal, Window};
pub use lab::{Config, Lab};
pub use subnet::Subnet;
pub use world::World;
