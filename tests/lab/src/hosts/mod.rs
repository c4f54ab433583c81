//! The SSH window: a server for each machine, with what runs on it.
//!
//! What it knows: plain commands and the tools' fixed scripts (no shell), a private file system, packages,
//! systemd units, HAProxy that really forwards, keepalived's election, kubeadm with real certificates, NFS
//! exports. What it does not know exits 127 and is [unknown](crate::Entry::unknown) in the journal.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::Window;
use crate::world::{AgentExec, AgentView, Boot, Kubernetes, Machines, Shared};

pub mod etcd;
pub mod fs;
pub mod haproxy;
pub mod kubeadm;
pub mod machine;
pub mod nfs;
pub mod packages;
pub mod programs;
pub mod scripts;
pub mod server;
pub mod units;
pub mod vrrp;
pub mod words;

pub use machine::Machine;

/// How long a machine boots, nominally.
pub const BOOT: Duration = Duration::from_secs(15);
/// How long cloud-init goes on after the SSH server answers, nominally.
pub const CLOUD_INIT: Duration = Duration::from_secs(5);

/// All machines of a lab. Cheap to clone.
#[derive(Clone)]
pub struct Hosts {
    inner: Arc<Inner>,
}

struct Inner {
    world: Shared,
    kube: Arc<dyn Kubernetes>,
    ssh_port: u16,
    runtime: Handle,
    hosts: Mutex<BTreeMap<u32, Arc<Host>>>,
    vrrp: Mutex<vrrp::States>,
    etcd: Mutex<etcd::Clusters>,
    listeners: Mutex<haproxy::Listeners>,
    shown: Mutex<kubeadm::Shown>,
    settling: Mutex<()>,
}

/// One machine behind its lock.
pub struct Host {
    /// The id at Proxmox.
    pub vmid: u32,
    machine: Mutex<Machine>,
    changes: AtomicU64,
    looked: Mutex<kubeadm::Looked>,
}

/// A machine, held. Whoever changes it makes what was derived from it old.
pub struct Held<'m> {
    machine: MutexGuard<'m, Machine>,
    changes: &'m AtomicU64,
}

impl std::ops::Deref for Held<'_> {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl std::ops::DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Machine {
        self.changes.fetch_add(1, Ordering::Relaxed);
        &mut self.machine
    }
}

impl Host {
    /// The machine. No lock of another machine may be taken while this one is held.
    pub fn machine(&self) -> Held<'_> {
        Held { machine: lock(&self.machine), changes: &self.changes }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.machine().boot.name.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Hosts {
    /// No machines yet. Must be called inside a tokio runtime, which then runs the servers.
    pub fn new(world: Shared, kube: Arc<dyn Kubernetes>, ssh_port: u16) -> Hosts {
        Hosts {
            inner: Arc::new(Inner {
                world,
                kube,
                ssh_port,
                runtime: Handle::current(),
                hosts: Mutex::default(),
                vrrp: Mutex::default(),
                etcd: Mutex::default(),
                listeners: Mutex::default(),
                shown: Mutex::default(),
                settling: Mutex::default(),
            }),
        }
    }

    /// Adds a machine that exists without Proxmox, and switches it on. Gives its id.
    pub fn add(&self, mut boot: Boot) -> u32 {
        if boot.vmid == 0 {
            boot.vmid = lock(&self.inner.hosts)
                .keys()
                .next_back()
                .map_or(1_000_000, |last| (last + 1).max(1_000_000));
        }
        let vmid = boot.vmid;
        self.power_on(boot);
        vmid
    }

    /// The frame.
    pub fn world(&self) -> &Shared {
        &self.inner.world
    }

    /// The port of the SSH servers.
    pub fn ssh_port(&self) -> u16 {
        self.inner.ssh_port
    }

    /// The door to the Kubernetes window.
    pub fn kube(&self) -> &Arc<dyn Kubernetes> {
        &self.inner.kube
    }

    /// The runtime that serves the machines.
    pub fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// All machines in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Host>> {
        lock(&self.inner.hosts).values().cloned().collect()
    }

    /// The machine of this name, on or off. Of several the one that runs.
    pub fn find(&self, name: &str) -> Option<Arc<Host>> {
        let mut found: Vec<_> = self.all().into_iter().filter(|h| h.machine().boot.name == name).collect();
        found.sort_by_key(|h| h.machine().power.is_none());
        found.into_iter().next()
    }

