//! Upstream files that are fetched: pinned by us, or as the document overrides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cluster_doc::spec::Artifact;
use futures::future::try_join_all;
use kube_apply::Artefact;
use stage::{Ctx, Failure, Site};

use crate::access::Access;
use crate::failure::failure;

/// An upstream file as this release knows it.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// The name by which `spec.artifacts` overrides it and a bundle holds it.
    pub name: &'static str,
    /// Where it is published.
    pub url: &'static str,
    /// Its SHA-256.
    pub sha256: &'static str,
    /// Its size in bytes.
    pub size: u64,
}

/// What the artefacts hold, by name.
pub type Texts = BTreeMap<String, String>;

/// The artefacts as the document wants them: the pins, or `spec.artifacts` of the same name.
pub fn artefacts(pins: &[Pin], overrides: Option<&Vec<Artifact>>) -> Vec<Artefact> {
    let over = |name: &str| overrides.into_iter().flatten().find(|o| o.name.as_str() == name);
    pins.iter()
        .map(|pin| match over(pin.name) {
            Some(own) => Artefact {
                name: pin.name.to_owned(),
                url: own.url.clone(),
                sha256: own.sha256.as_str().to_owned(),
                size: None,
            },
            None => Artefact {
                name: pin.name.to_owned(),
                url: pin.url.to_owned(),
                sha256: pin.sha256.to_owned(),
                size: Some(pin.size),
            },
        })
        .collect()
}

/// Fetches all of them, side by side: from the cache, the bundle or their addresses.
///
/// # Errors
/// Exit 4 for a wrong digest or a bundle without it, 5 when the site cannot be reached.
pub async fn fetch_all(wanted: &[Artefact], access: &Access, ctx: &Ctx) -> Result<Texts, Failure> {
    let cache = cache(ctx.site());
    let one = async |artefact: &Artefact| {
        ctx.waiting(format!("{} from {}", artefact.name, artefact.url));
        let bytes = kube_apply::fetch(artefact, &cache, access.bundle.as_deref())
            .await
            .map_err(|error| failure(format!("cannot have the artefact {}", artefact.name), &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            Failure::precondition(format!("cannot read the artefact {}", artefact.name)).caused_by(&error)
        })?;
        Ok::<_, Failure>((artefact.name.clone(), text))
    };
    Ok(try_join_all(wanted.iter().map(one)).await?.into_iter().collect())
}

/// The folder of what was fetched (XDG base directories).
fn cache(site: &Site) -> PathBuf {
    let base = site
        .env("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| site.env("HOME").map(|home| PathBuf::from(home).join(".cache")));
    match base {
        Some(base) => site.absolute(&base.join("kubeline")),
        None => site.absolute(".cache/kubeline".as_ref()),
    }
}
