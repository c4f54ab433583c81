//! What must hold between sections; each check runs when the sections that it needs were read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::machines::name as machine_name;
use crate::spec::{ContainerTemplate, GuestKind, Role, Spec, Spread, VolumePlace};
use crate::types::{Cidr, Effect, Name, Port};
use crate::{Pointer, Refusals};

/// Notes every contradiction.
pub(crate) fn check(cluster: Option<&Name>, spec: &Spec, wrong: &mut Refusals) {
    pools(cluster, spec, wrong);
    addresses(spec, wrong);
    networks(spec, wrong);
    vip(spec, wrong);
    control_planes(spec, wrong);
    node_ports(spec, wrong);
    storage(spec, wrong);
    volumes(spec, wrong);
    proxmox(spec, wrong);
    certificates(spec, wrong);
}

/// What is right but worth a word.
pub(crate) fn warnings(spec: &Spec) -> Vec<String> {
    let mut out = Vec::new();
    if control_plane_count(spec) == 2 {
        out.push(
            "two control planes survive no loss: etcd needs both for a quorum; three would survive one"
                .to_owned(),
        );
    }
    out
}

fn at(key: &str) -> Pointer {
    Pointer::root().key("spec").key(key)
}

fn pools(cluster: Option<&Name>, spec: &Spec, wrong: &mut Refusals) {
    let mut names: BTreeMap<String, Pointer> = BTreeMap::new();
    for (n, pool) in spec.pools.iter().flatten().enumerate() {
        let here = at("pools").index(n);
        if spec.pools.iter().flatten().take(n).any(|p| p.name == pool.name) {
            wrong.add(here.key("name"), format!("\"{}\" names two pools; give each its own name", pool.name));
        }
        if u64::from(pool.count) > pool.addresses.len() {
            wrong.add(
                here.key("addresses"),
                format!(
                    "{} holds {} addresses for {} machines; widen the range or lower count",
                    pool.addresses,
                    pool.addresses.len(),
                    pool.count
                ),
            );
        }
        for (field, value) in [("cores", pool.cores), ("count", pool.count)] {
            if value == 0 {
                wrong.add(here.key(field), "is 0; write 1 or more, or leave the pool out");
            }
        }
        if pool.cores > 1024 || pool.count > 5000 {
            wrong.add(
                here.clone(),
                "is larger than Proxmox and Kubernetes can carry (1024 cores, 5000 machines)",
            );
        }
        if pool.kind == GuestKind::Lxc && pool.role != Role::LoadBalancer {
            wrong.add(
                here.key("kind"),
                format!(
                    "containers serve load balancers only: a {} needs a kernel of its own; write \"vm\"",
                    pool.role
                ),
            );
        }
        if pool.kind == GuestKind::Lxc && !pool.disks.is_empty() {
            wrong.add(
                here.key("disks"),
                "are for virtual machines; a container has its root file system alone",
            );
        }
        if pool
            .startup
            .as_ref()
            .is_some_and(|s| (s.order, s.up_seconds, s.down_seconds) == (None, None, None))
        {
            wrong.add(
                here.key("startup"),
                "says nothing; write order, upSeconds or downSeconds, or leave it out",
            );
        }
        if let (GuestKind::Lxc, Some(proxmox)) = (pool.kind, &spec.proxmox)
            && proxmox.container_template.is_none()
        {
            let why = "needs spec.proxmox.containerTemplate, which containers are made from";
            wrong.add(here.key("kind"), why);
        }
        if let (Spread::Hard, Some(proxmox)) = (pool.spread, &spec.proxmox)
            && (pool.count as usize) > proxmox.nodes.len()
        {
            wrong.add(
                    here.key("spread"),
                    format!(
                        "hard keeps {} machines on {} Proxmox nodes apart, one on each: add nodes to spec.proxmox.nodes, \
                         lower count, or write \"soft\"",
                        pool.count,
                        proxmox.nodes.len()
                    ),
                );
        }
        if let Some(cluster) = cluster {
            for ordinal in 1..=pool.count.min(5000) {
                names.entry(machine_name(cluster, &pool.name, ordinal)).or_insert_with(|| here.clone());
            }
        }
    }
    for (n, machine) in spec.machines.iter().flatten().enumerate() {
        let here = at("machines").index(n);
        if let Some(other) = names.insert(machine.name.to_string(), here.clone()) {
            wrong.add(
                here.key("name"),
                format!("\"{}\" names a machine of {other} too; names are unique", machine.name),
            );
        }
    }
}

