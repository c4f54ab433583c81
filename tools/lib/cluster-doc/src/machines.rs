//! The machines of a cluster: a function of the document alone.

use std::net::Ipv4Addr;

use crate::spec::{Pool, Role, Spec};
use crate::status::PveVm;
use crate::types::{FilePath, Labels, Name, NodeName, Taint, VmId};

/// A machine as every tool sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its pool, unless it existed already.
    pub pool: Option<Name>,
    /// Its number in the pool, from 1; its place in `spec.machines`, from 1.
    pub ordinal: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// The account to log in as, where it is not that of `spec.ssh`: a container has root alone.
    pub user: Option<&'static str>,
    /// Labels of its Kubernetes node.
    pub labels: Labels,
    /// Taints of its Kubernetes node.
    pub taints: Vec<Taint>,
    /// Its SSH host keys in OpenSSH form, as far as they are known.
    pub host_keys: Vec<String>,
    /// A known_hosts file that has its key.
    pub known_hosts_file: Option<FilePath>,
    /// The Proxmox node that it is on, once pve-vm placed it.
    pub node: Option<NodeName>,
    /// Its id at Proxmox, once pve-vm claimed it.
    pub vmid: Option<VmId>,
    /// False when the stage before could not reach it.
    pub reachable: bool,
    /// True when the document no longer has it.
    pub leaving: bool,
}

/// The name of a pool's n-th machine, from 1.
pub(crate) fn name(cluster: &Name, pool: &Name, ordinal: u32) -> String {
    format!("{cluster}-{pool}-{ordinal}")
}

/// The union of the pools' machines, of `spec.machines` and of what pve-vm knows, in the document's order.
pub(crate) fn machines(cluster: Option<&Name>, spec: &Spec, status: &PveVm) -> Vec<Machine> {
    let mut all = Vec::new();
    for pool in spec.pools.iter().flatten() {
        all.extend((1..=pool.count).filter_map(|n| of_pool(cluster?, pool, n)));
    }
    for (n, machine) in spec.machines.iter().flatten().enumerate() {
        all.push(Machine {
            name: machine.name.to_string(),
            role: machine.role,
            pool: None,
            ordinal: n as u32 + 1,
            address: machine.address,
            user: None,
            labels: machine.labels.clone(),
            taints: machine.taints.clone(),
            host_keys: machine.host_key.iter().cloned().collect(),
            known_hosts_file: machine.known_hosts_file.clone(),
            node: None,
            vmid: None,
            reachable: true,
            leaving: false,
        });
    }
    for seen in &status.machines {
        match all.iter_mut().find(|m| m.name == seen.name) {
            Some(machine) => {
                if machine.host_keys.is_empty() {
                    machine.host_keys.clone_from(&seen.host_keys);
                }
                machine.node.clone_from(&seen.node);
                machine.vmid = seen.vmid;
                machine.reachable = seen.reachable;
            }
            None => all.push(Machine {
                name: seen.name.clone(),
                role: seen.role,
                pool: seen.pool.as_deref().and_then(|p| Name::parse(p).ok()),
                ordinal: 0,
                address: seen.address,
                user: seen.kind.account(),
                labels: Labels::new(),
                taints: Vec::new(),
                host_keys: seen.host_keys.clone(),
                known_hosts_file: None,
                node: seen.node.clone(),
                vmid: seen.vmid,
                reachable: seen.reachable,
                leaving: true,
            }),
        }
    }
    all
}

fn of_pool(cluster: &Name, pool: &Pool, ordinal: u32) -> Option<Machine> {
    Some(Machine {
        name: name(cluster, &pool.name, ordinal),
        role: pool.role,
        pool: Some(pool.name.clone()),
        ordinal,
        address: pool.addresses.nth(ordinal - 1)?,
        user: pool.kind.account(),
        labels: pool.labels.clone(),
        taints: pool.taints.clone(),
        host_keys: Vec::new(),
        known_hosts_file: None,
        node: None,
        vmid: None,
        reachable: true,
        leaving: false,
    })
}
