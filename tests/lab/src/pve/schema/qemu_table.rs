//! Virtual machines: their options and requests.

/// Requests about virtual machines.
pub(super) const ROUTES: &str = r"
group path
node = str f=pve-node
vmid = int f=pve-vmid 100..999999999
storage = str f=pve-storage-id
snapname = str f=pve-configid len=..40
upid volume = str
sid = str f=pve-ha-resource-or-vm-id
rule group = str f=pve-configid
poolid = str f=pve-poolid
id = str len=..50 re=\S+

group vmid
vmid = int f=pve-vmid 100..999999999

group newid
newid = int f=pve-vmid 100..999999999

group options
acpi autostart freeze kvm localtime numa onboot protection reboot tablet tdf template keephugepages ciupgrade = bool?
9: allow-ksm = bool?
cores sockets smp vcpus = int? 1..
balloon migrate_speed = int? 0..
cpuunits = int? 1..262144
shares = int? 0..50000
cpulimit = num? 0..128
migrate_downtime = num? 0..
args cipassword ciuser searchdomain = str?
description = str? len=..8192
name = str? f=dns-name
nameserver = str? f=address-list
tags = str? f=pve-tag-list
sshkeys = str? f=urlencoded
startup = str? f=pve-startup-order
affinity = str? f=pve-cpuset
hotplug = str? f=pve-hotplug-features
hookscript = str? f=pve-volume-id
vmstatestorage = str? f=pve-storage-id
boot = str? f=pve-qm-boot
bootdisk = str? f=pve-qm-bootdisk re=(ide|sata|scsi|virtio)\d+
cdrom = str? f=pve-qm-ide
cicustom = str? f=pve-qm-cicustom
cpu = str? f=pve-vm-cpu-conf
rng0 = str? f=pve-qm-rng
smbios1 = str? f=pve-qm-smbios1 len=..512
watchdog = str? f=pve-qm-watchdog
amd-sev = str? f=pve-qemu-sev-fmt
9: intel-tdx = str? f=pve-qemu-tdx-fmt
ipconfig[31] = str? f=pve-qm-ipconfig
hostpci[15] = str? f=pve-qm-hostpci
agent = str? props=qemu.agent
audio0 = str? props=qemu.audio0
efidisk0 = str? props=qemu.efidisk0
tpmstate0 = str? props=qemu.tpmstate0
ivshmem = str? props=qemu.ivshmem
machine = str? props=qemu.machine
memory = str? props=qemu.memory
spice_enhancements = str? props=qemu.spice_enhancements
vga = str? props=qemu.vga
ide[3] = str? props=qemu.ide
sata[5] = str? props=qemu.sata
scsi[30] = str? props=qemu.scsi
virtio[15] = str? props=qemu.virtio
unused[255] = str? props=qemu.unused
net[31] = str? props=qemu.net
numa[7] = str? props=qemu.numa
usb[13] = str? props=qemu.usb
virtiofs[9] = str? props=qemu.virtiofs
arch = str? in=x86_64,aarch64
bios = str? in=seabios,ovmf
citype = str? in=configdrive2,nocloud,opennebula
hugepages = str? in=any,2,1024
keyboard = str? in=de,de-ch,da,en-gb,en-us,es,fi,fr,fr-be,fr-ca,fr-ch,hu,is,it,ja,lt,mk,nl,no,pl,pt,pt-br,sv,sl,tr
lock = str? in=backup,clone,create,migrate,rollback,snapshot,snapshot-delete,suspending,suspended
ostype = str? in=other,wxp,w2k,w2k3,w2k8,wvista,win7,win8,win10,win11,l24,l26,solaris
scsihw = str? in=lsi,lsi53c810,virtio-scsi-pci,virtio-scsi-single,megasas,pvscsi
serial[3] = str? re=(/dev/.+|socket)
parallel[2] = str? re=/dev/parport\d+|/dev/usb/lp\d+
startdate = str? re=(now|\d{4}-\d{1,2}-\d{1,2}(T\d{1,2}:\d{1,2}:\d{1,2})?)
vmgenid = str? re=(?:[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}|[01])

group change
+options
skiplock = bool?
force = bool? needs=delete
delete revert = str? f=pve-configid-list
digest = str? len=..40

GET /nodes/{node}/qemu
full = bool?

POST /nodes/{node}/qemu async
+options +vmid
archive = str? len=..255
bwlimit = int? 0..
force unique = bool? needs=archive
9: ha-managed = bool?
live-restore start = bool?
import-working-storage storage = str? f=pve-storage-id
pool = str? f=pve-poolid

GET /nodes/{node}/qemu/{vmid}

DELETE /nodes/{node}/qemu/{vmid} async
right /vms/{vmid} VM.Allocate
destroy-unreferenced-disks purge skiplock = bool?

GET /nodes/{node}/qemu/{vmid}/config
right /vms/{vmid} VM.Audit
current = bool?
snapshot = str? f=pve-configid len=..40

PUT /nodes/{node}/qemu/{vmid}/config
right /vms/{vmid} VM.Config.Disk|VM.Config.CDROM|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.HWType|VM.Config.Options|VM.Config.Cloudinit
+change

POST /nodes/{node}/qemu/{vmid}/config
right /vms/{vmid} VM.Config.Disk|VM.Config.CDROM|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.HWType|VM.Config.Options|VM.Config.Cloudinit
+change
background_delay = int? 1..30
import-working-storage = str? f=pve-storage-id

GET /nodes/{node}/qemu/{vmid}/pending
right /vms/{vmid} VM.Audit

