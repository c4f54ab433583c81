//! When a machine is started, as its Proxmox node comes up.

use cluster_doc::spec::{Pool, Proxmox, Role, StartOrder, Startup};

/// When a machine is started, as its option `startup` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// As it is.
    Any,
    /// By its role, where nobody has said anything else and the login may say it.
    Role(String),
    /// As the document says.
    Document(String),
}

impl Order {
    /// What the document says of a pool's machines.
    pub fn of(proxmox: &Proxmox, pool: &Pool) -> Order {
        match (&pool.startup, proxmox.start_order) {
            (Some(said), _) => Order::Document(text(said)),
            (None, Some(StartOrder::ByRole)) => Order::Document(by_role(pool.role).to_owned()),
            (None, None) => Order::Role(by_role(pool.role).to_owned()),
            (None, Some(StartOrder::None)) => Order::Any,
        }
    }
}

/// What others stand on starts first: exports before those that mount them, the API before those that ask it.
fn by_role(role: Role) -> &'static str {
    match role {
        Role::Nfs => "order=1,up=30",
        Role::ControlPlane => "order=2",
        Role::LoadBalancer => "order=3",
        Role::Worker => "order=4",
    }
}

fn text(startup: &Startup) -> String {
    let parts = [("order", startup.order), ("up", startup.up_seconds), ("down", startup.down_seconds)];
    let parts = parts.iter().filter_map(|(key, value)| value.map(|v| format!("{key}={v}")));
    parts.collect::<Vec<_>>().join(",")
}