    /// The running machine with this address of its own.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<Arc<Host>> {
        self.all().into_iter().find(|h| {
            let machine = h.machine();
            machine.up && machine.boot.address == Some(address)
        })
    }

    /// A machine's public host key in OpenSSH form.
    pub fn host_key(&self, name: &str) -> Option<String> {
        Some(self.find(name)?.machine().public_key())
    }

    /// The names of the machines that hold a virtual address now.
    pub fn holders(&self, vip: Ipv4Addr) -> Vec<String> {
        let vmids = lock(&self.inner.vrrp).holders(vip);
        let hosts = lock(&self.inner.hosts).clone();
        vmids.iter().filter_map(|id| hosts.get(id)).map(|h| h.name()).collect()
    }

    /// The virtual addresses that a machine holds, with prefix length.
    pub fn held_by(&self, vmid: u32) -> Vec<(Ipv4Addr, u8)> {
        lock(&self.inner.vrrp).held_by(vmid)
    }

    /// True when somebody on the network answers for an address.
    pub fn in_use(&self, address: Ipv4Addr) -> bool {
        self.by_address(address).is_some() || !self.holders(address).is_empty()
    }

    /// Runs a command on a machine as root, for tests and the lab's own eyes; it is not in the journal.
    pub async fn exec(&self, name: &str, argv: &[&str]) -> Option<AgentExec> {
        let host = self.find(name)?;
        let argv: Vec<String> = argv.iter().map(|a| a.to_string()).collect();
        let mut ctx = programs::Ctx::new(self.clone(), host, "root".into(), programs::Input::Empty, None);
        let output = ctx.call(&argv).await;
        if ctx.changing {
            self.settle();
        }
        Some(AgentExec { exit: output.exit, stdout: output.stdout, stderr: output.stderr })
    }

    /// Brings everything that follows from the machines' states in line with them: who holds which address,
    /// which ports are open, which API servers and kubelets run. Called after each change.
    pub fn settle(&self) {
        let _one = lock(&self.inner.settling);
        kubeadm::settle(self);
        vrrp::settle(self);
        haproxy::settle(self);
    }

    /// Where a connection that a machine opens leads; `None` outside this lab.
    pub fn route(&self, host: &Host, name: &str, port: u32) -> Option<SocketAddr> {
        server::route(host, &self.inner.world.net, name, port)
    }

    pub(crate) fn vrrp(&self) -> MutexGuard<'_, vrrp::States> {
        lock(&self.inner.vrrp)
    }

    pub(crate) fn shown(&self) -> MutexGuard<'_, kubeadm::Shown> {
        lock(&self.inner.shown)
    }

    /// True when the API server of a machine runs.
    pub fn serves(&self, vmid: u32) -> bool {
        self.shown().serves(vmid)
    }

    pub(crate) fn listeners(&self) -> MutexGuard<'_, haproxy::Listeners> {
        lock(&self.inner.listeners)
    }

    /// True when a machine holds this address now.
    pub(crate) fn try_holds(&self, vmid: u32, address: Option<Ipv4Addr>) -> bool {
        address.is_some_and(|a| self.held_by(vmid).iter().any(|(held, _)| *held == a))
    }

    /// The members of a cluster's etcd, for the lab's own eyes.
    pub fn etcd_members(&self, cluster_id: &str) -> Vec<etcd::Member> {
        self.etcd().get(cluster_id).map(|c| c.members.clone()).unwrap_or_default()
    }

    pub(crate) fn etcd(&self) -> MutexGuard<'_, etcd::Clusters> {
        lock(&self.inner.etcd)
    }

    fn host(&self, vmid: u32) -> Option<Arc<Host>> {
        lock(&self.inner.hosts).get(&vmid).cloned()
    }

    /// A blank machine, or the one whose disks these are. One with another system disk keeps the file systems on its
    /// other disks; what lies in them the lab does not play.
    fn machine_for(&self, boot: &Boot) -> Arc<Host> {
        let mut hosts = lock(&self.inner.hosts);
        let known = hosts.get(&boot.vmid).cloned();
        let mut machine = Machine::fresh(boot);
        if let Some(host) = known {
            let before = host.machine();
            if before.boot.generation == boot.generation {
                drop(before);
                return host;
            }
            let kept = before.formats.iter().filter(|(device, _)| *device != "/dev/sda");
            machine.formats = kept.map(|(device, format)| (device.clone(), format.clone())).collect();
        }
        let host = Arc::new(Host {
            vmid: boot.vmid,
            machine: Mutex::new(machine),
            changes: AtomicU64::new(1),
            looked: Mutex::default(),
        });
        hosts.insert(boot.vmid, host.clone());
        host
    }

    /// Restarts a machine from within: services and connections end, the disks stay.
    pub(crate) fn reboot(&self, vmid: u32) {
        let Some(host) = self.host(vmid) else { return };
        let boot = host.machine().boot.clone();
        self.power_off(vmid);
        self.power_on(boot);
    }

    async fn boot(self, host: Arc<Host>, power: CancellationToken) {
        self.inner.world.clock.wait(BOOT).await;
        let (address, name) = {
            let mut machine = host.machine();
            if power.is_cancelled() {
                return;
            }
            machine.boot_up();
            machine.up = true;
            (machine.boot.address, machine.boot.name.clone())
        };
        units::boot(&self, &host);
        self.settle();
        let (hosts, booted, on) = (self.clone(), host.clone(), power.clone());
        self.inner.runtime.spawn(async move {
            hosts.inner.world.clock.wait(CLOUD_INIT).await;
            if !on.is_cancelled() {
                booted.machine().cloud_init_done();
            }
        });
        let Some(address) = address else { return };
        let ssh = SocketAddr::from((address, self.inner.ssh_port));
        match server::listen(ssh).await {
            Ok(listener) if !power.is_cancelled() => server::serve(self.clone(), host, listener, power).await,
            Ok(_) => {}
            Err(e) => {
                let text = format!("sshd cannot listen on {ssh}: {e}");
                self.inner.world.journal.record_unknown(Window::Ssh, &name, &text);
            }
        }
    }
}