fn addresses(spec: &Spec, wrong: &mut Refusals) {
    let network = spec.network.as_ref();
    let mut ranges: Vec<(Pointer, Ipv4Addr, Ipv4Addr)> = Vec::new();
    let pools = spec.pools.iter().flatten().enumerate();
    let pools =
        pools.map(|(n, p)| (at("pools").index(n).key("addresses"), p.addresses.first(), p.addresses.last()));
    let machines = spec.machines.iter().flatten().enumerate();
    let machines = machines.map(|(n, m)| (at("machines").index(n).key("address"), m.address, m.address));
    for (here, first, last) in pools.chain(machines) {
        if let Some(network) = network {
            inside(&here, first, &network.cidr, wrong);
            if last != first {
                inside(&here, last, &network.cidr, wrong);
            }
            if let Some(gateway) = network.gateway.filter(|g| first <= *g && *g <= last) {
                wrong.add(
                    here.clone(),
                    format!("holds the gateway {gateway}; keep spec.network.gateway out of it"),
                );
            }
        }
        if let Some(vip) = spec.vip.as_ref().map(|v| v.address).filter(|v| first <= *v && *v <= last) {
            wrong.add(
                here.clone(),
                format!("holds the shared address {vip}; keep spec.vip.address out of every pool"),
            );
        }
        if let Some((other, ..)) = ranges.iter().find(|(_, f, l)| first <= *l && *f <= last) {
            wrong.add(here.clone(), format!("shares an address with {other}; no address may stand twice"));
        }
        ranges.push((here, first, last));
    }
}

fn inside(here: &Pointer, address: Ipv4Addr, cidr: &Cidr, wrong: &mut Refusals) {
    if !cidr.contains(address) {
        wrong.add(here.clone(), format!("{address} is outside spec.network.cidr {cidr}"));
    } else if cidr.reserves(address) {
        wrong.add(
            here.clone(),
            format!("{address} is the network's own or broadcast address; no machine can have it"),
        );
    }
}

fn networks(spec: &Spec, wrong: &mut Refusals) {
    if let Some(network) = &spec.network
        && let Some(gateway) = network.gateway
    {
        inside(&at("network").key("gateway"), gateway, &network.cidr, wrong);
    }
    let Some(kubernetes) = &spec.kubernetes else { return };
    let here = at("kubernetes");
    let mut nets = vec![
        ("spec.kubernetes.podCidr", here.key("podCidr"), kubernetes.pod_cidr),
        ("spec.kubernetes.serviceCidr", here.key("serviceCidr"), kubernetes.service_cidr),
    ];
    if let Some(network) = &spec.network {
        nets.insert(0, ("spec.network.cidr", at("network").key("cidr"), network.cidr));
    }
    for (n, (_, here, cidr)) in nets.iter().enumerate() {
        for (other, _, their) in nets[..n].iter().filter(|(_, _, their)| cidr.overlaps(their)) {
            wrong.add(
                here.clone(),
                format!("{cidr} overlaps {other} {their}; choose networks that share no address"),
            );
        }
    }
    if kubernetes.pod_cidr.prefix() > 24 {
        let message = format!(
            "{} is too small: each node takes a block of it; write a /24 or larger",
            kubernetes.pod_cidr
        );
        wrong.add(here.key("podCidr"), message);
    }
    if !(12..=24).contains(&kubernetes.service_cidr.prefix()) {
        let message = format!("{} is no size that the API server takes: /12 to /24", kubernetes.service_cidr);
        wrong.add(here.key("serviceCidr"), message);
    }
}

fn vip(spec: &Spec, wrong: &mut Refusals) {
    let Some(vip) = &spec.vip else { return };
    let here = at("vip");
    if let Some(network) = &spec.network {
        inside(&here.key("address"), vip.address, &network.cidr, wrong);
        if network.gateway == Some(vip.address) {
            wrong.add(here.key("address"), "is the gateway's address; the shared address must be free");
        }
    }
    // keepalived takes 10 ms to 40.95 s (VRRPv3 counts centiseconds in 12 bits, RFC 5798 5.2.7).
    if !(10..=40_950).contains(&vip.advert_interval_ms) || vip.advert_interval_ms % 10 != 0 {
        wrong.add(
            here.key("advertIntervalMs"),
            "VRRPv3 takes 10 to 40950 milliseconds in steps of 10; write for example 200",
        );
    }
    let mut owners: Vec<(Port, String)> = Vec::new();
    let ports = here.key("ports");
    let mut claim = |at: Pointer, port: Port, owner: &str| {
        if let Some((_, other)) = owners.iter().find(|(p, _)| *p == port) {
            wrong.add(at, format!("port {port} belongs to {other} already; each port has one owner"));
        }
        owners.push((port, owner.to_owned()));
    };
    claim(ports.key("http"), vip.ports.http, "spec.vip.ports.http");
    claim(ports.key("https"), vip.ports.https, "spec.vip.ports.https");
    claim(ports.key("api"), vip.ports.api, "spec.vip.ports.api");
    if let Some(ssh) = &spec.ssh {
        claim(at("ssh").key("port"), ssh.port, "spec.ssh.port");
    }
    if let Some(balancer) = &spec.load_balancer {
        claim(at("loadBalancer").key("statsPort"), balancer.stats_port, "spec.loadBalancer.statsPort");
        let here = at("loadBalancer");
        if let Some(vault) = &balancer.vault {
            claim(here.key("vault").key("port"), vault.port, "spec.loadBalancer.vault.port");
        }
        for (n, listener) in balancer.listeners.iter().enumerate() {
            let here = here.key("listeners").index(n);
            claim(here.key("port"), listener.port, &format!("the listener \"{}\"", listener.name));
        }
    }
}

