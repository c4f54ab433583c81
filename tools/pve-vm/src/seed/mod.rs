//! The seed of a first boot: what cloud-init reads from a small CD, when neither a guest agent nor snippets are
//! there; pure.
//!
//! The data source is cloud-init's NoCloud: a volume labelled `cidata`. Its files are YAML, of which JSON is a
//! part, so that no value can break out of its place.

pub mod iso;
mod orphan;

use sha2::{Digest as _, Sha256};

use crate::options::{Options, Properties, is_drive};
use crate::seen::{Guest, Seen};
use crate::want::Design;

pub use orphan::{Orphan, orphans};

/// How the file names of a cluster's seeds begin. Names hold no dots, so that no other cluster's begin so.
pub fn prefix(cluster: &str) -> String {
    format!("kubeline-seed.{cluster}.")
}

/// The file name of a machine's seed.
pub fn file(cluster: &str, machine: &str, vmid: u32) -> String {
    format!("{}{machine}.{vmid}.iso", prefix(cluster))
}

/// The file name of a seed with this host key: two runs at once do not write over each other's.
pub fn keyed(file: &str, public: &str) -> String {
    let digest = crate::digest::hex(&Sha256::digest(public));
    let stem = file.strip_suffix(".iso").unwrap_or(file);
    format!("{stem}.{}.iso", digest.get(..12).unwrap_or_default())
}

/// The drive that holds a seed of this cluster: its option, the storage and the file.
pub fn attached(cluster: &str, options: &Options) -> Option<(String, String, String)> {
    let drives = options.iter().filter(|(option, _)| is_drive(option));
    let mut found = drives.filter_map(|(option, value)| {
        let volume = Properties::parse(value).head?;
        let (storage, file) = volume.split_once(":iso/")?;
        file.starts_with(&prefix(cluster)).then(|| (option.clone(), storage.to_owned(), file.to_owned()))
    });
    found.next()
}

/// The seed that a guest has in its drive and that is there: storage and file.
pub fn of(design: &Design, seen: &Seen, guest: &Guest) -> Option<(String, String)> {
    let (_, storage, file) = attached(&design.cluster, guest.config.as_ref()?)?;
    let found = seen.nodes.get(&guest.node).and_then(|n| n.storages.get(&storage));
    found.is_some_and(|s| s.seeds.contains(&file)).then_some((storage, file))
}

/// Where a seed is put in: in the cloud-init drive's place, which would be a second data source, or a free one.
pub fn slot(options: &Options) -> String {
    let cd = |option: &str| {
        options.get(option).is_none_or(|value| Properties::parse(value).get("media") == Some("cdrom"))
    };
    let own = crate::options::cloud_init(options).map(str::to_owned);
    own.or_else(|| ["ide2", "ide0", "ide1", "ide3"].into_iter().find(|s| cd(s)).map(str::to_owned))
        .unwrap_or_else(|| "ide2".to_owned())
}

/// The storage for seeds on a node: the document's, else the image's, else the first that takes ISO images.
///
/// # Errors
/// Why there is none.
pub fn storage(design: &Design, seen: &Seen, node: &str) -> Result<String, String> {
    let empty = std::collections::BTreeMap::new();
    let storages = seen.nodes.get(node).map_or(&empty, |n| &n.storages);
    let takes = |name: &&String| storages.get(*name).is_some_and(|s| s.content.iter().any(|c| c == "iso"));
    if let Some(named) = &design.seeds {
        return match takes(&named) {
            true => Ok(named.clone()),
            false => {
                Err(format!("the storage {named} takes no seeds there (pvesm set {named} --content ...,iso)"))
            }
        };
    }
    let image = design.image.as_ref().map(|i| i.storage.to_string());
    let found = image.as_ref().filter(takes).or_else(|| storages.keys().find(takes)).cloned();
    found.ok_or_else(|| {
        let name = image.as_deref().unwrap_or("local");
        format!("no storage there takes seeds for the first boot (pvesm set {name} --content ...,iso)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_found_by_its_cluster_alone() {
        let options: Options = [
            ("ide2", "local:iso/kubeline-seed.prod.prod-lb-1.3000.iso,media=cdrom,size=60K"),
            ("scsi0", "local-lvm:vm-3000-disk-0,size=8G"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let found = attached("prod", &options).unwrap();
        assert_eq!(found, ("ide2".into(), "local".into(), file("prod", "prod-lb-1", 3000)));
        assert_eq!(attached("pro", &options), None);
        assert_eq!(slot(&options), "ide2");
    }
}
