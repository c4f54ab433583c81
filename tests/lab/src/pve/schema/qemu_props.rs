//! Property strings of virtual machines.

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