fn control_plane_count(spec: &Spec) -> u32 {
    let pools = spec.pools.iter().flatten().filter(|p| p.role == Role::ControlPlane).map(|p| p.count);
    let machines = spec.machines.iter().flatten().filter(|m| m.role == Role::ControlPlane).count() as u32;
    pools.fold(machines, u32::saturating_add)
}

fn control_planes(spec: &Spec, wrong: &mut Refusals) {
    if spec.kubernetes.is_none() || (spec.pools.is_none() && spec.machines.is_none()) {
        return;
    }
    let here = if spec.pools.is_some() { at("pools") } else { at("machines") };
    match control_plane_count(spec) {
        0 => wrong.add(here, "holds no control plane; add machines of the role \"control-plane\", three to survive the loss of one"),
        2 => {}
        n if n % 2 == 0 => wrong.add(
            here,
            format!("{n} control planes survive no more than {} do: etcd wants an odd number; write {} or {}", n - 1, n - 1, n + 1),
        ),
        n if n > 7 => wrong.add(here, format!("{n} control planes: etcd carries 7 at most; write 3 or 5")),
        _ => {}
    }
}

fn node_ports(spec: &Spec, wrong: &mut Refusals) {
    let Some(ingress) = &spec.ingress else { return };
    let here = at("ingress");
    let ports = [
        ("httpNodePort", ingress.http_node_port),
        ("httpsNodePort", ingress.https_node_port),
        ("pingNodePort", ingress.ping_node_port),
    ];
    for (n, (field, port)) in ports.iter().enumerate() {
        // kube-apiserver's default --service-node-port-range.
        if !(30000..=32767).contains(&port.get()) {
            wrong.add(here.key(field), format!("{port} is no NodePort; write one from 30000 to 32767"));
        }
        if let Some((other, _)) = ports[..n].iter().find(|(_, p)| p == port) {
            wrong.add(here.key(field), format!("{port} is {other} too; each needs a port of its own"));
        }
    }
}

fn storage(spec: &Spec, wrong: &mut Refusals) {
    let Some(storage) = &spec.storage else { return };
    let exports = &storage.exports;
    for (n, export) in exports.iter().enumerate() {
        let here = at("storage").key("exports").index(n);
        if let Some(other) = exports[..n].iter().find(|e| e.storage_class == export.storage_class) {
            wrong.add(
                here.key("storageClass"),
                format!(
                    "\"{}\" is the class of {} already; each export needs its own",
                    export.storage_class, other.path
                ),
            );
        }
        if let Some(other) =
            exports[..n].iter().find(|e| e.path.holds(&export.path) || export.path.holds(&e.path))
        {
            wrong.add(here.key("path"), format!("{} and {} lie inside one another", export.path, other.path));
        }
        if export.default && exports[..n].iter().any(|e| e.default) {
            wrong.add(here.key("default"), "a second default class: one at most can be the default");
        }
    }
    let has_nfs = spec.pools.iter().flatten().any(|p| p.role == Role::Nfs)
        || spec.machines.iter().flatten().any(|m| m.role == Role::Nfs);
    if !exports.is_empty() && !has_nfs && (spec.pools.is_some() || spec.machines.is_some()) {
        wrong.add(
            at("storage").key("exports"),
            "there is no machine of the role \"nfs\" to export them; add a pool or a machine",
        );
    }
    if let Some(etcd) = spec.backup.as_ref().and_then(|b| b.etcd.as_ref())
        && let Some(other) = exports.iter().find(|e| e.path.holds(&etcd.export) || etcd.export.holds(&e.path))
    {
        wrong.add(
            at("backup").key("etcd").key("export"),
            format!(
                "{} shares files with the export {}; etcd's snapshots need a folder that workers cannot read",
                etcd.export, other.path
            ),
        );
    }
}

