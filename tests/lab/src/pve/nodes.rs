//! Nodes: list, status, network.

use serde_json::{Value as Json, json};

use super::dispatch::Call;
use super::reply::Answer;
use super::state::{Guest, Node, State};

/// Memory of the guests that run on a node, in bytes.
fn memory_in_use(state: &State, node: &str) -> u64 {
    let memory = |g: &Guest| g.config.get("memory").and_then(|m| m.parse::<u64>().ok()).unwrap_or(512) << 20;
    state.guests.values().filter(|g| g.node == node && g.running.is_some()).map(memory).sum()
}

/// A node in lists; processors and memory only for those who may audit it.
pub(super) fn view(call: &Call, state: &State, name: &str, node: &Node) -> Json {
    let mut view = json!({
        "node": name,
        "id": format!("node/{name}"),
        "type": "node",
        "status": if node.online { "online" } else { "offline" },
        "ssl_fingerprint": node.fingerprint,
    });
    let audit = call.hub.may(state, &call.who, &format!("/nodes/{name}"), "Sys.Audit");
    if let (true, true, Some(fields)) = (audit, node.online, view.as_object_mut()) {
        fields.insert("maxcpu".into(), node.config.cores.into());
        fields.insert("cpu".into(), 0.03.into());
        fields.insert("maxmem".into(), (node.config.memory_mib << 20).into());
        fields.insert("mem".into(), (memory_in_use(state, name) + (4 << 30)).into());
        fields.insert("maxdisk".into(), (200u64 << 30).into());
        fields.insert("disk".into(), (8u64 << 30).into());
        fields.insert("uptime".into(), (86_400 + node.since.elapsed().as_secs()).into());
        fields.insert("level".into(), "".into());
    }
    view
}

/// `GET /nodes`.
pub(super) fn list(call: &Call) -> Answer {
    let state = call.hub.state();
    let list: Vec<Json> = state.nodes.iter().map(|(name, node)| view(call, &state, name, node)).collect();
    Ok(Json::Array(list).into())
}

/// `GET /nodes/{node}`.
pub(super) fn index(_call: &Call) -> Answer {
    let names = ["qemu", "lxc", "storage", "network", "status", "tasks", "version", "vzdump"];
    let entries: Vec<Json> = names.iter().map(|n| json!({ "name": n })).collect();
    Ok(Json::Array(entries).into())
}

/// `GET /nodes/{node}/status`.
pub(super) fn status(call: &Call) -> Answer {
    let state = call.hub.state();
    let Some(node) = state.nodes.get(call.node()) else { return Ok(Json::Null.into()) };
    let total = node.config.memory_mib << 20;
    let used = memory_in_use(&state, call.node()) + (4 << 30);
    let version = super::site::numbers(&call.hub).0;
    Ok(json!({
        "uptime": 86_400 + node.since.elapsed().as_secs(),
        "cpu": 0.03,
        "cpuinfo": { "cpus": node.config.cores, "sockets": 2, "cores": node.config.cores / 2, "model": "Lab CPU" },
        "memory": { "total": total, "used": used, "free": total.saturating_sub(used) },
        "rootfs": { "total": 200u64 << 30, "used": 8u64 << 30, "avail": 192u64 << 30, "free": 192u64 << 30 },
        "loadavg": ["0.10", "0.12", "0.09"],
        "pveversion": format!("pve-manager/{version}/lab"),
        "kversion": "Linux 6.17.2-1-pve",
    })
    .into())
}

/// `GET /nodes/{node}/network`.
pub(super) fn network(call: &Call) -> Answer {
    let wanted = call.text("type");
    let state = call.hub.state();
    let address = state.nodes.get(call.node()).map(|n| n.address.clone()).unwrap_or_default();
    let mut list = Vec::new();
    let bridges = matches!(wanted, None | Some("bridge" | "any_bridge" | "any_local_bridge" | "include_sdn"));
    for (n, bridge) in call.hub.config.bridges.iter().enumerate().filter(|_| bridges) {
        let path = format!("/sdn/zones/localnetwork/{bridge}");
        let seen =
            ["SDN.Audit", "SDN.Use", "Sys.Audit"].iter().any(|p| call.hub.may(&state, &call.who, &path, p));
        if wanted == Some("any_bridge") && !seen {
            continue;
        }
        let mut entry = json!({
            "iface": bridge,
            "type": "bridge",
            "active": 1,
            "autostart": 1,
            "method": if n == 0 { "static" } else { "manual" },
            "bridge_vlan_aware": 1,
            "bridge_ports": format!("eno{}", n + 1),
        });
        if n == 0 {
            entry["address"] = address.clone().into();
            entry["netmask"] = "24".into();
        }
        list.push(entry);
    }
    if matches!(wanted, None | Some("eth")) {
        list.push(json!({ "iface": "eno1", "type": "eth", "active": 1, "exists": 1, "method": "manual" }));
    }
    Ok(Json::Array(list).into())
}
