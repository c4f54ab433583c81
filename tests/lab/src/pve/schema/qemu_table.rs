//! Virtual machines: their options, property strings and requests.

/// Property strings of virtual machines.
pub(super) const PROPS: &str = r"
props drive
*file = str f=pve-volume-id-or-qm-path
volume = str alias=file
bps bps_rd bps_wr iops iops_max iops_rd iops_rd_max iops_wr iops_wr_max = int?
bps_max_length bps_rd_max_length bps_wr_max_length iops_max_length iops_rd_max_length iops_wr_max_length = int? 1..
bps_rd_length = str alias=bps_rd_max_length
bps_wr_length = str alias=bps_wr_max_length
iops_rd_length = str alias=iops_rd_max_length
iops_wr_length = str alias=iops_wr_max_length
mbps mbps_max mbps_rd mbps_rd_max mbps_wr mbps_wr_max = num?
backup detect_zeroes replicate shared snapshot = bool?
aio = str? in=native,threads,io_uring
cache = str? in=none,writethrough,writeback,unsafe,directsync
discard = str? in=ignore,on
format = str? in=raw,qcow,qed,qcow2,vmdk,cloop
media = str? in=cdrom,disk
rerror = str? in=ignore,report,stop
werror = str? in=enospc,ignore,report,stop
serial = str? f=urlencoded len=..60
size = str? f=disk-size
8: cyls heads secs = int?
8: trans = str? in=none,lba,auto

props flash
ssd = bool?
wwn = str? re=(?:^(0x)[0-9a-fA-F]{16})

props from
import-from = str? f=pve-volume-id-or-absolute-path

props qemu.scsi
+drive +flash +from
iothread ro scsiblock = bool?
queues = int? 2..
product = str? re=[A-Za-z0-9\-_\s]{0,16}
vendor = str? re=[A-Za-z0-9\-_\s]{0,8}

props qemu.ide
+drive +flash +from
model = str? f=urlencoded len=..120

props qemu.sata
+drive +flash +from

props qemu.virtio
+drive +from
iothread ro = bool?

props pve-qm-ide
+drive +flash
model = str? f=urlencoded len=..120
-cyls -heads -secs -trans

props qemu.unused
*file = str f=pve-volume-id
volume = str alias=file

props qemu.efidisk0
*file = str f=pve-volume-id-or-qm-path
volume = str alias=file
+from
efitype = str? in=2m,4m
format = str? in=raw,qcow,qed,qcow2,vmdk,cloop
9: ms-cert = str? in=2011,2023,2023w,2023k
pre-enrolled-keys = bool?
size = str? f=disk-size

props qemu.tpmstate0
*file = str f=pve-volume-id-or-qm-path
volume = str alias=file
+from
9: format = str? in=raw,qcow2,vmdk
size = str? f=disk-size
version = str? in=v1.2,v2.0

props qemu.net
*model = str in=e1000,e1000-82540em,e1000-82544gc,e1000-82545em,e1000e,i82551,i82557b,i82559er,ne2k_isa,ne2k_pci,pcnet,rtl8139,virtio,vmxnet3
e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e i82551 i82557b i82559er = str alias=macaddr/model
ne2k_isa ne2k_pci pcnet rtl8139 virtio vmxnet3 = str alias=macaddr/model
macaddr = str? f=mac-addr
bridge = str? f=pve-bridge-id
firewall link_down = bool?
mtu = int? 1..65520
queues = int? 0..64
rate = num? 0..
tag = int? 1..4094
trunks = str? re=(?:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)

props qemu.agent
*enabled = bool
fstrim_cloned_disks = bool?
type = str? in=virtio,isa
8: freeze-fs-on-backup = bool?
9: freeze-fs = bool?
9: freeze-fs-on-backup guest-fsfreeze = str alias=freeze-fs

props qemu.audio0
device = str in=ich9-intel-hda,intel-hda,AC97
driver = str? in=spice,none

props qemu.ivshmem
name = str? re=[a-zA-Z0-9\-]+
size = int 1..

props qemu.machine
*type = str? len=..40 re=(pc|pc(-i440fx)?-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|q35|pc-q35-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|virt(?:-\d+(\.\d+)+)?(\+pve\d+)?)
9: aw-bits = num? 32..64
enable-s3 enable-s4 = bool?
viommu = str? in=intel,virtio

props qemu.memory
*current = int 16..

props qemu.numa
cpus = str re=(?:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)
hostnodes = str? re=(?:\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*)
memory = num?
policy = str? in=preferred,bind,interleave

props qemu.spice_enhancements
foldersharing = bool?
videostreaming = str? in=off,all,filter

props qemu.usb
*host = str? re=(?:(?:(?:(?:(0x)?([0-9A-Fa-f]{4}):(0x)?([0-9A-Fa-f]{4})))|(?:(?:(\d+)\-(\d+(\.\d+)*)))|[Ss][Pp][Ii][Cc][Ee]))
mapping = str? f=pve-configid
usb3 = bool?

props qemu.vga
*type = str? in=cirrus,qxl,qxl2,qxl3,qxl4,none,serial[3],std,virtio,virtio-gl,vmware
clipboard = str? in=vnc
memory = int? 4..512

props qemu.virtiofs
*dirid = str f=pve-configid
cache = str? in=auto,always,metadata,never
direct-io expose-acl expose-xattr = bool?

props pve-qm-boot
*legacy = str? re=[acdn]{1,4}
order = str? f=pve-qm-bootdev-list

props pve-qm-cicustom
meta network user vendor = str? f=pve-volume-id

props pve-qm-ipconfig
ip = str? f=pve-ipv4-config
gw = str? f=ipv4 needs=ip
ip6 = str? f=pve-ipv6-config
gw6 = str? f=ipv6 needs=ip6

props pve-vm-cpu-conf
*cputype = str?
flags = str? re=(?:(?:([+-])([a-zA-Z0-9\-_\.]+))(;(?:([+-])([a-zA-Z0-9\-_\.]+)))*)
guest-phys-bits = int? 32..64
hidden = bool?
hv-vendor-id = str? re=(?:[a-zA-Z0-9]{1,12})
level = int? 0..4294967295
phys-bits = str? f=pve-phys-bits

props pve-qm-rng
*source = str in=/dev/urandom,/dev/random,/dev/hwrng
max_bytes period = int?

props pve-qm-watchdog
*model = str? in=i6300esb,ib700
action = str? in=reset,shutdown,poweroff,pause,debug,none

props pve-qm-smbios1
base64 = bool?
family manufacturer product serial sku version = str? re=[A-Za-z0-9+\/]+={0,2}
uuid = str? re=[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}

props pve-qm-hostpci
*host = str? re=(?:(?:(?:[a-f0-9]{4,}:)?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?)(;(?:(?:[a-f0-9]{4,}:)?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?))*)
device-id sub-device-id sub-vendor-id vendor-id = str? re=(?:^0x[0-9a-fA-F]{4}$)
driver = str? in=vfio,keep
legacy-igd pcie rombar x-vga = bool?
mapping = str? f=pve-configid
mdev = str? re=[^/\.:]+
romfile = str? re=[^,;]+

props pve-qemu-sev-fmt
*type = str in=std,es,snp len=..3
allow-smt kernel-hashes no-debug no-key-sharing = bool?

props pve-qemu-tdx-fmt
*type = str in=tdx
attestation = bool
vsock-cid = int? 2..
vsock-port = int? 0..
";

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
