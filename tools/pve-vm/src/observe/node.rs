//! One Proxmox node: its storages with what of ours lies there, its bridges, and what its guests claim.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::pve::{Error, Request, flag, list, number, text};
use crate::seen::{Node, Seen, Storage};
use crate::want::Design;
use crate::world::World;

type Live = Vec<Value>;

pub(super) async fn node(world: &World, design: &Design, name: &str) -> Result<(Node, Live), Error> {
    let path = |what: &str| format!("/nodes/{name}/{what}");
    let (guests, storages, bridges) = futures::join!(
        world.client.read(Request::get(path("qemu"))),
        world.client.read(Request::get(path("storage")).with("enabled", 1)),
        world.client.read(Request::get(path("network")).with("type", "any_bridge")),
    );
    let mut node = Node { online: true, ..Node::default() };
    for storage in list(&storages?) {
        let Some(id) = text(storage, "storage") else { continue };
        let content = text(storage, "content").unwrap_or_default();
        let content = content.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        let kind = text(storage, "type").unwrap_or_default();
        let (shared, free) = (flag(storage, "shared"), number(storage, "avail"));
        node.storages.insert(id, Storage { kind, shared, content, free, ..Storage::default() });
    }
    let seen = Seen { nodes: [(name.to_owned(), node.clone())].into(), ..Seen::default() };
    if let Ok(storage) = crate::seed::storage(design, &seen, name) {
        let request = Request::get(path(&format!("storage/{storage}/content"))).with("content", "iso");
        let volumes = match world.client.read(request).await {
            Ok(volumes) => volumes,
            // Who may upload seeds there can list them; who may not makes no machines.
            Err(error) if error.status() == Some(403) => Value::Null,
            Err(error) => return Err(error),
        };
        let ours = crate::seed::prefix(&design.cluster);
        let file = |v: &Value| Some(text(v, "volid")?.split_once(":iso/")?.1.to_owned());
        let files = list(&volumes).iter().filter_map(file).filter(|f| f.starts_with(&ours)).collect();
        if let Some(found) = node.storages.get_mut(&storage) {
            found.seeds = files;
        }
    }
    let containers = design.machines.iter().any(|m| !m.kind.is_vm());
    if let Some(storage) = design.container.as_ref().filter(|_| containers).map(|o| o.storage().to_owned())
        && let Some(found) = node.storages.get_mut(&storage)
    {
        let request = Request::get(path(&format!("storage/{storage}/content"))).with("content", "vztmpl");
        let volumes = match world.client.read(request).await {
            Ok(volumes) => volumes,
            Err(error) if error.status() == Some(403) => Value::Null,
            Err(error) => return Err(error),
        };
        let file = |v: &Value| Some(text(v, "volid")?.split_once(":vztmpl/")?.1.to_owned());
        found.archives = list(&volumes).iter().filter_map(file).collect();
    }
    // Who may not see bridges can still use one; a software network's are not in this list at all.
    let bridges = bridges.ok().map(|b| list(&b).iter().filter_map(|b| text(b, "iface")).collect::<Vec<_>>());
    node.bridges = bridges.filter(|b| b.contains(&design.bridge) || b.iter().all(|b| b.starts_with("vmbr")));
    Ok((node, list(&guests?).to_vec()))
}

/// Memory in bytes and processors of a node's guests as configured.
pub(super) fn claimed<'g>(all: impl Iterator<Item = &'g Value>, there: &BTreeSet<u32>) -> (u64, u64) {
    let counts = all.filter(|g| !flag(g, "template"));
    let counts = counts.filter(|g| number(g, "vmid").is_some_and(|id| there.contains(&(id as u32))));
    counts.fold((0, 0), |(memory, cores), g| {
        let more = number(g, "cpus").or_else(|| number(g, "maxcpu")).unwrap_or(0);
        (memory + number(g, "maxmem").unwrap_or(0), cores + more)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_claim_no_memory_and_names_may_lack() {
        let list = serde_json::json!([
            { "vmid": 9000, "template": 1, "maxmem": 1u64 << 30, "cpus": 1 },
            { "vmid": 101, "maxmem": 4u64 << 30, "cpus": 2 },
            { "vmid": 102, "maxmem": "8589934592", "maxcpu": 4 },
            { "vmid": 103, "maxmem": 1u64 << 40, "cpus": 64 },
        ]);
        let here = BTreeSet::from([9000, 101, 102]);
        assert_eq!(claimed(list.as_array().into_iter().flatten(), &here), (12 << 30, 6));
    }
}
