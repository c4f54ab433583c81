//! Nodes: storages, tasks, containers, backups of one node.

/// Property strings of containers and backups.
pub(super) const PROPS: &str = r"
props lxc.volume
*volume = str f=pve-lxc-mp-string
acl quota ro = bool?
replicate shared = bool?
mountoptions = str? re=(?:(?:(discard|lazytime|noatime|nodev|noexec|nosuid))(;(?:(discard|lazytime|noatime|nodev|noexec|nosuid)))*)
size = str? f=disk-size

props lxc.rootfs
+lxc.volume

props lxc.mp
+lxc.volume
mp = str f=pve-lxc-mp-string
backup = bool?
9: keepattrs = bool?

props lxc.unused
*volume = str f=pve-volume-id

props lxc.dev
*path = str? f=pve-lxc-dev-string
deny-write = bool?
uid gid = int? 0..
mode = str? re=0[0-7]{3}

props lxc.features
force_rw_sys fuse keyctl mknod nesting = bool?
mount = str? re=(?:[a-zA-Z0-9_; ]+)

props lxc.net
name = str re=[-_.\w\d]+
bridge = str? re=[-_.\w\d]+
firewall link_down = bool?
9: host-managed = bool?
hwaddr = str? f=mac-addr
ip = str? f=pve-ipv4-config
gw = str? f=ipv4
ip6 = str? f=pve-ipv6-config
gw6 = str? f=ipv6
mtu = int? 64..65535
rate = num?
tag = int? 1..4094
trunks = str? re=(?:\d+(?:;\d+)*)
type = str? in=veth

props prune-backups
keep-all = bool?
keep-last keep-hourly keep-daily keep-weekly keep-monthly keep-yearly = int? 0..

props backup-fleecing
*enabled = bool?
storage = str? f=pve-storage-id

props backup-performance
max-workers = int? 1..256
pbs-entries-max = int? 1..
";

/// Requests about one node.
pub(super) const ROUTES: &str = r"
group dump
all protected quiet remove stdexcludes stop = bool?
bwlimit lockwait stopwait = int? 0..
compress = str? in=0,1,gzip,lzo,zstd
dumpdir script tmpdir pool = str?
exclude vmid = str? f=pve-vmid-list
exclude-path = arr?
fleecing = str? f=backup-fleecing
performance = str? f=backup-performance
prune-backups = str? f=prune-backups
ionice = int? 0..8
mailnotification = str? in=always,failure
mailto = str? f=email-or-username-list
maxfiles = int? 1..
mode = str? in=snapshot,suspend,stop
node = str? f=pve-node
notes-template = str? len=..1024 needs=storage
protected = bool? needs=storage
notification-mode = str? in=auto,legacy-sendmail,notification-system
8: notification-policy = str? in=always,failure,never
8: notification-target = str? f=pve-configid
pbs-change-detection-mode = str? in=legacy,data,metadata
pigz zstd = int?
storage = str? f=pve-storage-id

GET /nodes/{node}

GET /nodes/{node}/version

GET /nodes/{node}/status
right /nodes/{node} Sys.Audit

GET /nodes/{node}/network
8: type = str? in=bridge,bond,eth,alias,vlan,OVSBridge,OVSBond,OVSPort,OVSIntPort,vnet,any_bridge,any_local_bridge
9: type = str? in=bridge,bond,eth,alias,vlan,fabric,OVSBridge,OVSBond,OVSPort,OVSIntPort,vnet,any_bridge,any_local_bridge,include_sdn

GET /nodes/{node}/storage
content = str? f=pve-storage-content-list
enabled format = bool?
storage = str? f=pve-storage-id
target = str? f=pve-node

GET /nodes/{node}/storage/{storage}
right /storage/{storage} Datastore.Audit|Datastore.AllocateSpace

GET /nodes/{node}/storage/{storage}/status
right /storage/{storage} Datastore.Audit|Datastore.AllocateSpace

GET /nodes/{node}/storage/{storage}/content
right /storage/{storage} Datastore.Audit|Datastore.AllocateSpace
content = str? f=pve-storage-content
vmid = int? f=pve-vmid 100..999999999

GET /nodes/{node}/storage/{storage}/content/{volume}
storage = str? f=pve-storage-id

DELETE /nodes/{node}/storage/{storage}/content/{volume}
delay = int? 1..30
storage = str? f=pve-storage-id

POST /nodes/{node}/storage/{storage}/download-url async
right (download) Datastore.AllocateTemplate
checksum = str? needs=checksum-algorithm
checksum-algorithm = str? in=md5,sha1,sha224,sha256,sha384,sha512 needs=checksum
compression = str?
content = str f=pve-storage-content in=iso,vztmpl,import
filename = str len=..255
url = str re=https?://.*
verify-certificates = bool?

POST /nodes/{node}/storage/{storage}/upload async
right /storage/{storage} Datastore.AllocateTemplate
checksum = str? needs=checksum-algorithm
checksum-algorithm = str? in=md5,sha1,sha224,sha256,sha384,sha512 needs=checksum
content = str f=pve-storage-content in=iso,vztmpl,import
filename = str len=..255
tmpfilename = str? re=/var/tmp/pveupload-[0-9a-f]+

GET /nodes/{node}/tasks
errors = bool?
limit start = int? 0..
since until = int?
source = str? in=archive,active,all
statusfilter = str? f=pve-task-status-type-list
typefilter userfilter = str?
vmid = int? f=pve-vmid 100..999999999

