//! How far a long task has come: the newest line of its log that tells it.

use std::time::{Duration, Instant};

use stage::Ctx;

use super::client::Client;
use super::request::Request;
use super::upid::Upid;
use super::values::{list, number, text};

/// A task is long after this; its log is read as often.
const LONG: Duration = Duration::from_secs(2);
/// Where no terminal shows it, a line tells it as often as this.
const LINE: Duration = Duration::from_secs(30);
/// What a line of wget's stands for, in KiB: 32 dots of a MiB each (wget, `--progress=dot:giga`, as pve-common's
/// Tools.pm has it).
const DOTS: u64 = 32 << 10;

/// How far a task has come.
pub(super) struct Far {
    looked: Instant,
    told: Instant,
    lines: u64,
    /// In words; nothing is known yet without.
    pub(super) words: Option<String>,
}

impl Far {
    pub(super) fn new() -> Far {
        let now = Instant::now();
        Far { looked: now, told: now, lines: 0, words: None }
    }

    /// Reads on in the log of a task that takes its time. What cannot be read is not worth a failure.
    pub(super) async fn look(&mut self, client: &Client, ctx: &Ctx, upid: &Upid, path: &str) {
        if self.looked.elapsed() < LONG {
            return;
        }
        self.looked = Instant::now();
        let request = Request::get(format!("{path}/log")).with("start", self.lines).with("limit", 500);
        let Ok(log) = client.send(&request).await else { return };
        for line in list(&log) {
            self.lines = self.lines.max(number(line, "n").unwrap_or(0));
            self.words = text(line, "t").and_then(|line| words(&line)).or(self.words.take());
        }
        if let (Some(words), false, true) = (&self.words, ctx.shows_bars(), self.told.elapsed() > LINE) {
            self.told = Instant::now();
            ctx.say(&format!("{} of {} on node {}: {words}", upid.kind, upid.id, upid.node));
        }
    }
}

/// What a line tells of how far a task is: `transferred 1.2 GiB of 32.0 GiB (3.91%)` of a copied disk (qemu-server,
/// QemuServer/QemuImage.pm), or wget's offset, dots and percent of a download.
fn words(line: &str) -> Option<String> {
    if let Some(far) = line.trim().strip_prefix("transferred ").filter(|far| far.contains(" of ")) {
        return Some(far.to_owned());
    }
    let mut parts = line.split_whitespace();
    let from: u64 = parts.next()?.strip_suffix('K')?.parse().ok()?;
    let percent = parts.clone().find_map(|p| p.strip_suffix('%')?.parse::<u8>().ok());
    let dots = parts.next()?;
    let mib = (from + DOTS) >> 10;
    (!dots.is_empty() && dots.bytes().all(|b| b == b'.' || b == b',')).then(|| match percent {
        Some(percent) => format!("{mib} MiB ({percent}%)"),
        None => format!("{mib} MiB"),
    })
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn lines_that_tell_how_far_it_is() {
        for (line, far) in [
            ("transferred 1.2 GiB of 32.0 GiB (3.91%)", Some("1.2 GiB of 32.0 GiB (3.91%)")),
            ("     0K ........ ........ ........ ........  9%  110M 3s", Some("32 MiB (9%)")),
            (" 98304K ........ ........ ........ ........ 37%  105M 2s", Some("128 MiB (37%)")),
            (" 98304K ........ ........ ........ ........  105M", Some("128 MiB")),
            ("downloading https://cloud.example/debian.qcow2 to /var/lib/vz/import/debian.qcow2", None),
            ("HTTP request sent, awaiting response... 200 OK", None),
            ("Length: 441450496 (421M)", None),
            ("create full clone of drive scsi0 (local-lvm:base-9000-disk-0)", None),
            ("4K is no progress", None),
            ("", None),
        ] {
            assert_eq!(words(line).as_deref(), far, "{line}");
        }
    }
}
