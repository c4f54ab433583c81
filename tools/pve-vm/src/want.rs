//! What the operator wants, read from flags and document; every refusal of input is here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use cluster_doc::spec::{CloneMode, ContainerTemplate, GuestKind, Image, Pool, Role, Spread, Ssh};
use cluster_doc::status::{MachineStatus, PveVm};
use cluster_doc::{Document, Pointer, Refusals, Section, Spec, VmIdRange};
use stage::{Failure, Site};

use crate::args::Flags;
use crate::container::Origin;
use crate::ha::Wish;
use crate::power::Order;
use crate::pve::{Login, Trust, fingerprint};

/// The sections that are read.
pub const READS: &[Section] =
    &[Section::Proxmox, Section::Network, Section::Ssh, Section::Pools, Section::Backup];

/// Everything: the design, and how to get at Proxmox and the machines.
pub struct Want {
    /// What shall be.
    pub design: Design,
    /// `https://HOST:PORT` of each endpoint.
    pub endpoints: Vec<String>,
    /// Who asks.
    pub login: Login,
    /// What makes the API's certificate good.
    pub trust: Trust,
    /// How machines are reached.
    pub ssh: Ssh,
    /// Paths and environment.
    pub site: Site,
}

/// What shall be: plain data, all that `plan` needs.
#[derive(Clone, Debug)]
pub struct Design {
    /// The cluster's name.
    pub cluster: String,
    /// The Proxmox nodes that machines may be placed on, in the document's order.
    pub nodes: Vec<String>,
    /// The resource pool.
    pub pool: Option<String>,
    /// The storage of the disks.
    pub storage: String,
    /// The storage for seeds of first boots, when the document names one.
    pub seeds: Option<String>,
    /// The bridge.
    pub bridge: String,
    /// The VLAN.
    pub vlan: Option<u16>,
    /// The ids that are ours.
    pub vmids: VmIdRange,
    /// The template's name.
    pub template: String,
    /// What the template is made from.
    pub image: Option<Image>,
    /// What containers are made from.
    pub container: Option<Origin>,
    /// Proxmox's backups of the machines: when, how many are kept, and the storage.
    pub backup: Option<(String, u32, String)>,
    /// Proxmox's own high availability, when the document asks for it.
    pub ha: Option<Wish>,
    /// Linked or full clones, when the document says so.
    pub clone: Option<CloneMode>,
    /// The machines in the document's order.
    pub machines: Vec<Machine>,
    /// The account on the machines.
    pub user: String,
    /// The public keys that it lets in.
    pub keys: Vec<String>,
    /// Name servers.
    pub nameservers: Vec<Ipv4Addr>,
    /// The search domain.
    pub search_domain: Option<String>,
    /// What the previous document said of each machine: a hint for those that cannot be asked now.
    pub hints: BTreeMap<String, MachineStatus>,
    /// Restart machines whose changes wait for it.
    pub restart: bool,
    /// Templates of another image than the document's are not used.
    pub refresh_templates: bool,
    /// Destroy our templates too.
    pub drop_templates: bool,
    /// Destroy only what left the document.
    pub prune: bool,
    /// Machines whose data may go with them.
    pub delete_data: BTreeSet<String>,
    /// Machines that are still members of the Kubernetes cluster.
    pub members: Members,
    /// Whom a privilege is given to, as options of `pveum acl modify`.
    pub grantee: String,
}

/// What is known of the members of the Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// The document asks for no Kubernetes.
    NoCluster,
    /// Its stage has not said yet.
    Unknown,
    /// As its stage said.
    Known(BTreeSet<String>),
}

/// A machine that shall be.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What kind of guest it is.
    pub kind: GuestKind,
    /// Its pool.
    pub pool: String,
    /// How strictly its pool keeps apart.
    pub spread: Spread,
    /// Processors.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The system disk in bytes.
    pub disk: u64,
    /// Data disks: name and bytes.
    pub disks: Vec<(String, u64)>,
    /// When it is started.
    pub order: Order,
    /// Whether Proxmox is to refuse to delete it; none leaves that as it is.
    pub protection: Option<bool>,
    /// Its address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix.
    pub prefix: u8,
    /// The gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Labels of its Kubernetes node.
    pub labels: BTreeMap<String, String>,
    /// Taints of its Kubernetes node.
    pub taints: Vec<String>,
}

