//! Addresses, ranges and networks.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::word;
use crate::Refusals;
use crate::read::{FromDoc, Node};

impl FromDoc for Ipv4Addr {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        let parsed = node.value.as_str().and_then(|s| s.parse().ok());
        parsed.or_else(|| {
            node.refuse(
                wrong,
                format!("{} is no IPv4 address; write for example \"10.30.0.10\"", node.shown()),
            )
        })
    }
}

/// An IPv4 network, such as `10.30.0.0/24`; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(Ipv4Net);

impl Cidr {
    fn parse(text: &str) -> Result<Cidr, String> {
        let net: Ipv4Net =
            text.parse().map_err(|_| "is no network; write for example \"10.30.0.0/24\"".to_owned())?;
        if net.trunc() != net {
            return Err(format!("has host bits set; did you mean \"{}\"?", net.trunc()));
        }
        Ok(Cidr(net))
    }

    /// The network as ipnet's type.
    pub fn net(&self) -> Ipv4Net {
        self.0
    }

    /// The length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }

    /// True when the address is in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }

    /// True when the address is the network's own or its broadcast address.
    pub fn reserves(&self, address: Ipv4Addr) -> bool {
        self.0.prefix_len() < 31 && (address == self.0.network() || address == self.0.broadcast())
    }

    /// True when the two share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.0.network()) || other.contains(self.0.network())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

word!(Cidr, example "10.30.0.0/24");

/// One address or an inclusive range, such as `10.30.0.11-10.30.0.13`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    fn parse(text: &str) -> Result<AddressRange, String> {
        let wrong = || "is no address range; write for example \"10.30.0.11-10.30.0.13\"".to_owned();
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |s: &str| s.trim().parse::<Ipv4Addr>().map_err(|_| wrong());
        let (first, last) = (address(first)?, address(last)?);
        if last < first {
            return Err(format!("ends before it begins; did you mean \"{last}-{first}\"?"));
        }
        Ok(AddressRange { first, last })
    }

    /// The n-th address, from 0.
    pub fn nth(&self, n: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(u32::from(self.first).checked_add(n)?);
        (address <= self.last).then_some(address)
    }

    /// How many addresses it holds.
    pub fn len(&self) -> u64 {
        u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1
    }

    /// Never: a range holds one address at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The first address.
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// The last address.
    pub fn last(&self) -> Ipv4Addr {
        self.last
    }

    /// True when the address is in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    /// True when the two share an address.
    pub fn overlaps(&self, other: &AddressRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

word!(AddressRange, example "10.30.0.11-10.30.0.13");
