//! The datacenter: access, cluster, high availability, backup jobs, pools, storages.

/// Property strings of the datacenter's options.
pub(super) const PROPS: &str = "";

/// Requests about the datacenter.
pub(super) const ROUTES: &str = r"
GET /version

GET /access

GET /access/permissions
path = str?
userid = str? re=(?:^(?:[^\s:/]+)\@(?:[A-Za-z][A-Za-z0-9\.\-_]+)(?:!(?:[A-Za-z][A-Za-z0-9\.\-_]+))?$)

GET /access/ticket lax

POST /access/ticket ticket
new-format = bool?
otp tfa-challenge = str?
password = str
path = str? len=..64 needs=privs
privs = str? f=pve-priv-list len=..64 needs=path
realm = str? f=pve-realm len=..32
username = str len=..64

GET /cluster

GET /cluster/status
right / Sys.Audit

GET /cluster/resources
type = str? in=vm,storage,node,sdn

GET /cluster/nextid
vmid = int? f=pve-vmid 100..999999999

GET /cluster/tasks

GET /cluster/options
right / Sys.Audit

GET /cluster/backup
right / Sys.Audit

POST /cluster/backup
right / Sys.Modify
+dump
comment = str? len=..512
dow = str? f=pve-day-of-week-list needs=starttime
enabled repeat-missed = bool?
id = str? f=pve-configid
schedule = str? f=pve-calendar-event len=..128
starttime = str? re=\d{1,2}:\d{1,2}

GET /cluster/backup/{id}
right / Sys.Audit

PUT /cluster/backup/{id}
right / Sys.Modify
+dump
comment = str? len=..512
delete = str? f=pve-configid-list
dow = str? f=pve-day-of-week-list needs=starttime
enabled repeat-missed = bool?
schedule = str? f=pve-calendar-event len=..128
starttime = str? re=\d{1,2}:\d{1,2}

DELETE /cluster/backup/{id}
right / Sys.Modify

GET /cluster/ha/status/current
right / Sys.Audit

GET /cluster/ha/resources
right / Sys.Audit
type = str? in=ct,vm

POST /cluster/ha/resources
right / Sys.Console
comment = str? len=..4096
9: failback = bool?
group = str? f=pve-configid
max_relocate max_restart = int? 0..
sid = str f=pve-ha-resource-or-vm-id
state = str? in=started,stopped,enabled,disabled,ignored
type = str? in=ct,vm

GET /cluster/ha/resources/{sid}
right / Sys.Audit

PUT /cluster/ha/resources/{sid}
right / Sys.Console
comment = str? len=..4096
delete = str? f=pve-configid-list len=..4096
digest = str? len=..64
9: failback = bool?
group = str? f=pve-configid
max_relocate max_restart = int? 0..
state = str? in=started,stopped,enabled,disabled,ignored

DELETE /cluster/ha/resources/{sid}
right / Sys.Console
9: purge = bool?

9: GET /cluster/ha/rules
right / Sys.Audit
resource = str?
type = str? in=node-affinity,resource-affinity

9: POST /cluster/ha/rules
right / Sys.Console
affinity = str? in=positive,negative
comment = str? len=..4096
disable strict = bool?
nodes = str? f=pve-ha-node-list
resources = str f=pve-ha-resource-id-list
rule = str f=pve-configid
type = str in=node-affinity,resource-affinity

9: GET /cluster/ha/rules/{rule}
right / Sys.Audit

9: PUT /cluster/ha/rules/{rule}
right / Sys.Console
affinity = str? in=positive,negative
comment = str? len=..4096
delete = str? f=pve-configid-list len=..4096
digest = str? len=..64
disable strict = bool?
nodes = str? f=pve-ha-node-list
resources = str? f=pve-ha-resource-id-list
type = str in=node-affinity,resource-affinity

9: DELETE /cluster/ha/rules/{rule}
right / Sys.Console

GET /cluster/ha/groups
right / Sys.Audit

POST /cluster/ha/groups
right / Sys.Console
comment = str? len=..4096
group = str f=pve-configid
8: nodes = str f=pve-ha-group-node-list
9: nodes = str f=pve-ha-node-list
nofailback restricted = bool?
type = str? in=group

GET /cluster/ha/groups/{group}
right / Sys.Audit

PUT /cluster/ha/groups/{group}
right / Sys.Console
comment = str? len=..4096
delete = str? f=pve-configid-list len=..4096
digest = str? len=..64
8: nodes = str? f=pve-ha-group-node-list
9: nodes = str? f=pve-ha-node-list
nofailback restricted = bool?

DELETE /cluster/ha/groups/{group}
right / Sys.Console

GET /nodes

group members
allow-move delete = bool?
comment = str?
storage = str? f=pve-storage-id-list
vms = str? f=pve-vmid-list

GET /pools
poolid = str? f=pve-poolid
type = str? in=qemu,lxc,storage needs=poolid

POST /pools
right /pool/{poolid} Pool.Allocate
comment = str?
poolid = str f=pve-poolid

PUT /pools
right /pool/{poolid} Pool.Allocate
+members
poolid = str f=pve-poolid

DELETE /pools
right /pool/{poolid} Pool.Allocate
poolid = str f=pve-poolid

GET /pools/{poolid}
right /pool/{poolid} Pool.Audit
type = str? in=qemu,lxc,storage

PUT /pools/{poolid}
right /pool/{poolid} Pool.Allocate
+members

DELETE /pools/{poolid}
right /pool/{poolid} Pool.Allocate

GET /storage
8: type = str? in=btrfs,cephfs,cifs,dir,esxi,glusterfs,iscsi,iscsidirect,lvm,lvmthin,nfs,pbs,rbd,zfs,zfspool
9: type = str? in=btrfs,cephfs,cifs,dir,esxi,iscsi,iscsidirect,lvm,lvmthin,nfs,pbs,rbd,zfs,zfspool

GET /storage/{storage}
right /storage/{storage} Datastore.Allocate
";
