//! Who answers for an address, asked of the whole segment every 10 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pnet_datalink::{Channel, Config, MacAddr};

use crate::Result;

/// How often the segment is asked.
pub const EVERY: Duration = Duration::from_millis(10);
/// Answers of one machine with no longer pause than this belong together: some may be late or lost on a busy machine.
const PAUSE: Duration = Duration::from_millis(60);

/// Watches an address until it is stopped.
pub struct Watch {
    answers: Arc<Mutex<Vec<(Instant, MacAddr)>>>,
    late: Late,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    since: Instant,
}

/// When a question was due and could not be asked in time, and how late it was.
type Late = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// A time in which one machine answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Whose interface it was.
    pub mac: MacAddr,
    /// The first answer.
    pub from: Instant,
    /// The last one.
    pub to: Instant,
}

impl Watch {
    /// Starts to ask for `address` on the bridge.
    ///
    /// # Errors
    /// There is no bridge, or no raw socket may be opened.
    pub fn start(address: Ipv4Addr) -> Result<Watch> {
        let all = pnet_datalink::interfaces();
        let bridge = all.iter().find(|i| i.name == "br0").ok_or("there is no br0")?;
        let own = bridge.mac.ok_or("br0 has no MAC address")?;
        let config = Config { read_timeout: Some(Duration::from_millis(2)), ..Config::default() };
        let Channel::Ethernet(mut out, mut from) = pnet_datalink::channel(bridge, config)? else {
            return Err("no channel of Ethernet frames".into());
        };
        let (answers, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let late = Late::default();
        let (sink, stopped, stalls) = (answers.clone(), stop.clone(), late.clone());
        let question = question(own, address);
        let thread = std::thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let over = Instant::now().saturating_duration_since(next);
                if over > EVERY {
                    stalls.lock().unwrap_or_else(PoisonError::into_inner).push((next, over));
                }
                if Instant::now() >= next {
                    next += EVERY;
                    // A frame that is not sent is a sample less; silence is seen as such.
                    let _ = out.send_to(&question, None);
                }
                match from.next() {
                    Ok(frame) => {
                        if let Some(mac) = answer(frame, address) {
                            sink.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), mac));
                        }
                    }
                    Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Watch { answers, late, stop, thread: Some(thread), since: Instant::now() })
    }

    /// The times in which each machine answered, in the order of their beginnings.
    pub fn spans(&self) -> Vec<Span> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        join(&answers)
    }

    /// The longest time in which two machines answered, from `after` on.
    pub fn longest_overlap(&self, after: Instant) -> Duration {
        overlap(&self.spans(), after)
    }

    /// The longest time from `after` on in which this very watch was not let run: on a machine that is too busy for that,
    /// no daemon keeps its time either. Zero where every question was asked in its turn.
    pub fn stalled(&self, after: Instant) -> Duration {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.iter().filter(|(at, _)| *at >= after).map(|(_, over)| *over).max().unwrap_or_default()
    }

    /// The machines that answered from `after` on.
    pub fn answered(&self, after: Instant) -> BTreeSet<MacAddr> {
        self.spans().iter().filter(|s| s.to >= after).map(|s| s.mac).collect()
    }

    /// When it began.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An ARP request to everybody (RFC 826), asked from no address (RFC 5227, a probe): no cache learns from it.
fn question(own: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(own.octets());
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(own.octets());
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// Who says in this frame that the address is his: an ARP reply, or an announcement.
fn answer(frame: &[u8], address: Ipv4Addr) -> Option<MacAddr> {
    let arp = frame.get(..42)?;
    let claims = arp[12..14] == [0x08, 0x06] && arp[28..32] == address.octets();
    let mac = <[u8; 6]>::try_from(&arp[22..28]).ok()?;
    claims.then(|| MacAddr::from(mac))
}

fn join(answers: &[(Instant, MacAddr)]) -> Vec<Span> {
    let mut open: BTreeMap<MacAddr, Span> = BTreeMap::new();
    let mut done = Vec::new();
    for (at, mac) in answers {
        match open.get_mut(mac) {
            Some(span) if at.duration_since(span.to) <= PAUSE => span.to = *at,
            _ => done.extend(open.insert(*mac, Span { mac: *mac, from: *at, to: *at })),
        }
    }
    done.extend(open.into_values());
    done.sort_by_key(|s| s.from);
    done
}

fn overlap(spans: &[Span], after: Instant) -> Duration {
    let pairs = spans.iter().enumerate().flat_map(|(n, a)| spans[n + 1..].iter().map(move |b| (a, b)));
    let lengths = pairs.filter(|(a, b)| a.mac != b.mac).map(|(a, b)| {
        let (from, to) = (a.from.max(b.from).max(after), a.to.min(b.to));
        to.saturating_duration_since(from)
    });
    lengths.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn two_that_answer_at_once_are_seen() {
        let (a, b) = (MacAddr::new(2, 0, 0, 0, 0, 1), MacAddr::new(2, 0, 0, 0, 0, 2));
        let base = Instant::now();
        let mut all: Vec<(Instant, MacAddr)> = (0..20).map(|n| (at(base, n * 10), a)).collect();
        all.extend((15..40).map(|n| (at(base, n * 10 + 1), b)));
        all.sort();
        let spans = join(&all);
        assert_eq!(spans.len(), 2);
        assert_eq!(overlap(&spans, base), Duration::from_millis(39));
        assert_eq!(overlap(&spans, at(base, 170)), Duration::from_millis(20));
        let one: Vec<_> = all.iter().filter(|(_, mac)| *mac == a).copied().collect();
        assert_eq!(overlap(&join(&one), base), Duration::ZERO);
    }

    #[test]
    fn a_pause_ends_a_span() {
        let (a, base) = (MacAddr::new(2, 0, 0, 0, 0, 1), Instant::now());
        let spans = join(&[(at(base, 0), a), (at(base, 10), a), (at(base, 200), a)]);
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].to, at(base, 10));
    }

    #[test]
    fn only_claims_count() {
        let (own, vip) = (MacAddr::new(2, 0, 0, 0, 0, 9), Ipv4Addr::new(10, 99, 0, 10));
        let mut frame = question(own, vip);
        assert_eq!(frame.len(), 42);
        assert_eq!(answer(&frame, vip), None, "a question claims nothing");
        frame[21] = 2;
        frame[28..32].copy_from_slice(&vip.octets());
        assert_eq!(answer(&frame, vip), Some(own));
        assert_eq!(answer(&frame[..30], vip), None);
    }
}