/// The meaning of flags and document.
///
/// # Errors
/// Exit 3 for the document, 4 for files that cannot be used.
pub fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(READS)?;
    let proxmox = spec.proxmox()?;
    let ssh = spec.ssh()?.clone();
    let mut design = design(flags, doc, &spec)?;
    let endpoints = std::iter::once(&proxmox.endpoint).chain(&proxmox.endpoints);
    let endpoints = endpoints.map(|e| format!("https://{}:{}", e.host(), e.port().unwrap_or(8006))).collect();
    let trust = match (&proxmox.ca_file, &proxmox.fingerprint) {
        (Some(file), _) => Trust::Ca(site.file("the CA of Proxmox", file)?),
        (None, Some(text)) => match fingerprint(text) {
            Some(digest) => Trust::Fingerprint(digest),
            None => {
                let at = Pointer::root().key("spec").key("proxmox").key("fingerprint");
                let why = "is no SHA-256 fingerprint: 32 pairs of hex digits with colons, as Proxmox shows it \
                           (openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem)";
                return Err(doc.locate(Refusals::one(at, why)).into());
            }
        },
        (None, None) => Trust::System,
    };
    let login = match (&proxmox.token_file, &proxmox.ticket) {
        (Some(file), _) => {
            let token = site.secret("the token of Proxmox", file)?;
            // Users of the habit of writing the whole header are understood.
            let token = token.strip_prefix("PVEAPIToken=").unwrap_or(&token).to_owned();
            if !is_token(&token) {
                return Err(Failure::precondition(format!("cannot use the token in {file}"))
                    .because("it does not read USER@REALM!ID=UUID")
                    .hint(format!(
                        "pveum user token add USER@REALM ID, then write USER@REALM!ID=UUID to {file}"
                    )));
            }
            Login::Token(token)
        }
        (None, Some(ticket)) => Login::Password {
            user: ticket.user.clone(),
            password: site.secret("the password of Proxmox", &ticket.password_file)?,
        },
        (None, None) => return Err(Failure::internal("the document has no login, and none was refused")),
    };
    design.grantee = login.grantee();
    Ok(Want { design, endpoints, login, trust, ssh, site: site.clone() })
}

fn is_token(text: &str) -> bool {
    let good = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
    text.split_once('=').is_some_and(|(id, secret)| {
        good(secret)
            && good(id)
            && id.split_once('!').is_some_and(|(user, id)| user.contains('@') && !id.is_empty())
    })
}

/// What shall be, without files and secrets.
///
/// # Errors
/// Exit 3.
pub fn design(flags: &Flags, doc: &Document, spec: &Spec) -> Result<Design, Failure> {
    let cluster = doc.need_name()?.to_string();
    let proxmox = spec.proxmox()?;
    let network = spec.network()?;
    let ssh = spec.ssh()?;
    let pools = spec.pools()?;
    let mut wrong = Refusals::default();
    for (n, pool) in pools.iter().enumerate() {
        refuse(n, pool, &mut wrong);
    }
    let checksum = proxmox.template.image.as_ref().and_then(|i| i.checksum.as_ref());
    if let Some(Err(why)) = checksum.map(|c| crate::image::digest(c)) {
        let at = Pointer::root().key("spec").key("proxmox").key("template").key("image").key("checksum");
        wrong.add(at, why);
    }
    let container = proxmox.container_template.as_ref().and_then(|t| origin(t, &mut wrong));
    if !wrong.is_empty() {
        return Err(doc.locate(wrong).into());
    }
    let gateway = network.gateway;
    let machine = |pool: &Pool, n: u32| {
        Some(Machine {
            name: format!("{cluster}-{}-{n}", pool.name),
            role: pool.role,
            kind: pool.kind,
            pool: pool.name.to_string(),
            spread: pool.spread,
            cores: pool.cores,
            memory_mib: pool.memory.mib(),
            disk: pool.disk.gib() << 30,
            disks: pool.disks.iter().map(|d| (d.name.to_string(), d.size.gib() << 30)).collect(),
            order: Order::of(proxmox, pool),
            protection: pool.protection.or_else(|| (!pool.disks.is_empty()).then_some(true)),
            address: pool.addresses.nth(n - 1)?,
            prefix: network.cidr.prefix(),
            gateway,
            labels: pool.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            taints: pool.taints.iter().map(ToString::to_string).collect(),
        })
    };
    let machines =
        pools.iter().flat_map(|pool| (1..=pool.count).filter_map(move |n| machine(pool, n))).collect();
    let previous: PveVm = doc.status("pve-vm").unwrap_or_default();
    Ok(Design {
        nodes: proxmox.nodes.iter().map(ToString::to_string).collect(),
        pool: proxmox.pool.as_ref().map(ToString::to_string),
        storage: proxmox.storage.to_string(),
        seeds: proxmox.seed_storage.as_ref().map(ToString::to_string),
        bridge: proxmox.bridge.to_string(),
        vlan: proxmox.vlan.map(|v| v.get()),
        vmids: proxmox.vmids,
        template: proxmox.template.name.to_string(),
        image: proxmox.template.image.clone(),
        container,
        backup: spec
            .backup
            .as_ref()
            .and_then(|b| b.machines.as_ref())
            .map(|m| (m.schedule.to_string(), m.keep, m.storage.to_string())),
        ha: proxmox.ha.as_ref().map(|ha| Wish {
            pools: match ha.pools.is_empty() {
                true => pools.iter().map(|p| p.name.to_string()).collect(),
                false => ha.pools.iter().map(ToString::to_string).collect(),
            },
            max_restart: ha.max_restart,
            max_relocate: ha.max_relocate,
        }),
        clone: proxmox.clone,
        machines,
        user: ssh.user.to_string(),
        keys: ssh.authorized_keys.iter().map(|k| k.trim().to_owned()).collect(),
        nameservers: network.nameservers.clone(),
        search_domain: network.search_domain.as_ref().map(ToString::to_string),
        hints: previous.machines.into_iter().map(|m| (m.name.clone(), m)).collect(),
        restart: flags.restart,
        refresh_templates: flags.refresh_templates,
        drop_templates: flags.templates,
        prune: flags.prune,
        delete_data: flags.delete_data.iter().cloned().collect(),
        members: members(doc),
        grantee: String::new(),
        cluster,
    })
}

