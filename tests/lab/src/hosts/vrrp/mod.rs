//! keepalived: its configuration, and the election between the machines of this lab.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Hosts, Machine};

pub mod config;
mod judge;

pub use config::{Config, Instance, parse};

/// Who is master of what.
#[derive(Clone, Debug, Default)]
pub struct States {
    masters: BTreeMap<Key, Vec<(Ipv4Addr, u8)>>,
    /// Instances that wait out the master's silence.
    pending: BTreeSet<Key>,
    /// Those of them whose wait is over.
    due: BTreeSet<Key>,
}

type Key = (u32, String);

impl States {
    /// The machines that hold an address.
    pub fn holders(&self, vip: Ipv4Addr) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .masters
            .iter()
            .filter(|(_, v)| v.iter().any(|(a, _)| *a == vip))
            .map(|((id, _), _)| *id)
            .collect();
        ids.dedup();
        ids
    }

    /// The addresses that a machine holds.
    pub fn held_by(&self, vmid: u32) -> Vec<(Ipv4Addr, u8)> {
        self.masters.iter().filter(|((id, _), _)| *id == vmid).flat_map(|(_, v)| v.clone()).collect()
    }
}

/// Loads the configuration of a machine's keepalived.
///
/// # Errors
/// The line for the log when keepalived ends at once.
pub fn load(machine: &mut Machine) -> Result<(), String> {
    let text = machine.fs.text("/etc/keepalived/keepalived.conf");
    let (config, report) = parse("/etc/keepalived/keepalived.conf", &text, machine);
    for line in &report.lines {
        machine.log("keepalived.service", line.clone());
    }
    if report.fatal {
        return Err("Non-existent interface specified in configuration".into());
    }
    for file in config.files.values() {
        if let (Some(initial), false) = (file.initial, machine.fs.exists(&file.path)) {
            machine.fs.put(&file.path, format!("{initial}\n"), 0o644, "root", "root");
        }
    }
    machine.keepalived = Some(config);
    Ok(())
}

/// An instance that could be master, with all that decides it.
#[derive(Clone, Debug)]
struct Candidate {
    key: Key,
    vrid: u8,
    address: Ipv4Addr,
    priority: i32,
    nopreempt: bool,
    wait: Duration,
    vips: Vec<(Ipv4Addr, u8)>,
    peers: Vec<Ipv4Addr>,
}

impl Candidate {
    /// Whether the adverts of `other` reach this one: multicast both, or a unicast peer of the other.
    fn hears(&self, other: &Candidate) -> bool {
        let reaches = match other.peers.is_empty() {
            true => self.peers.is_empty(),
            false => other.peers.contains(&self.address),
        };
        self.vrid == other.vrid && self.key != other.key && reaches
    }

    fn rank(&self) -> (i32, Ipv4Addr) {
        (self.priority, self.address)
    }
}

/// What a machine's keepalived writes of its instances when it is sent SIGUSR1, in excerpt.
pub fn told(hosts: &Hosts, vmid: u32) -> String {
    let mut text = "------< VRRP Topology >------\n".to_owned();
    let Some(host) = hosts.host(vmid) else { return text };
    let machine = host.machine();
    for instance in machine.keepalived.iter().flat_map(|config| &config.instances) {
        let effective = machine.keepalived.as_ref().and_then(|c| effective(hosts, &machine, c, instance));
        let master = hosts.vrrp().masters.contains_key(&(vmid, instance.name.clone()));
        let state = match (effective, master) {
            (None, _) => "FAULT",
            (_, true) => "MASTER",
            (_, false) => "BACKUP",
        };
        text.push_str(&format!(
            " VRRP Instance = {}\n   VRRP Version = 3\n   State = {state}\n   Virtual Router ID = {}\n   Priority = {}\n\
             \x20  Effective priority = {}\n   Total priority = {}\n   Advert interval = {} milli-sec\n",
            instance.name,
            instance.router_id,
            instance.priority,
            effective.unwrap_or(i32::from(instance.priority)),
            effective.unwrap_or(i32::from(instance.priority)),
            instance.advert * 1000.0,
        ));
    }
    text.push_str("------< VRRP Sockpool >------\n");
    text
}

