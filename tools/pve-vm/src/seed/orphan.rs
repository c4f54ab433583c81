//! Seeds that no drive holds: what runs left that broke off between the upload and the drive, and what another run is
//! about to put in; pure.

use super::{attached, prefix};
use crate::mark::Mark;
use crate::roster::{Roster, State};
use crate::seen::{Guest, Seen};
use crate::want::Design;

/// A seed that lies about although no guest on a node that sees it has it in a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// A node that sees it.
    pub node: String,
    /// The storage.
    pub storage: String,
    /// The file.
    pub file: String,
    /// The machine that it was made for.
    pub machine: String,
    /// True while that machine may still get a seed: nobody has proven its first boot, or it is made anew. Another run
    /// may be about to put this one in. After that it is of no use to anybody: a run that was not the first to note
    /// its key puts no seed in.
    pub awaited: bool,
}

/// The machine that a seed of this cluster is for: names hold no dots.
fn machine<'f>(cluster: &str, file: &'f str) -> Option<&'f str> {
    file.strip_prefix(&prefix(cluster))?.split('.').next()
}

/// Whether the machine may still get a seed. What a guest says was read after the lists of files, so that it is not
/// older than a file that is in them.
fn awaited(design: &Design, roster: &Roster<'_>, machine: &str) -> bool {
    let still = |guest: &Guest, mark: &Mark| {
        let attached = guest.config.as_ref().is_some_and(|c| attached(&design.cluster, c).is_some());
        mark.host_keys.is_empty() || mark.renew.is_some() || (!guest.running && attached)
    };
    match roster.machines.iter().find(|(m, _)| m.name == machine) {
        Some((_, State::Ours(guest, mark))) => still(guest, mark),
        Some(_) => true,
        // Another document may have it.
        None => roster.leaving.iter().any(|(guest, mark)| mark.machine == machine && still(guest, mark)),
    }
}

/// All of them, in the order of nodes and storages.
pub fn orphans(design: &Design, seen: &Seen, roster: &Roster<'_>) -> Vec<Orphan> {
    let used = |node: &str, shared: bool, storage: &str, file: &str| {
        let has = |g: &&Guest| g.config.as_ref().and_then(|c| attached(&design.cluster, c));
        let mut here = seen.guests.iter().filter(|g| shared || g.node == node);
        // What cannot be asked may need its seed still.
        here.any(|g| g.config.is_none() || has(&g).is_some_and(|(_, s, f)| s == storage && f == file))
    };
    let mut all: Vec<Orphan> = Vec::new();
    for (name, node) in &seen.nodes {
        for (storage, found) in &node.storages {
            for file in &found.seeds {
                let told = found.shared && all.iter().any(|o| o.storage == *storage && o.file == *file);
                if told || used(name, found.shared, storage, file) {
                    continue;
                }
                let machine = machine(&design.cluster, file).unwrap_or_default().to_owned();
                let awaited = awaited(design, roster, &machine);
                let (node, storage, file) = (name.clone(), storage.clone(), file.clone());
                all.push(Orphan { node, storage, file, machine, awaited });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{file, keyed};

    #[test]
    fn a_seed_tells_its_machine() {
        let file = keyed(&file("prod", "prod-lb-1", 3000), "ssh-ed25519 AAAA");
        assert_eq!((machine("prod", &file), machine("pro", &file)), (Some("prod-lb-1"), None));
    }
}
