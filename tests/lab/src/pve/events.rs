//! What happens to the cluster without its API: nodes fail and return, and other people are at work.

use std::io;
use std::time::Instant;

use super::state::{Guest, Kind, Volume};
use super::{Proxmox, lxc, qemu};

impl Proxmox {
    /// Switches a node off: its API and its connections end, its tasks break off, its guests go dark. It
    /// cannot be reached through the others (595), and without a majority they refuse writes.
    pub fn node_off(&self, node: &str) {
        if let Some(server) = self.servers().get(node) {
            server.stop.cancel();
        }
        let (tasks, guests) = {
            let mut state = self.hub.state();
            if let Some(node) = state.nodes.get_mut(node) {
                node.online = false;
            }
            let tasks: Vec<String> = state
                .tasks
                .values()
                .filter(|t| t.node == node && t.exit.is_none())
                .map(|t| t.upid.clone())
                .collect();
            let on = state.guests.values_mut().filter(|g| g.node == node && g.running.is_some());
            let dark = on.map(|guest| {
                guest.stale = "running";
                guest.changed = Instant::now();
                guest.running = None;
                guest.vmid
            });
            (tasks, dark.collect::<Vec<u32>>())
        };
        for upid in tasks {
            self.hub.kill(&upid, "unexpected status");
        }
        for vmid in guests {
            self.hub.machines.power_off(vmid);
        }
    }

    /// Switches a node on again: its API answers, and its guests with `onboot` start.
    ///
    /// # Errors
    /// Its address cannot be bound.
    pub fn node_on(&self, node: &str) -> io::Result<()> {
        self.listen(node)?;
        let guests: Vec<(u32, Kind)> = {
            let mut state = self.hub.state();
            if let Some(node) = state.nodes.get_mut(node) {
                node.online = true;
                node.since = Instant::now();
            }
            let here = state.guests.values().filter(|g| g.node == node && g.running.is_none());
            let wanted = here.filter(|g| g.on("onboot") && !g.template());
            wanted.map(|g| (g.vmid, g.kind)).collect()
        };
        for (vmid, kind) in guests {
            let (hub, node) = (self.hub.clone(), node.to_owned());
            self.hub.runtime.spawn(async move {
                // A machine that is locked stays off, as on a real node; its state shows it.
                let started = match kind {
                    Kind::Qemu => qemu::power::boot(&hub, &node, vmid).await,
                    Kind::Lxc => lxc::power::switch_on(&hub, &node, vmid).await,
                };
                if let Err(why) = started {
                    tracing::debug!(vmid, why, "not started with its node");
                }
            });
        }
        Ok(())
    }

    /// Cuts the nodes off from each other, or joins them again: without quorum nothing can be changed.
    pub fn cut_off(&self, cut: bool) {
        self.hub.state().cut = cut;
    }

    /// Somebody migrates a guest, running or not: it is on another node at once, with its volumes on local storages.
    pub fn moved(&self, vmid: u32, node: &str) {
        let mut state = self.hub.state();
        let Some(guest) = state.guests.get_mut(&vmid) else { return };
        let from = std::mem::replace(&mut guest.node, node.to_owned());
        guest.changed = Instant::now();
        let here = |(place, _): &&(String, String), v: &Volume| *place == from && v.vmid == Some(vmid);
        let keys: Vec<_> = state.volumes.iter().filter(|(k, v)| here(k, v)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            if let Some(volume) = state.volumes.remove(&key) {
                state.volumes.insert((node.to_owned(), key.1), volume);
            }
        }
    }

    /// Somebody pulls a machine's plug.
    pub async fn switched_off(&self, vmid: u32) {
        let Some(node) = self.hub.state().guests.get(&vmid).map(|g| g.node.clone()) else { return };
        if let Err(why) = qemu::power::off(&self.hub, &node, vmid).await {
            tracing::warn!(vmid, why, "not switched off");
        }
    }

    /// Somebody, or the HA manager, switches a machine off and on again.
    pub async fn restarted(&self, vmid: u32) {
        let Some(node) = self.hub.state().guests.get(&vmid).map(|g| g.node.clone()) else { return };
        for done in
            [qemu::power::off(&self.hub, &node, vmid).await, qemu::power::boot(&self.hub, &node, vmid).await]
        {
            if let Err(why) = done {
                tracing::warn!(vmid, why, "not restarted");
            }
        }
    }

    /// Somebody puts a machine under the care of the HA manager.
    pub fn put_under_ha(&self, vmid: u32) {
        let sid = format!("vm:{vmid}");
        let resource = serde_json::json!({ "sid": sid, "type": "vm", "state": "started" });
        if let serde_json::Value::Object(resource) = resource {
            self.hub.state().ha.resources.insert(sid, resource);
        }
    }

    /// The HA manager gives a resource up, such as `vm:3000`.
    pub fn ha_error(&self, sid: &str) {
        self.hub.state().ha.errors.insert(sid.to_owned());
    }

