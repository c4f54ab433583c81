//! What differs: options to set and to take away, disks to grow, and why.

use std::collections::BTreeMap;

use crate::step::Net;

/// The difference of one guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Options to set.
    pub set: BTreeMap<String, String>,
    /// Where the first network card shall be.
    pub net: Option<Net>,
    /// Options that go.
    pub delete: Vec<String>,
    /// Disks to grow: option and GiB.
    pub grow: Vec<(String, u64)>,
    /// Options of the first boot that differ on a machine that has had it.
    pub frozen: Vec<String>,
    /// Disks that are larger than the document says.
    pub larger: Vec<String>,
    /// Changed options that wait for a restart of a running machine.
    pub restart: Vec<String>,
    /// Why, in few words.
    pub why: Vec<String>,
}

impl Change {
    /// True when an option is to be set or to go.
    pub fn configures(&self) -> bool {
        !self.set.is_empty() || self.net.is_some() || !self.delete.is_empty()
    }

    pub(crate) fn set(&mut self, option: &str, value: impl Into<String>) {
        self.set.insert(option.to_owned(), value.into());
    }
}