/// Runs the election once: called after everything that may change it.
pub fn settle(hosts: &Hosts) {
    let candidates = gather(hosts);
    let clock = hosts.world().clock;
    let mut log = Vec::new();
    let mut waits = Vec::new();
    {
        let mut states = hosts.vrrp();
        let alive: BTreeSet<Key> = candidates.iter().map(|c| c.key.clone()).collect();
        states.masters.retain(|key, _| {
            let stays = alive.contains(key);
            if !stays {
                log.push((key.clone(), "FAULT"));
            }
            stays
        });
        states.pending.retain(|key| alive.contains(key));
        states.due.retain(|key| alive.contains(key));
        loop {
            let wanting: Vec<&Candidate> =
                candidates.iter().filter(|c| wants(c, &candidates, &states)).collect();
            let best: Vec<&Candidate> = wanting
                .iter()
                .filter(|c| !wanting.iter().any(|o| c.hears(o) && o.rank() > c.rank()))
                .copied()
                .collect();
            let wanted: BTreeSet<Key> = best.iter().map(|c| c.key.clone()).collect();
            states.pending.retain(|key| wanted.contains(key));
            let mut moved = false;
            for candidate in best {
                let key = candidate.key.clone();
                let real = clock.real(candidate.wait);
                if real.is_zero() || states.due.remove(&key) {
                    states.pending.remove(&key);
                    states.masters.insert(key.clone(), candidate.vips.clone());
                    log.push((key, "MASTER"));
                    moved = true;
                } else if states.pending.insert(key.clone()) {
                    waits.push((key, real));
                }
            }
            moved |= step_down(&candidates, &mut states, &mut log);
            if !moved {
                break;
            }
        }
        // A reload may have changed the addresses of an instance that stays master.
        for candidate in &candidates {
            if let Some(vips) = states.masters.get_mut(&candidate.key) {
                vips.clone_from(&candidate.vips);
            }
        }
    }
    for ((vmid, instance), state) in log {
        if let Some(host) = hosts.host(vmid) {
            host.machine().log("keepalived.service", format!("({instance}) Entering {state} STATE"));
        }
    }
    for (key, real) in waits {
        let hosts = hosts.clone();
        hosts.runtime().clone().spawn(async move {
            tokio::time::sleep(real).await;
            {
                let mut states = hosts.vrrp();
                if states.pending.remove(&key) {
                    states.due.insert(key);
                }
            }
            hosts.settle();
        });
    }
}

fn wants(candidate: &Candidate, all: &[Candidate], states: &States) -> bool {
    if states.masters.contains_key(&candidate.key) {
        return false;
    }
    let mut heard = all.iter().filter(|o| candidate.hears(o) && states.masters.contains_key(&o.key));
    heard.all(|master| !candidate.nopreempt && candidate.rank().0 > master.priority)
}

/// A master that hears a better one becomes backup.
fn step_down(all: &[Candidate], states: &mut States, log: &mut Vec<(Key, &'static str)>) -> bool {
    let masters: Vec<&Candidate> = all.iter().filter(|c| states.masters.contains_key(&c.key)).collect();
    let lower = masters.iter().find(|c| masters.iter().any(|o| c.hears(o) && o.rank() > c.rank()));
    let Some(lower) = lower else { return false };
    states.masters.remove(&lower.key);
    log.push((lower.key.clone(), "BACKUP"));
    true
}

fn gather(hosts: &Hosts) -> Vec<Candidate> {
    let mut found = Vec::new();
    for host in hosts.all() {
        let machine = host.machine();
        let (Some(config), Some(own), true) = (&machine.keepalived, machine.boot.address, machine.up) else {
            continue;
        };
        for instance in &config.instances {
            let Some(priority) = effective(hosts, &machine, config, instance) else { continue };
            let advert = Duration::from_secs_f64(instance.advert);
            let skew = advert.mul_f64(f64::from(256 - priority.clamp(1, 255)) / 256.0);
            found.push(Candidate {
                key: (host.vmid, instance.name.clone()),
                vrid: instance.router_id,
                address: instance.source.unwrap_or(own),
                priority,
                nopreempt: instance.nopreempt,
                wait: advert * 3 + skew,
                vips: instance.addresses.clone(),
                peers: instance.peers.clone(),
            });
        }
    }
    found
}

/// The priority after the tracked scripts; `None` in the fault state.
fn effective(hosts: &Hosts, machine: &Machine, config: &Config, instance: &Instance) -> Option<i32> {
    let mut priority = i32::from(instance.priority);
    for (name, weight) in &instance.tracked {
        if let Some(file) = config.files.get(name) {
            // No number in it counts as 0 (keepalived.conf(5), "track_file").
            let said: i32 = machine.fs.text(&file.path).trim().parse().unwrap_or(0);
            match weight.unwrap_or(file.weight) {
                0 if said != 0 => return None,
                w => priority += w.saturating_mul(said),
            }
            continue;
        }
        let Some(script) = config.scripts.get(name) else { continue };
        let fine = judge::passes(hosts, machine, script);
        match weight.unwrap_or(script.weight) {
            0 if !fine => return None,
            w if w < 0 && !fine => priority += w,
            w if w > 0 && fine => priority += w,
            _ => {}
        }
    }
    Some(priority.clamp(1, 254))
}