/// The nodes that the stage for Kubernetes said to be in the cluster.
fn members(doc: &Document) -> Members {
    let told = || {
        let status: serde_json::Value = doc.status("kadm-bootstrap")?;
        let names = |key: &str| status.get(key)?.as_array().cloned();
        let all = names("controlPlanes")?.into_iter().chain(names("workers")?);
        Some(all.filter_map(|n| n.as_str().map(str::to_owned)).collect())
    };
    match told() {
        Some(all) => Members::Known(all),
        None if doc.at("/spec/kubernetes").is_some() => Members::Unknown,
        None => Members::NoCluster,
    }
}

/// What containers are made from; that the fields fit together was seen to already.
fn origin(template: &ContainerTemplate, wrong: &mut Refusals) -> Option<Origin> {
    let here = Pointer::root().key("spec").key("proxmox").key("containerTemplate");
    if let Some(volume) = &template.volume {
        return Some(Origin::Volume(volume.clone()));
    }
    let (url, storage) = (template.url.clone()?, template.storage.as_ref()?.to_string());
    if crate::container::parts(&url).is_none() {
        let why = "names no archive that Proxmox takes; its last part has to end in .tar.zst, .tar.xz or .tar.gz, and \
                   hold letters, digits and -.+=_ alone";
        wrong.add(here.key("url"), why);
    }
    match crate::image::digest(template.checksum.as_ref()?) {
        Ok(digest) => Some(Origin::Download { url, digest, storage }),
        Err(why) => {
            wrong.add(here.key("checksum"), why);
            None
        }
    }
}

fn refuse(n: usize, pool: &Pool, wrong: &mut Refusals) {
    let here = Pointer::root().key("spec").key("pools").index(n);
    for (d, disk) in pool.disks.iter().enumerate() {
        let at = here.key("disks").index(d).key("name");
        // The name is the disk's serial number, of which virtio-blk carries 20 bytes (QEMU, VIRTIO_BLK_ID_BYTES).
        if disk.name.as_str().len() > 20 {
            wrong.add(
                at.clone(),
                format!("\"{}\" is longer than 20 letters, which is what a disk can carry", disk.name),
            );
        }
        if pool.disks[..d].iter().any(|other| other.name == disk.name) {
            wrong.add(at, format!("\"{}\" names two disks; give each its own name", disk.name));
        }
    }
    if pool.memory.mib() < 16 {
        wrong.add(here.key("memory"), format!("{} is less than Proxmox takes (16Mi)", pool.memory));
    }
}
