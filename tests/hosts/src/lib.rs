//! Real Debian machines with real daemons, made by the test run itself.
//!
//! What no simulator shows is tested here: systemd as PID 1, sshd, apt, HAProxy and keepalived from Debian's
//! packages, on machines (systemd-nspawn, one overlay each over one base) that share a bridge. A test's body
//! runs in a process with network, mount and PID namespaces of its own ([`isolate::alone`]): no address, interface
//! or process of the machine that tests is touched, and when the test ends the kernel removes all of it.
//!
//! ```text
//!   br0 10.99.0.1/24        the outside: clients, the operator, what watches
//!   10.99.0.10              the shared address
//!   10.99.0.11 to .13       load balancers: the machines
//!   10.99.0.21 to .23       API servers: stand-ins in the test's process
//!   10.99.0.31 to .33       workers: stand-ins in the test's process
//! ```
//!
//! etcd is Debian 13's, run by stand-ins of kubelet and container runtime ([`etcd`]); the machines of those tests are the
//! same ones, whatever their names.
//!
//! It needs root and the packages systemd-container and mmdebstrap; `scripts/test hosts` runs it.

pub mod arp;
pub mod etcd;
pub mod gap;
mod groups;
pub mod image;
pub mod isolate;
pub mod machine;
mod must;
pub mod rounds;
pub mod site;
pub mod standins;
pub mod stranger;
pub mod vault;

pub use arp::Watch;
pub use gap::Gaps;
pub use isolate::alone;
pub use machine::Machine;
pub use rounds::{Blow, Rounds};
pub use site::Site;

/// What went wrong while machines were made or driven.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of that.
pub type Result<T> = std::result::Result<T, Error>;

/// Asks until the answer is yes.
///
/// # Errors
/// Not within the time, naming what was waited for.
pub async fn until(
    what: &str,
    at_most: std::time::Duration,
    mut ask: impl AsyncFnMut() -> bool,
) -> Result<()> {
    let deadline = tokio::time::Instant::now() + at_most;
    while !ask().await {
        if tokio::time::Instant::now() > deadline {
            return Err(format!("{what}: not within {at_most:?}").into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}
