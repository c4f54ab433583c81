//! What a client notices: a connection with a request every 10 ms, from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How often a client comes.
pub const EVERY: Duration = Duration::from_millis(10);
/// How long a client waits for its answer.
const PATIENCE: Duration = Duration::from_millis(400);

/// Clients that come until they are stopped.
pub struct Gaps {
    seen: Arc<Mutex<Vec<(Instant, bool)>>>,
    task: JoinHandle<()>,
}

/// What was noticed from some time on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noticed {
    /// The longest time between two clients in a row that were served, in ms.
    pub gap_ms: u64,
    /// How many clients came.
    pub clients: usize,
    /// How many of them were not served.
    pub lost: usize,
}

impl Gaps {
    /// Clients that want an answer over HTTP at this address and port.
    pub fn start(address: Ipv4Addr, port: u16) -> Gaps {
        let seen = Arc::<Mutex<Vec<(Instant, bool)>>>::default();
        let sink = seen.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            loop {
                tick.tick().await;
                let sink = sink.clone();
                tokio::spawn(async move {
                    let came = Instant::now();
                    let served = tokio::time::timeout(PATIENCE, served((address, port).into())).await;
                    let served = matches!(served, Ok(Ok(true)));
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push((came, served));
                });
            }
        });
        Gaps { seen, task }
    }

    /// What clients noticed that came after `since`, as far as they have their answers. A gap may have begun before.
    pub fn since(&self, since: Instant) -> Noticed {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.sort();
        notice(&seen, since)
    }

    /// True when the last so many clients that have an answer were all served.
    pub fn well(&self, last: usize) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // One that waits in vain is told of late: those that came since are no proof.
        seen.retain(|(came, _)| came.elapsed() > PATIENCE);
        seen.sort();
        seen.len() >= last && seen.iter().rev().take(last).all(|(_, served)| *served)
    }
}

impl Drop for Gaps {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `seen` in the order of coming.
fn notice(seen: &[(Instant, bool)], since: Instant) -> Noticed {
    let mut last: Option<Instant> = None;
    let mut gap = Duration::ZERO;
    for (came, served) in seen {
        let from = last.unwrap_or(*came);
        // An end without service is a gap as well, as far as it has been seen.
        if *came >= since {
            gap = gap.max(came.duration_since(from));
        }
        if *served || last.is_none() {
            last = Some(*came);
        }
    }
    let after: Vec<bool> =
        seen.iter().filter(|(came, _)| *came >= since).map(|(_, served)| *served).collect();
    Noticed {
        gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
        clients: after.len(),
        lost: after.iter().filter(|served| !**served).count(),
    }
}

/// One client: a connection, a request, the beginning of an answer that is good.
async fn served(at: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: gap\r\nConnection: close\r\n\r\n").await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status == b"HTTP/1.1 200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lies_between_two_that_were_served() {
        let base = Instant::now();
        let at = |ms: u64, served| (base + Duration::from_millis(ms), served);
        let seen = [at(0, true), at(10, true), at(20, false), at(30, false), at(40, true), at(50, true)];
        assert_eq!(notice(&seen, base), Noticed { gap_ms: 30, clients: 6, lost: 2 });
        let late = base + Duration::from_millis(30);
        assert_eq!(notice(&seen, late), Noticed { gap_ms: 30, clients: 3, lost: 1 }, "it began before");
        assert_eq!(
            notice(&seen[..4], base),
            Noticed { gap_ms: 20, clients: 4, lost: 2 },
            "it has no end yet"
        );
        assert_eq!(notice(&[], base), Noticed { gap_ms: 0, clients: 0, lost: 0 });
    }
}
