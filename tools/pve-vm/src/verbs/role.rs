//! The least privileges that a document needs, as lines that a person runs on a node; pure.

use crate::args::Release;
use crate::power::Order;
use crate::privileges::guest_role;
use crate::want::Design;

/// A role, its privileges, and the paths that it is granted on, with what follows the path.
struct Grant {
    role: &'static str,
    privileges: Vec<&'static str>,
    paths: Vec<String>,
}

/// The lines.
pub(super) fn text(design: &Design, release: Release) -> String {
    let (number, version) = match release {
        Release::V8 => (8, (8, 4)),
        Release::V9 => (9, (9, 0)),
    };
    let mut out =
        format!("# The least privileges for the cluster {} on Proxmox VE {number}.\n", design.cluster);
    let grants = grants(design, version);
    for grant in &grants {
        out.push_str(&format!("pveum role add {} --privs '{}'\n", grant.role, grant.privileges.join(" ")));
    }
    for grant in &grants {
        for path in &grant.paths {
            out.push_str(&format!("pveum acl modify {path} {} --roles {}\n", design.grantee, grant.role));
        }
    }
    out.push_str(&format!(
        "# A template of your own, outside of that pool, must let itself be cloned (ID is its id):\n\
         # pveum acl modify /vms/ID {} --roles PVETemplateUser\n",
        design.grantee
    ));
    out
}

fn grants(design: &Design, version: (u32, u32)) -> Vec<Grant> {
    let mut machines = guest_role();
    // What the guest agent shows helps a wait that is in vain; nothing depends on it. On 8 the privilege for that would
    // give far more.
    if version >= (9, 0) {
        machines.push("VM.GuestAgent.Audit");
    }
    // Templates are cloned, snapshots taken, and the pool made.
    machines.extend(["VM.Clone", "VM.Snapshot", "VM.Snapshot.Rollback", "Pool.Allocate", "Pool.Audit"]);
    machines.sort_unstable();
    let home = design.pool.as_ref().map_or("/vms".to_owned(), |pool| format!("/pool/{pool}"));
    let disks = format!("/storage/{}", design.storage);
    let image = design.image.as_ref().map(|i| i.storage.to_string());
    let mut images: Vec<String> =
        design.seeds.iter().chain(&image).map(|name| format!("/storage/{name}")).collect();
    let archives = design.container.as_ref().map(|o| format!("/storage/{}", o.storage()));
    images.extend(archives.filter(|path| !images.contains(path)));
    if images.is_empty() {
        images.push("/storage/local".to_owned());
    }
    images.dedup();
    // A template's card may be on the bridge without the VLAN, and a clone asks for both.
    let bridge = format!("/sdn/zones/localnetwork/{}", design.bridge);
    let mut site = vec!["Sys.Audit"];
    // Backup jobs are the cluster's own.
    let ordered = design.machines.iter().any(|m| m.order != Order::Any);
    // A start order concerns the guests of others too.
    site.extend((design.backup.is_some() || ordered).then_some("Sys.Modify"));
    // So are the entries of its HA manager.
    site.extend(design.ha.iter().map(|_| "Sys.Console"));
    let grant =
        |role, privileges: &[&'static str], paths| Grant { role, privileges: privileges.to_vec(), paths };
    vec![
        Grant { role: "KubelineVM", privileges: machines, paths: vec![home] },
        grant("KubelineStorage", &["Datastore.AllocateSpace", "Datastore.Audit"], vec![disks]),
        grant(
            "KubelineImages",
            &["Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit"],
            images,
        ),
        grant("KubelineNetwork", &["SDN.Use"], vec![bridge]),
        grant("KubelineNodes", &["Sys.AccessNetwork", "Sys.Audit"], vec!["/nodes".to_owned()]),
        Grant { role: "KubelineSite", privileges: site, paths: vec!["/ --propagate 0".to_owned()] },
    ]
}