impl Machines for Hosts {
    fn power_on(&self, boot: Boot) {
        let host = self.machine_for(&boot);
        let power = CancellationToken::new();
        {
            let mut machine = host.machine();
            if machine.power.is_some() {
                return;
            }
            let before = std::mem::replace(&mut machine.boot, boot);
            machine.power = Some(power.clone());
            machine.cloud_init(&before);
        }
        let hosts = self.clone();
        self.inner.runtime.spawn(async move {
            tokio::select! {
                () = power.cancelled() => {}
                () = hosts.boot(host, power.clone()) => {}
            }
        });
    }

    fn power_off(&self, vmid: u32) {
        let Some(host) = self.host(vmid) else { return };
        {
            let mut machine = host.machine();
            let Some(power) = machine.power.take() else { return };
            power.cancel();
            machine.up = false;
            machine.haproxy = None;
            machine.keepalived = None;
            machine.lock = None;
            machine.services.all_stopped();
        }
        self.settle();
    }

    fn erased(&self, vmid: u32) {
        self.power_off(vmid);
        lock(&self.inner.hosts).remove(&vmid);
        self.settle();
    }

    fn agent(&self, vmid: u32) -> Option<AgentView> {
        let host = self.host(vmid)?;
        let view = {
            let machine = host.machine();
            if !machine.up || !machine.boot.agent || !machine.agent_runs() {
                return None;
            }
            let mut addresses: Vec<_> = machine.boot.address.iter().map(|a| (*a, 24)).collect();
            addresses.extend(self.held_by(vmid));
            AgentView {
                hostname: machine.fs.text("/etc/hostname").trim().into(),
                interfaces: vec![
                    ("lo".into(), "00:00:00:00:00:00".into(), vec![(Ipv4Addr::LOCALHOST, 8)]),
                    (machine::INTERFACE.into(), machine.boot.mac.clone(), addresses),
                ],
            }
        };
        Some(view)
    }

    fn agent_read(&self, vmid: u32, path: &str) -> Option<Vec<u8>> {
        self.agent(vmid)?;
        let host = self.host(vmid)?;
        let machine = host.machine();
        machine.fs.read(path).ok().map(<[u8]>::to_vec)
    }

    fn agent_exec(&self, vmid: u32, argv: &[String]) -> Option<AgentExec> {
        use futures::FutureExt;
        self.agent(vmid)?;
        let host = self.host(vmid)?;
        let mut ctx =
            programs::Ctx::new(self.clone(), host.clone(), "root".into(), programs::Input::Empty, None);
        let output = ctx.call(argv).now_or_never().unwrap_or_else(|| {
            ctx.unknown = true;
            programs::Output::fail(127, "the lab's guest agent runs no command that takes time")
        });
        let seq = self.inner.world.journal.record_call(&host.name(), &programs::request(argv), argv);
        self.inner.world.journal.amend(seq, ctx.changing, ctx.unknown);
        if ctx.changing {
            self.settle();
        }
        Some(AgentExec { exit: output.exit, stdout: output.stdout, stderr: output.stderr })
    }
}
