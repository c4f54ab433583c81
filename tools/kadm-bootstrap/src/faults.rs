//! A look across the machines before one is touched.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::kernel::{allows_cgroup_v1, too_old};
use crate::pins;
use crate::probe;
use crate::seen::{HostSeen, Seen};
use crate::want::Want;

/// How far clocks may be apart, in seconds; the looks themselves are a few apart.
const SKEW: i64 = 60;
/// Processors that kubeadm asks of a control plane (`ControlPlaneNumCPU`).
const CPUS: u32 = 2;
/// Memory that kubeadm asks of a control plane, in KiB (`ControlPlaneMem`, 1700 MB).
const MEMORY: u64 = 1_700_000;

/// All faults of all machines; `fresh` tells whether a machine is still to be set up.
pub fn faults(want: &Want, seen: &Seen, fresh: impl Fn(&str) -> bool) -> Vec<Fault> {
    let mut all = Vec::new();
    // What leaves does no harm any more.
    let staying: Vec<(&str, &HostSeen)> =
        seen.hosts.iter().filter(|(n, _)| want.node(n).is_some()).map(|(n, h)| (n.as_str(), h)).collect();
    twice(&staying, "host name", |h| vec![h.hostname.clone()], "hostnamectl set-hostname NAME", &mut all);
    let machine_id = "rm /etc/machine-id && systemd-machine-id-setup && reboot";
    twice(&staying, "machine-id", |h| vec![h.machine_id.clone()], machine_id, &mut all);
    twice(
        &staying,
        "product UUID",
        |h| vec![h.product_uuid.clone()],
        "give each VM its own SMBIOS UUID",
        &mut all,
    );
    twice(
        &staying,
        "MAC address",
        |h| h.macs.iter().cloned().collect(),
        "give each VM its own MAC",
        &mut all,
    );
    for (name, host) in staying.iter().filter(|(name, _)| fresh(name)) {
        one(want, name, host, &mut all);
    }
    for (name, host) in &staying {
        all.extend(
            want.node(name).into_iter().flat_map(|n| probe::faults(want, n, &host.probed, !host.traces())),
        );
    }
    clocks(&staying, &mut all);
    all.sort();
    all
}

fn twice(
    staying: &[(&str, &HostSeen)],
    what: &str,
    of: impl Fn(&HostSeen) -> Vec<String>,
    hint: &str,
    all: &mut Vec<Fault>,
) {
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, host) in staying {
        for value in of(host).into_iter().filter(|v| !v.is_empty()) {
            owners.entry(value).or_default().push(name);
        }
    }
    for (value, names) in owners.into_iter().filter(|(_, names)| names.len() > 1) {
        let why = format!("they share the {what} {value}; the cluster cannot tell them apart");
        all.push(Fault { what: names.join(", "), why, hint: Some(hint.to_owned()) });
    }
}

fn one(want: &Want, name: &str, host: &HostSeen, all: &mut Vec<Fault>) {
    let mut add = |why: String, hint: Option<&str>| {
        all.push(Fault { what: name.to_owned(), why, hint: hint.map(str::to_owned) });
    };
    let ignored = |check: &str| want.ignore.iter().any(|i| i == check || i == "all");
    if !["debian", "ubuntu"].contains(&host.os.split(' ').next().unwrap_or_default()) {
        add(format!("it runs \"{}\"; Debian and Ubuntu are known here", host.os), None);
    }
    let control_plane = want.node(name).is_some_and(|n| n.control_plane);
    if control_plane && host.cpus < CPUS && !ignored("NumCPU") {
        add(format!("it has {} processor; a control plane needs {CPUS}", host.cpus), None);
    }
    if control_plane && host.memory_kib < MEMORY && !ignored("Mem") {
        add(format!("it has {} MiB of memory; a control plane needs 1700 MB", host.memory_kib / 1024), None);
    }
    all.extend(of_version(want, name, host));
}

/// What a machine lacks for the document's version of Kubernetes, whether it is new or runs an older one.
pub fn of_version(want: &Want, name: &str, host: &HostSeen) -> Vec<Fault> {
    let mut all = Vec::new();
    let mut add = |why: String, hint: &str| {
        all.push(Fault { what: name.to_owned(), why, hint: Some(hint.to_owned()) });
    };
    // From 1.35 on the kubelet refuses cgroup v1 unless its failCgroupV1 is false, and kubeadm has the operator skip its
    // check besides (the words of system-validators for it).
    if host.cgroup == 1 && want.version.minor() >= 35 {
        let ignored = want.ignore.iter().any(|i| i == "SystemVerification" || i == "all");
        if !allows_cgroup_v1(want) {
            add(
                format!("its kernel has cgroup v1 alone, which the kubelet {} refuses", want.version),
                "boot with systemd.unified_cgroup_hierarchy=1; who must keep it: \"kubelet\": {\"failCgroupV1\": false} and \
                 \"ignorePreflightErrors\": [\"SystemVerification\"] in spec.kubernetes",
            );
        } else if !ignored {
            add(
                "its kernel has cgroup v1 alone, which kubeadm's check SystemVerification refuses".to_owned(),
                "list SystemVerification in spec.kubernetes.ignorePreflightErrors",
            );
        }
    }
    if let Some(why) = too_old(want, host) {
        add(why, "install a newer kernel, or write \"dataplane\": \"iptables\" in spec.cni");
    }
    let old = pins::old_runtime(want, host).filter(|_| !want.pins.contains_key("containerd"));
    if let Some((major, minor)) = old {
        add(
            format!("its containerd {major}.{minor} is too old for Kubernetes {}", want.version.release()),
            "install containerd.io 2.x from Docker's repository, or pin \"containerd\" and \"runc\" in spec.artifacts",
        );
    }
    all
}

fn clocks(staying: &[(&str, &HostSeen)], all: &mut Vec<Fault>) {
    let times = || staying.iter().filter(|(_, h)| h.time > 0);
    let first = times().min_by_key(|(_, h)| h.time);
    let last = times().max_by_key(|(_, h)| h.time);
    if let (Some((slow, a)), Some((fast, b))) = (first, last)
        && b.time - a.time > SKEW
    {
        let why = format!("their clocks are {} s apart; certificates would not hold", b.time - a.time);
        all.push(Fault {
            what: format!("{slow}, {fast}"),
            why,
            hint: Some("timedatectl set-ntp true".to_owned()),
        });
    }
}