POST /nodes/{node}/qemu/{vmid}/clone async
right (clone) VM.Clone
+newid
bwlimit = int? 0..
description = str?
format = str? in=raw,qcow2,vmdk
full = bool?
name = str? f=dns-name
pool = str? f=pve-poolid
snapname = str? f=pve-configid len=..40
storage = str? f=pve-storage-id
target = str? f=pve-node

PUT /nodes/{node}/qemu/{vmid}/resize async
right /vms/{vmid} VM.Config.Disk
digest = str? len=..40
disk = str in=ide[3],scsi[30],virtio[15],sata[5],efidisk0,tpmstate0
size = str re=\+?\d+(\.\d+)?[KMGT]?
skiplock = bool?

POST /nodes/{node}/qemu/{vmid}/template async
right /vms/{vmid} VM.Allocate
disk = str? in=ide[3],scsi[30],virtio[15],sata[5],efidisk0,tpmstate0

PUT /nodes/{node}/qemu/{vmid}/unlink
right /vms/{vmid} VM.Config.Disk
force = bool?
idlist = str f=pve-configid-list

POST /nodes/{node}/qemu/{vmid}/move_disk async
right /vms/{vmid} VM.Config.Disk
bwlimit = int? 0..
delete = bool?
digest target-digest = str? len=..40
disk = str in=ide[3],scsi[30],virtio[15],sata[5],efidisk0,tpmstate0,unused[255]
format = str? in=raw,qcow2,vmdk
storage = str? f=pve-storage-id
target-disk = str? in=ide[3],scsi[30],virtio[15],sata[5],efidisk0,tpmstate0,unused[255]
target-vmid = int? f=pve-vmid 100..999999999

GET /nodes/{node}/qemu/{vmid}/migrate
right /vms/{vmid} VM.Migrate
target = str? f=pve-node

POST /nodes/{node}/qemu/{vmid}/migrate async
right /vms/{vmid} VM.Migrate
bwlimit = int? 0..
force online with-local-disks = bool?
9: with-conntrack-state = bool?
migration_network = str? f=CIDR
migration_type = str? in=secure,insecure
target = str f=pve-node
targetstorage = str? f=storage-pair-list

GET /nodes/{node}/qemu/{vmid}/cloudinit
right /vms/{vmid} VM.Audit

PUT /nodes/{node}/qemu/{vmid}/cloudinit
right /vms/{vmid} VM.Config.Cloudinit

GET /nodes/{node}/qemu/{vmid}/cloudinit/dump
right /vms/{vmid} VM.Audit
type = str in=user,network,meta

GET /nodes/{node}/qemu/{vmid}/status

GET /nodes/{node}/qemu/{vmid}/status/current
right /vms/{vmid} VM.Audit

POST /nodes/{node}/qemu/{vmid}/status/start async
right /vms/{vmid} VM.PowerMgmt
skiplock = bool?
9: with-conntrack-state = bool?
force-cpu = str?
machine = str? props=qemu.machine
migratedfrom = str? f=pve-node
migration_network = str? f=CIDR
migration_type = str? in=secure,insecure
9: nets-host-mtu = str? re=net\d+=\d+(,net\d+=\d+)*
stateuri = str? len=..128
targetstorage = str? f=storage-pair-list
timeout = int? 0..

POST /nodes/{node}/qemu/{vmid}/status/stop async
right /vms/{vmid} VM.PowerMgmt
keepActive overrule-shutdown skiplock = bool?
migratedfrom = str? f=pve-node
timeout = int? 0..

POST /nodes/{node}/qemu/{vmid}/status/shutdown async
right /vms/{vmid} VM.PowerMgmt
forceStop keepActive skiplock = bool?
timeout = int? 0..

POST /nodes/{node}/qemu/{vmid}/status/reboot async
right /vms/{vmid} VM.PowerMgmt
timeout = int? 0..

POST /nodes/{node}/qemu/{vmid}/status/reset async
right /vms/{vmid} VM.PowerMgmt
skiplock = bool?

GET /nodes/{node}/qemu/{vmid}/snapshot
right /vms/{vmid} VM.Audit

POST /nodes/{node}/qemu/{vmid}/snapshot async
right /vms/{vmid} VM.Snapshot
snapname = str f=pve-configid len=..40
description = str?
vmstate = bool?

DELETE /nodes/{node}/qemu/{vmid}/snapshot/{snapname} async
right /vms/{vmid} VM.Snapshot
force = bool?

POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback async
right /vms/{vmid} VM.Snapshot|VM.Snapshot.Rollback
start = bool?

POST /nodes/{node}/qemu/{vmid}/agent/ping
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted

GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted

GET /nodes/{node}/qemu/{vmid}/agent/get-osinfo
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted

GET /nodes/{node}/qemu/{vmid}/agent/get-host-name
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted

GET /nodes/{node}/qemu/{vmid}/agent/info
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted

POST /nodes/{node}/qemu/{vmid}/agent/exec
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Unrestricted
command = arr
input-data = str? len=..65536

GET /nodes/{node}/qemu/{vmid}/agent/exec-status
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.Unrestricted
pid = int

GET /nodes/{node}/qemu/{vmid}/agent/file-read
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.FileRead|VM.GuestAgent.Unrestricted
file = str
9: count = int? 1..16777216
9: decode = bool?
9: offset = int? 0..

POST /nodes/{node}/qemu/{vmid}/agent/file-write
8: right /vms/{vmid} VM.Monitor
9: right /vms/{vmid} VM.GuestAgent.FileWrite|VM.GuestAgent.Unrestricted
content = str len=..61440
encode = bool?
file = str
";