fn volumes(spec: &Spec, wrong: &mut Refusals) {
    let (Some(observability), Some(pools)) = (&spec.observability, &spec.pools) else { return };
    let mut local = Vec::new();
    if observability.prometheus.storage == VolumePlace::Local {
        local.push(("prometheus", observability.prometheus.size));
    }
    if let Some(logs) = observability.logs.as_ref().filter(|l| l.storage == VolumePlace::Local) {
        local.push(("logs", logs.size));
    }
    let open = |p: &&crate::spec::Pool| p.taints.iter().all(|t| t.effect == Effect::PreferNoSchedule);
    let workers = || pools.iter().filter(|p| p.role == Role::Worker);
    let disk = workers().filter(open).map(|p| p.disk).max().or_else(|| workers().map(|p| p.disk).max());
    let Some(disk) = disk else { return };
    let total: u64 = local.iter().map(|(_, size)| size.bytes()).sum();
    // A third of a worker's disk is for the system and images: kubelet evicts at 15 % free (its default hard limit).
    if total > disk.bytes() / 3 * 2 {
        for (field, size) in local {
            wrong.add(
                at("observability").key(field).key("size"),
                format!(
                    "{size} as local volume: all local volumes together need {} GiB, and the largest worker's disk of {disk} \
                     has {} GiB to give; use larger disks, less retention, or the storage \"class\"",
                    total.div_ceil(1 << 30),
                    (disk.bytes() / 3 * 2) >> 30
                ),
            );
        }
    }
}

fn proxmox(spec: &Spec, wrong: &mut Refusals) {
    let Some(proxmox) = &spec.proxmox else { return };
    let here = at("proxmox");
    if proxmox.nodes.is_empty() {
        wrong.add(here.key("nodes"), "names no node; list the Proxmox nodes that machines may be placed on");
    }
    for (n, node) in proxmox.nodes.iter().enumerate() {
        if proxmox.nodes[..n].contains(node) {
            wrong.add(here.key("nodes").index(n), format!("\"{node}\" stands twice"));
        }
    }
    if proxmox.token_file.is_some() == proxmox.ticket.is_some() {
        wrong.add(here.clone(), "needs a login: write tokenFile, or ticket, and not both");
    }
    if proxmox.ca_file.is_some() && proxmox.fingerprint.is_some() {
        wrong.add(here.key("fingerprint"), "and caFile exclude each other; keep one");
    }
    for (n, name) in proxmox.ha.iter().flat_map(|ha| &ha.pools).enumerate() {
        let mut pools = spec.pools.iter().flatten();
        if spec.pools.is_some() && !pools.any(|p| p.name == *name) {
            let why = format!("\"{name}\" is no pool of spec.pools");
            wrong.add(here.key("ha").key("pools").index(n), why);
        }
    }
    if let Some(template) = &proxmox.container_template {
        container_template(template, &here.key("containerTemplate"), wrong);
    }
    let wanted: u32 = spec.pools.iter().flatten().map(|p| p.count).fold(0, u32::saturating_add);
    if wanted > proxmox.vmids.len() {
        wrong.add(
            here.key("vmids"),
            format!("{} holds {} ids for {wanted} machines", proxmox.vmids, proxmox.vmids.len()),
        );
    }
}

fn container_template(template: &ContainerTemplate, here: &Pointer, wrong: &mut Refusals) {
    if template.volume.is_some() == template.url.is_some() {
        wrong.add(here.clone(), "write volume, an archive that is there, or url, and not both");
        return;
    }
    match &template.volume {
        Some(volume) => {
            let shaped = volume.split_once(":vztmpl/");
            if !shaped.is_some_and(|(storage, file)| !storage.is_empty() && !file.is_empty()) {
                let why = "is no volume of a container template; write STORAGE:vztmpl/FILE, as pveam list STORAGE shows it";
                wrong.add(here.key("volume"), why);
            }
            for (field, given) in
                [("checksum", template.checksum.is_some()), ("storage", template.storage.is_some())]
            {
                if given {
                    wrong.add(here.key(field), "goes with url; a volume names its storage itself");
                }
            }
        }
        None => {
            if template.checksum.is_none() {
                wrong.add(here.key("checksum"), "is missing: what is downloaded is compared with it");
            }
            if template.storage.is_none() {
                wrong.add(here.key("storage"), "is missing: a storage of the content type vztmpl");
            }
        }
    }
}

fn certificates(spec: &Spec, wrong: &mut Refusals) {
    let Some(vault) = spec.ingress.as_ref().and_then(|i| i.certificates.as_ref()?.vault.as_ref()) else {
        return;
    };
    let here = at("ingress").key("certificates").key("vault");
    if vault.servers.is_empty() {
        wrong.add(here.key("servers"), "names no server");
    }
    if vault.auth.app_role.is_some() == vault.auth.kubernetes.is_some() {
        wrong.add(here.key("auth"), "write appRole or kubernetes, one of the two");
    }
}
