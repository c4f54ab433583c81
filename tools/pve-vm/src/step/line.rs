//! Each step as one imperative line.

use std::fmt;

use super::Step;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::MakePool { pool, .. } => write!(f, "make the pool {pool}"),
            Step::Download { node, storage, file, .. } => write!(f, "download {file} to {storage} on {node}"),
            Step::MakeTemplate { name, vmid, node, .. } => {
                write!(f, "make the template {name} ({vmid} on {node})")
            }
            Step::Clone { at, template, source, full, .. } => {
                let from = if *source == at.node { String::new() } else { format!(" of {source}") };
                let how = if full.is_some() { "copy" } else { "clone" };
                write!(f, "{how} template {template}{from} to {at}")
            }
            Step::MakeContainer { at, .. } => write!(f, "make the container {at}"),
            Step::Note { at, .. } => write!(f, "note the host key of {at} from the log of its making"),
            Step::Pin { at, .. } => write!(f, "wait for {at} to answer, and note its host key"),
            Step::Join { at, pool } => write!(f, "put {at} into the pool {pool}"),
            Step::Configure { at, set, net, delete } => {
                let net = net.iter().map(|_| "net0".to_owned());
                let gone = delete.iter().map(|d| format!("no {d}"));
                let mut what: Vec<String> = set.keys().cloned().chain(net).collect();
                what.sort();
                what.extend(gone);
                if what.len() > 6 {
                    return write!(f, "configure {at}");
                }
                write!(f, "configure {at}: {}", what.join(", "))
            }
            Step::Resize { at, disk, gib } => write!(f, "grow {disk} of {at} to {gib}G"),
            Step::Start { at } => write!(f, "start {at}"),
            Step::Renew { at, lost, .. } => {
                write!(f, "make {} of {at} anew", lost.split('=').next().unwrap_or_default())
            }
            Step::Seed { at, storage, .. } => write!(f, "seed the first boot of {at} from {storage}"),
            Step::Seal { at, .. } => write!(f, "end the first boot of {at}"),
            Step::DropSeed { node, storage, file } => {
                write!(f, "delete the seed {file} on {storage} of {node}")
            }
            Step::Ready { at, .. } => write!(f, "wait for {at} to answer"),
            Step::Restart { at } => write!(f, "restart {at}"),
            Step::Stop { at } => write!(f, "stop {at}"),
            Step::Destroy { at } => write!(f, "destroy {at}"),
            Step::MakeJob { id, there: false, .. } => write!(f, "make the backup job {id}"),
            Step::MakeJob { id, .. } => write!(f, "change the backup job {id}"),
            Step::HaSet { entry, id, there: false, .. } => write!(f, "make the {entry} {id}"),
            Step::HaSet { entry, id, .. } => write!(f, "change the {entry} {id}"),
            Step::HaDrop { entry, id } => write!(f, "take the {entry} {id} away"),
            Step::DropJob { id } => write!(f, "delete the backup job {id}"),
            Step::Upload { node, storage, file, .. } => write!(f, "upload {file} to {storage} on {node}"),
            Step::DropTemplate { name, vmid, node } => {
                write!(f, "delete the template {name} ({vmid} on {node})")
            }
            Step::DropPool { pool } => write!(f, "delete the pool {pool}"),
        }
    }
}
