//! Numbers with a range of their own.

use std::fmt;

use super::{number, word};

number! {
    /// A TCP port.
    Port(u16), 1..=65535
}

number! {
    /// A VRRP virtual router id (RFC 5798, 5.2.3).
    RouterId(u8), 1..=255
}

number! {
    /// An IEEE 802.1Q VLAN id, as Proxmox takes it.
    Vlan(u16), 1..=4094
}

number! {
    /// The id of a guest at Proxmox (its schema: 100 to 999999999).
    VmId(u32), 100..=999_999_999
}

/// An inclusive range of guest ids that belongs to this cluster alone, such as `3000-3099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmIdRange {
    first: VmId,
    last: VmId,
}

impl VmIdRange {
    fn parse(text: &str) -> Result<VmIdRange, String> {
        let wrong = || "is no range of VM ids; write for example \"3000-3099\"".to_owned();
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let id = |s: &str| s.parse().ok().and_then(VmId::new).ok_or_else(wrong);
        let (first, last) = (id(first)?, id(last)?);
        if last < first {
            return Err(format!("ends before it begins; did you mean \"{last}-{first}\"?"));
        }
        Ok(VmIdRange { first, last })
    }

    /// The n-th id, from 0.
    pub fn nth(&self, n: u32) -> Option<VmId> {
        let id = self.first.get().checked_add(n)?;
        (id <= self.last.get()).then_some(id).and_then(VmId::new)
    }

    /// How many ids it holds.
    pub fn len(&self) -> u32 {
        self.last.get() - self.first.get() + 1
    }

    /// Never: a range holds one id at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// True when the id is in the range.
    pub fn contains(&self, id: VmId) -> bool {
        self.first <= id && id <= self.last
    }
}

impl fmt::Display for VmIdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

word!(VmIdRange, example "3000-3099");
