//! Which release of Calico, and which versions of Kubernetes it is for.

use std::ops::RangeInclusive;

use addon::Pin;
use cluster_doc::calico::{RELEASES, minors};

/// The release of Calico, with its operator v1.42.3.
pub(crate) const CALICO: &str = "v3.32.1";
/// The operator's manifest, of the tag v3.32.1 of projectcalico/calico, as are the others.
pub(crate) const OPERATOR: Pin = Pin {
    name: "tigera-operator",
    url: "https://raw.githubusercontent.com/projectcalico/calico/v3.32.1/manifests/tigera-operator.yaml",
    sha256: "f18e073794207d372606bc3ea6f8fd73972f86d6828f4ba666dfe0d4aa8ab07f",
    size: 19_660,
};

/// Calico without the operator, with VXLAN.
pub(crate) const VXLAN: Pin = Pin {
    name: "calico-vxlan",
    url: "https://raw.githubusercontent.com/projectcalico/calico/v3.32.1/manifests/calico-vxlan.yaml",
    sha256: "c2ab4f9a4ecde01d66e6f040d6745cd7f174d5ded573164c809ffb9f40a9d566",
    size: 349_525,
};

/// Calico without the operator, with BGP.
pub(crate) const BGP: Pin = Pin {
    name: "calico",
    url: "https://raw.githubusercontent.com/projectcalico/calico/v3.32.1/manifests/calico.yaml",
    sha256: "a1df919d9721cf667accdc3e72848911b0cb25cfab7d2478ad0c996302c95744",
    size: 349_572,
};

/// What the operator v1.42.3 runs for our Installation.
pub(crate) const OPERANDS: [&str; 7] =
    ["cni", "csi", "kube-controllers", "node", "node-driver-registrar", "pod2daemon-flexvol", "typha"];

/// Why this release is not for that minor version of Kubernetes, with both ranges; none when it is.
pub(crate) fn unfit(minor: u16) -> Option<String> {
    let ours = minors(CALICO)?;
    if ours.contains(&minor) {
        return None;
    }
    let range = |range: &RangeInclusive<u16>| format!("1.{} to 1.{}", range.start(), range.end());
    // The newest of those that would do.
    let other = RELEASES.iter().rev().find(|(_, fits)| fits.contains(&minor));
    let other = other
        .map(|(name, fits)| format!("; Calico {} is for {}", name.trim_start_matches('v'), range(fits)))
        .unwrap_or_default();
    Some(format!("Calico {CALICO} is for Kubernetes {}{other}", range(&ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ranges_are_named() {
        assert!(minors(CALICO).is_some(), "the table lacks the release that is installed");
        assert_eq!(unfit(36), None);
        let why = unfit(37).unwrap();
        assert_eq!(why, "Calico v3.32.1 is for Kubernetes 1.34 to 1.36; Calico 3.33 is for 1.35 to 1.37");
        assert_eq!(unfit(40).unwrap(), "Calico v3.32.1 is for Kubernetes 1.34 to 1.36");
    }
}