GET /nodes/{node}/tasks/{upid}

DELETE /nodes/{node}/tasks/{upid}

GET /nodes/{node}/tasks/{upid}/status

GET /nodes/{node}/tasks/{upid}/log
download = bool?
limit start = int? 0..

POST /nodes/{node}/vzdump async
+dump
job-id = str? len=..50 re=\S+
stdout = bool?

group container
console debug onboot protection template unprivileged = bool?
arch = str? in=amd64,i386,arm64,armhf,riscv32,riscv64
cmode = str? in=shell,console,tty
cores = int? 1..8192
cpulimit = num? 0..8192
cpuunits = int? 0..500000
description = str? len=..8192
dev[255] = str? props=lxc.dev
9: entrypoint = str? re=(?:[^\x00-\x08\x10-\x1F\x7F]+)
9: env = str? re=(?:(?:\w+=[^\x00-\x08\x10-\x1F\x7F]*)(?:\x00\w+=[^\x00-\x08\x10-\x1F\x7F]*)*)
features = str? props=lxc.features
hookscript = str? f=pve-volume-id
hostname = str? f=dns-name len=..255
lock = str? in=backup,create,destroyed,disk,fstrim,migrate,mounted,rollback,snapshot,snapshot-delete
memory = int? 16..
mp[255] = str? props=lxc.mp
nameserver = str? f=lxc-ip-with-ll-iface-list
net[31] = str? props=lxc.net
ostype = str? in=debian,devuan,ubuntu,centos,fedora,opensuse,archlinux,alpine,gentoo,nixos,unmanaged
rootfs = str? props=lxc.rootfs
searchdomain = str? f=dns-name-list
startup = str? f=pve-startup-order
swap = int? 0..
tags = str? f=pve-tag-list
timezone = str? f=pve-ct-timezone
tty = int? 0..6
unused[255] = str? props=lxc.unused

GET /nodes/{node}/lxc

POST /nodes/{node}/lxc async
+container +vmid
bwlimit = num? 0..
force ignore-unpack-errors restore start = bool?
9: ha-managed = bool?
ostemplate = str len=..255
password = str? len=5..
pool = str? f=pve-poolid
ssh-public-keys = str?
storage = str? f=pve-storage-id
unique = bool? needs=restore

GET /nodes/{node}/lxc/{vmid}

DELETE /nodes/{node}/lxc/{vmid} async
right /vms/{vmid} VM.Allocate
destroy-unreferenced-disks force purge = bool?

GET /nodes/{node}/lxc/{vmid}/config
right /vms/{vmid} VM.Audit
current = bool?
snapshot = str? f=pve-configid len=..40

GET /nodes/{node}/lxc/{vmid}/pending
right /vms/{vmid} VM.Audit

GET /nodes/{node}/lxc/{vmid}/snapshot
right /vms/{vmid} VM.Audit

POST /nodes/{node}/lxc/{vmid}/snapshot async
right /vms/{vmid} VM.Snapshot
description = str?
snapname = str f=pve-configid len=..40

DELETE /nodes/{node}/lxc/{vmid}/snapshot/{snapname} async
right /vms/{vmid} VM.Snapshot
force = bool?

POST /nodes/{node}/lxc/{vmid}/snapshot/{snapname}/rollback async
right /vms/{vmid} VM.Snapshot|VM.Snapshot.Rollback
start = bool?

PUT /nodes/{node}/lxc/{vmid}/config
right /vms/{vmid} VM.Config.Disk|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.Options
+container
delete revert = str? f=pve-configid-list
digest = str? len=..40

POST /nodes/{node}/lxc/{vmid}/migrate async
right /vms/{vmid} VM.Migrate
bwlimit = num? 0..
online restart = bool?
target = str f=pve-node
target-storage = str? f=storage-pair-list
timeout = int?

POST /nodes/{node}/lxc/{vmid}/clone async
right (clone) VM.Clone
+newid
bwlimit = num? 0..
description = str?
full = bool?
hostname = str? f=dns-name
pool = str? f=pve-poolid
snapname = str? f=pve-configid len=..40
storage = str? f=pve-storage-id
target = str? f=pve-node

PUT /nodes/{node}/lxc/{vmid}/resize async
right /vms/{vmid} VM.Config.Disk|VM.Config.Disk
digest = str? len=..40
disk = str in=rootfs,mp[255]
size = str re=\+?\d+(\.\d+)?[KMGT]?

GET /nodes/{node}/lxc/{vmid}/interfaces
right /vms/{vmid} VM.Audit

POST /nodes/{node}/lxc/{vmid}/template
right /vms/{vmid} VM.Allocate

GET /nodes/{node}/lxc/{vmid}/status/current
right /vms/{vmid} VM.Audit

POST /nodes/{node}/lxc/{vmid}/status/start async
right /vms/{vmid} VM.PowerMgmt
debug skiplock = bool?

POST /nodes/{node}/lxc/{vmid}/status/stop async
right /vms/{vmid} VM.PowerMgmt
overrule-shutdown skiplock = bool?

POST /nodes/{node}/lxc/{vmid}/status/shutdown async
right /vms/{vmid} VM.PowerMgmt
forceStop = bool?
timeout = int? 0..

POST /nodes/{node}/lxc/{vmid}/status/reboot async
right /vms/{vmid} VM.PowerMgmt
timeout = int? 0..
";
