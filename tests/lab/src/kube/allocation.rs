//! Services: cluster addresses and node ports, allocated and refused.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::admission::{Fault, invalid, required};
use super::controllers::list;
use super::store::{Store, key_of};

/// Admits a Service.
pub(crate) fn service(store: &mut Store, old: Option<&Value>, new: &mut Value, faults: &mut Vec<Fault>) {
    if new["spec"]["type"] == "ExternalName" {
        return;
    }
    let ports = list(new, "/spec/ports").to_vec();
    if ports.is_empty() && new["spec"]["clusterIP"] != "None" {
        faults.push(required("spec.ports", ""));
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            faults.push(required(format!("spec.ports[{i}].name"), ""));
        }
    }
    // An address that a client does not repeat stays.
    if let Some(old) = old {
        for field in ["clusterIP", "clusterIPs"] {
            if new["spec"].get(field).is_none()
                && let Some(kept) = old["spec"].get(field)
            {
                new["spec"][field] = kept.clone();
            }
        }
        if old["spec"]["clusterIP"] != new["spec"]["clusterIP"] && old["spec"].get("clusterIP").is_some() {
            faults.push(invalid(
                "spec.clusterIPs[0]",
                &json!([new["spec"]["clusterIP"]]),
                "may not change once set",
            ));
        }
    } else {
        if new["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty() {
            new["spec"]["clusterIP"] = cluster_ip(store).into();
        } else if new["spec"]["clusterIP"] != "None"
            && store.list("services", None).any(|s| s["spec"]["clusterIP"] == new["spec"]["clusterIP"])
        {
            let why = "failed to allocate IP: provided IP is already allocated";
            faults.push(invalid("spec.clusterIPs", &json!([new["spec"]["clusterIP"]]), why));
        }
        new["spec"]["clusterIPs"] = json!([new["spec"]["clusterIP"]]);
    }
    let external = matches!(new["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    if !external {
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if let Some(map) = port.as_object_mut() {
                map.shift_remove("nodePort");
            }
        }
        return;
    }
    let me = key_of(new);
    let mut taken: BTreeSet<(i64, String)> = BTreeSet::new();
    for other in store.list("services", None).filter(|s| key_of(s) != me) {
        for port in list(other, "/spec/ports") {
            if let Some(n) = port["nodePort"].as_i64() {
                taken.insert((n, port["protocol"].as_str().unwrap_or("TCP").to_owned()));
            }
        }
    }
    let before: Vec<Value> = old.map(|o| list(o, "/spec/ports").to_vec()).unwrap_or_default();
    for i in 0..ports.len() {
        let port = &new["spec"]["ports"][i];
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let same = |p: &&Value| p["port"] == port["port"] && p["protocol"] == port["protocol"];
        let wanted = port["nodePort"]
            .as_i64()
            .filter(|n| *n != 0)
            .or_else(|| before.iter().find(same).and_then(|p| p["nodePort"].as_i64()));
        match wanted {
            Some(n) if !(30000..=32767).contains(&n) => faults.push(invalid(
                format!("spec.ports[{i}].nodePort"),
                &json!(n),
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            )),
            Some(n) if taken.contains(&(n, protocol.clone())) => faults.push(invalid(
                format!("spec.ports[{i}].nodePort"),
                &json!(n),
                "provided port is already allocated",
            )),
            Some(n) => {
                new["spec"]["ports"][i]["nodePort"] = n.into();
                taken.insert((n, protocol));
            }
            None => {
                let free = (0..).map(|_| 30000 + (store.random() % 2768) as i64).take(10_000);
                let free = free.into_iter().find(|n| !taken.contains(&(*n, protocol.clone())));
                if let Some(n) = free {
                    new["spec"]["ports"][i]["nodePort"] = n.into();
                    taken.insert((n, protocol));
                }
            }
        }
    }
}

// Addresses come from the service network of kubeadm's configuration, its upper part, as the real allocator prefers.
fn cluster_ip(store: &mut Store) -> String {
    let (base, bits) = service_network(store);
    let used: BTreeSet<String> = store
        .list("services", None)
        .filter_map(|s| s["spec"]["clusterIP"].as_str().map(str::to_owned))
        .collect();
    let size = 1u64 << (32 - bits);
    let low = size.min(256).min(size / 4).max(16).min(size - 2);
    loop {
        let offset = low + store.random() % (size - low - 1).max(1);
        let ip = Ipv4Addr::from(base + offset as u32).to_string();
        if !used.contains(&ip) {
            return ip;
        }
    }
}

/// The service network: base address and prefix length.
pub(crate) fn service_network(store: &Store) -> (u32, u32) {
    let default = (u32::from(Ipv4Addr::new(10, 96, 0, 0)), 12);
    let Some(config) = store.get("configmaps", "kube-system", "kubeadm-config") else { return default };
    let text = config["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
    let Some(cidr) = text.lines().find_map(|l| l.trim().strip_prefix("serviceSubnet:")) else {
        return default;
    };
    let Some((ip, bits)) = cidr.trim().trim_matches('"').split_once('/') else { return default };
    match (ip.parse::<Ipv4Addr>(), bits.parse::<u32>()) {
        (Ok(ip), Ok(bits)) if (8..=28).contains(&bits) => (u32::from(ip), bits),
        _ => default,
    }
}
