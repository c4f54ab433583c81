//! Cloud images: which file a template is made from, and its digest.

use cluster_doc::spec::Image;
use sha2::{Sha256, Sha512};
use stage::Failure;

use crate::digest::{digest, hex, listed};
use crate::pve::Trust;
use crate::roster::{Roster, State};
use crate::seen::Seen;
use crate::template;
use crate::want::{Design, Want};

/// A list of digests larger than this is none.
const LARGEST: usize = 1 << 20;

/// The last part of the image's address.
fn file_of(image: &Image) -> Option<&str> {
    image.url.as_deref()?.rsplit('/').next().filter(|f| !f.is_empty())
}

/// Finds out the image's digest, where a template is to be made of it.
///
/// # Errors
/// Exit 5 when the list cannot be fetched, 4 when it does not name the image.
pub async fn observe(want: &Want, seen: &mut Seen) -> Result<(), Failure> {
    let Some(image) = &want.design.image else { return Ok(()) };
    if let Some(file) = image.file.as_ref().filter(|_| image.url.is_none()) {
        if needed(&want.design, seen) {
            seen.digest = Some(own(want, image, &file.to_string()).await?);
        }
        return Ok(());
    }
    if let Some(checksum) = &image.checksum {
        seen.digest = digest(checksum).ok();
        return Ok(());
    }
    let (Some(url), Some(file)) = (&image.checksum_url, file_of(image)) else { return Ok(()) };
    if !needed(&want.design, seen) {
        return Ok(());
    }
    if let Some(resolved) = resolved(&want.design, seen) {
        seen.digest = Some(resolved);
        return Ok(());
    }
    let doing = format!("cannot fetch the digests of the image from {url}");
    let hint = "give the digest in spec.proxmox.template.image.checksum";
    let list = crate::pve::fetch(url, &Trust::System, LARGEST).await;
    let list = list.map_err(|why| Failure::transient(&doing).caused_by(&why).hint(hint))?;
    match listed(&list, file) {
        Some(found) => seen.digest = Some(found),
        None => {
            let why = format!("it does not name {file}");
            return Err(Failure::precondition(doing).because(why).hint(hint));
        }
    }
    Ok(())
}

/// The digest that the list gave when the first template was made: the others are made of the same image, also when
/// the list speaks of a newer one since.
fn resolved(design: &Design, seen: &Seen) -> Option<(String, String)> {
    if design.refresh_templates {
        return None;
    }
    let known = seen.guests.iter().find_map(|guest| template::made_of(design, guest));
    known.and_then(|known| digest(known).ok())
}

/// The digest of a file of the operator's, compared with the document's where that gives one.
async fn own(want: &Want, image: &Image, file: &str) -> Result<(String, String), Failure> {
    let doing = format!("cannot use the image {file}");
    let said = image.checksum.as_ref().and_then(|c| digest(c).ok());
    let long = said.as_ref().is_some_and(|(algorithm, _)| algorithm == "sha512");
    let path = want.site.absolute(std::path::Path::new(file));
    let read = move || -> std::io::Result<String> {
        let mut reader = std::fs::File::open(path)?;
        if long { hash::<Sha512>(&mut reader) } else { hash::<Sha256>(&mut reader) }
    };
    let found = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
    let found = found.map_err(|e| Failure::precondition(&doing).caused_by(&e))?;
    let found = (if long { "sha512" } else { "sha256" }.to_owned(), found);
    match said {
        Some(said) if said != found => Err(Failure::precondition(doing)
            .because(format!(
                "its digest is {}:{}, and the document says {}:{}",
                found.0, found.1, said.0, said.1
            ))
            .hint("fetch it anew, or correct spec.proxmox.template.image.checksum")),
        _ => Ok(found),
    }
}

fn hash<D: sha2::Digest + std::io::Write>(reader: &mut std::fs::File) -> std::io::Result<String> {
    let mut digest = D::new();
    std::io::copy(reader, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

/// True when machines are missing and a node has no template.
fn needed(design: &Design, seen: &Seen) -> bool {
    let missing =
        Roster::of(design, seen).machines.iter().any(|(_, state)| matches!(state, State::Missing(_)));
    let online = |node: &&String| seen.nodes.get(*node).is_some_and(|n| n.online);
    (missing || design.refresh_templates)
        && design
            .nodes
            .iter()
            .filter(online)
            .any(|n| design.refresh_templates || template::existing(design, seen, n).is_err())
}
