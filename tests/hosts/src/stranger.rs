//! A VRRP router that is none of ours: it sends adverts to everybody.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pnet_datalink::{Channel, Config};

use crate::Result;

/// Sends adverts until it is dropped.
pub struct Stranger {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stranger {
    /// A router at this address with this id.
    ///
    /// # Errors
    /// No raw socket may be opened on the bridge.
    pub fn start(address: Ipv4Addr, router_id: u8) -> Result<Stranger> {
        let all = pnet_datalink::interfaces();
        let bridge = all.iter().find(|i| i.name == "br0").ok_or("there is no br0")?;
        let Channel::Ethernet(mut out, _) = pnet_datalink::channel(bridge, Config::default())? else {
            return Err("no channel of Ethernet frames".into());
        };
        let stop = Arc::<AtomicBool>::default();
        let (stopped, frame) = (stop.clone(), advert(address, router_id));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // One that is not sent is followed by another.
                let _ = out.send_to(&frame, None);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Ok(Stranger { stop, thread: Some(thread) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An advert of version 2 (RFC 3768, section 5.1) for no address, in IPv4 (RFC 791) to VRRP's group.
fn advert(address: Ipv4Addr, router_id: u8) -> Vec<u8> {
    let mut vrrp = vec![0x21, router_id, 100, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let sum = checksum(&vrrp);
    vrrp[6..8].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 255, 112, 0, 0];
    ip.extend(address.octets());
    ip.extend([224, 0, 0, 18]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    // The group's MAC address, and the virtual router's own.
    let mut frame = vec![0x01, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, router_id, 0x08, 0];
    frame.extend(ip);
    frame.extend(vrrp);
    frame
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or([0, 0], |sum| (!sum).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_checksums_are_right() {
        let frame = advert(Ipv4Addr::new(10, 99, 0, 77), 30);
        assert_eq!(frame.len(), 50);
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
        assert_eq!(checksum(&frame[34..]), [0, 0]);
    }
}
