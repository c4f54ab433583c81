//! A /24 of the loopback range for one lab, so that many labs run side by side.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A network `127.x.y.0/24` that belongs to this lab as long as the value lives.
#[derive(Debug)]
pub struct Subnet {
    base: [u8; 2],
    // Holding a listener on .255 is the claim: the kernel gives it to one process and takes it back.
    _claim: Option<TcpListener>,
}

impl Subnet {
    /// Claims a free network, at random.
    ///
    /// # Errors
    /// When 1000 tries found none free.
    pub fn claim() -> io::Result<Subnet> {
        for _ in 0..1000 {
            let base = [rand::random_range(32..250), rand::random_range(1..250)];
            let at = Ipv4Addr::new(127, base[0], base[1], 254);
            if let Ok(claim) = TcpListener::bind((at, 1025)) {
                return Ok(Subnet { base, _claim: Some(claim) });
            }
        }
        Err(io::Error::other("no free 127.x.y.0/24 for a lab"))
    }

    /// The network that a document names, without a claim: `127.30.0` is `fixed(30, 0)`.
    pub fn fixed(x: u8, y: u8) -> Subnet {
        Subnet { base: [x, y], _claim: None }
    }

    /// The host with this last octet.
    pub fn host(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.base[0], self.base[1], last)
    }

    /// The network in CIDR notation.
    pub fn cidr(&self) -> String {
        format!("127.{}.{}.0/24", self.base[0], self.base[1])
    }
}
