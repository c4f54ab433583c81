//! The archives that containers are made from.

/// What containers are made from, as the document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A volume that is there.
    Volume(String),
    /// An archive that the node downloads.
    Download {
        /// Where from.
        url: String,
        /// The digest: algorithm and hex digits.
        digest: (String, String),
        /// The storage for it.
        storage: String,
    },
}

/// The endings that Proxmox takes for an archive (pve-storage, Storage.pm: `VZTMPL_EXT_RE_1`) and that its tar reads.
const ENDINGS: [&str; 3] = [".tar.zst", ".tar.xz", ".tar.gz"];

impl Origin {
    /// The storage.
    pub fn storage(&self) -> &str {
        match self {
            Origin::Volume(volume) => volume.split(':').next().unwrap_or_default(),
            Origin::Download { storage, .. } => storage,
        }
    }

    /// The file on the storage: with the digest where we download it, so that another archive is another file.
    pub fn file(&self) -> String {
        match self {
            Origin::Volume(volume) => volume.split_once('/').map_or("", |(_, file)| file).to_owned(),
            Origin::Download { url, digest, .. } => {
                let short: String = digest.1.chars().take(12).collect();
                let (stem, ending) = parts(url).unwrap_or(("template", ENDINGS[0]));
                format!("{stem}-{short}{ending}")
            }
        }
    }

    /// The volume.
    pub fn volume(&self) -> String {
        match self {
            Origin::Volume(volume) => volume.clone(),
            Origin::Download { storage, .. } => format!("{storage}:vztmpl/{}", self.file()),
        }
    }
}

/// Stem and ending of the file that an address names, in letters that Proxmox takes.
pub fn parts(url: &str) -> Option<(&str, &'static str)> {
    let file = url.rsplit('/').next()?;
    let ending = ENDINGS.into_iter().find(|e| file.ends_with(e))?;
    let stem = file.strip_suffix(ending)?;
    let plain = !stem.is_empty()
        && !stem.starts_with('.')
        && stem.chars().all(|c| c.is_ascii_alphanumeric() || "-.+=_".contains(c));
    plain.then_some((stem, ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_has_its_digest_in_its_name() {
        let origin = Origin::Download {
            url: "https://mirror.example/images/debian-13-standard_13.1-2_amd64.tar.zst".into(),
            digest: ("sha512".into(), "ab".repeat(64)),
            storage: "local".into(),
        };
        assert_eq!(origin.volume(), "local:vztmpl/debian-13-standard_13.1-2_amd64-abababababab.tar.zst");
        assert_eq!(parts("https://x/y.tar"), None);
        assert_eq!(parts("https://x/a%20b.tar.gz"), None);
        let volume = Origin::Volume("local:vztmpl/debian.tar.zst".into());
        assert_eq!((volume.storage(), volume.file().as_str()), ("local", "debian.tar.zst"));
    }
}