    /// Somebody puts a guest under the HA manager's care, such as `vm:3000`.
    pub fn ha_foreign(&self, sid: &str) {
        let mut resource = serde_json::Map::new();
        resource.insert("sid".into(), sid.into());
        resource.insert("type".into(), sid.split(':').next().unwrap_or_default().into());
        resource.insert("state".into(), "started".into());
        self.hub.state().ha.resources.insert(sid.to_owned(), resource);
    }

    /// Somebody sets an option of a guest, or takes it away.
    pub fn set_by_root(&self, vmid: u32, option: &str, value: Option<&str>) {
        if let Some(guest) = self.hub.state().guests.get_mut(&vmid) {
            match value {
                Some(value) => drop(guest.config.insert(option.to_owned(), value.to_owned())),
                None => drop(guest.config.remove(option)),
            }
        }
    }

    /// Somebody takes a disk out of its drive: it becomes an unused one.
    pub fn taken_out(&self, vmid: u32, slot: &str) {
        let mut state = self.hub.state();
        let Some(guest) = state.guests.get_mut(&vmid) else { return };
        if let Some(drive) = guest.config.remove(slot) {
            let volume = drive.split(',').next().unwrap_or_default().to_owned();
            guest.config.insert("unused0".into(), volume);
        }
    }

    /// A volume that bears a guest's id and is in no configuration; gives its name.
    pub fn leave_volume(&self, node: &str, storage: &str, vmid: u32) -> String {
        let volid = format!("{storage}:vm-{vmid}-disk-90");
        let volume = Volume { vmid: Some(vmid), ..Volume::new(&volid, storage, "images", "raw", 1 << 30) };
        self.hub.state().put_volume(node, volume);
        volid
    }

    /// Root unlocks a guest and destroys it by hand, with its volumes.
    pub fn destroyed_by_root(&self, vmid: u32) {
        let gone = {
            let mut state = self.hub.state();
            let Some(guest) = state.guests.remove(&vmid) else { return };
            qemu::drives::free_all(&mut state, &guest.node, vmid);
            guest.running.is_some()
        };
        if gone {
            self.hub.machines.power_off(vmid);
        }
        self.hub.machines.erased(vmid);
    }

    /// Adds a stopped machine of somebody else, in no pool.
    pub fn add_foreign(&self, vmid: u32, name: &str, node: &str) {
        let mut state = self.hub.state();
        let generation = state.count();
        let mut guest = Guest::new(vmid, Kind::Qemu, node, generation);
        guest.stale = "stopped";
        for (option, value) in [("name", name), ("cores", "2"), ("memory", "2048")] {
            guest.config.insert(option.into(), value.into());
        }
        state.guests.insert(vmid, guest);
    }

    /// Adds the archive of a container template to a storage.
    pub fn add_archive(&self, storage: &str, file: &str, node: &str) {
        let volid = format!("{storage}:vztmpl/{file}");
        let volume = Volume::new(&volid, storage, "vztmpl", "tzst", 120 << 20);
        self.hub.state().put_volume(node, volume);
    }

    /// Adds a template of a cloud image with an agent, in the pool `templates` where that exists. Its disk
    /// has 3 GiB; a cloud-init drive is at `ide2`.
    pub fn add_template(&self, vmid: u32, name: &str, node: &str, storage: &str) {
        let mut state = self.hub.state();
        let generation = state.count();
        let mac = state.mac();
        let bridge = self.hub.config.bridges.first().cloned().unwrap_or_default();
        let files = state.storages.get(storage).is_some_and(|s| s.kind.files());
        let (folder, end) = if files { (format!("{vmid}/"), ".qcow2") } else { (String::new(), "") };
        let disk = format!("{storage}:{folder}base-{vmid}-disk-0{end}");
        let seed = format!("{storage}:{folder}vm-{vmid}-cloudinit{end}");
        for (volid, size) in [(&disk, 3u64 << 30), (&seed, 4 << 20)] {
            let format = if files { "qcow2" } else { "raw" };
            let volume = Volume { vmid: Some(vmid), ..Volume::new(volid, storage, "images", format, size) };
            state.put_volume(node, volume);
        }
        let mut guest = Guest::new(vmid, Kind::Qemu, node, generation);
        guest.stale = "stopped";
        guest.pool = state.pools.contains_key("templates").then(|| "templates".to_owned());
        let options = [
            ("name", name.to_owned()),
            ("template", "1".into()),
            ("agent", "enabled=1".into()),
            ("boot", "order=scsi0".into()),
            ("cores", "1".into()),
            ("memory", "1024".into()),
            ("ostype", "l26".into()),
            ("scsihw", "virtio-scsi-single".into()),
            ("scsi0", format!("{disk},discard=on,iothread=1,size=3G,ssd=1")),
            ("ide2", format!("{seed},media=cdrom,size=4M")),
            ("net0", format!("virtio={mac},bridge={bridge}")),
            ("serial0", "socket".into()),
            ("vga", "serial0".into()),
        ];
        guest.config.extend(options.map(|(option, value)| (option.to_owned(), value)));
        state.guests.insert(vmid, guest);
    }
}
