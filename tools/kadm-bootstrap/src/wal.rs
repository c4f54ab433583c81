//! How long etcd's log takes to keep a write, as etcd itself counts it: the disk under load, not before it.

use remote::Command;
use stage::{Ctx, Failure};

use crate::World;
use crate::probed::{SLOW, Wal};
use crate::seen::Seen;
use crate::want::Want;

/// Prints the histogram of etcd's fsyncs from its metrics listener.
///
/// * No arguments. The port is that of `--listen-metrics-urls` in the manifest, which kubeadm always sets; plain HTTP on
///   127.0.0.1. perl-base is on every Debian and Ubuntu (Essential: yes), curl is not.
/// * Exit: 0. An etcd that does not answer within 5 s prints nothing.
pub const SCRIPT: &str = r#"# kubeline: kadm-wal v1
set -u
m=/etc/kubernetes/manifests/etcd.yaml
p=$(sed -n 's,.*--listen-metrics-urls=http://[^,]*:\([0-9][0-9]*\).*,\1,p' "$m" 2>/dev/null | head -n 1)
[ -n "$p" ] || exit 0
perl - "$p" <<'END' 2>/dev/null
use strict;
use warnings;
use Socket;
alarm 5;
socket(my $s, PF_INET, SOCK_STREAM, 0) or exit 1;
connect($s, sockaddr_in(shift, inet_aton('127.0.0.1'))) or exit 1;
syswrite($s, "GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
while (<$s>) { print if /^etcd_disk_wal_fsync_duration_seconds_bucket\{/ }
END
exit 0
"#;

/// Fewer fsyncs than this tell nothing of a 99th percentile.
const ENOUGH: u64 = 100;

/// Asks every control plane's etcd, for `check` alone.
///
/// # Errors
/// Exit 5 when a machine fails in the middle of it.
pub async fn observe(world: &World, want: &Want, seen: &mut Seen, ctx: &Ctx) -> Result<(), Failure> {
    let asked = |name: &str| {
        let member = seen.cluster.as_ref().is_some_and(|c| c.etcd.iter().any(|m| m.name == name));
        ctx.verb() == "check" && member && want.control_planes().any(|n| n.name == name)
    };
    let due: Vec<String> = seen.hosts.keys().filter(|n| asked(n)).cloned().collect();
    if due.is_empty() {
        return Ok(());
    }
    let command = Command::sh(SCRIPT).sudo().title("ask etcd for its metrics");
    let found = world.fleet.each(ctx, "ask etcd on", |host| {
        let command = due.iter().any(|n| n == host.name()).then(|| command.clone());
        async move {
            match command {
                Some(command) => host.ok(&command).await.map(|output| read(&output.text())),
                None => Ok(None),
            }
        }
    });
    for (name, wal) in found.await?.of {
        if let Some(host) = seen.hosts.get_mut(&name) {
            host.wal = wal;
        }
    }
    Ok(())
}

/// Reads a histogram in Prometheus' text format: cumulative counts by upper bounds in seconds. The percentile is
/// interpolated within its bucket, as `histogram_quantile` does; beyond the last bound it is that bound.
pub fn read(text: &str) -> Option<Wal> {
    let bucket = |line: &str| {
        let rest = line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"")?;
        let (bound, count) = rest.split_once("\"}")?;
        let (bound, count): (f64, f64) = (bound.parse().ok()?, count.trim().parse().ok()?);
        (count.is_finite() && count >= 0.0 && bound >= 0.0).then_some((bound, count))
    };
    let mut buckets: Vec<(f64, f64)> = text.lines().filter_map(bucket).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, all) = *buckets.last()?;
    let rank = all * 0.99;
    let mut before = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= rank && bound.is_finite() {
            let share = if count > before.1 { (rank - before.1) / (count - before.1) } else { 1.0 };
            before.0 += (bound - before.0) * share;
            break;
        }
        if bound.is_finite() {
            before = (bound, count);
        }
    }
    Some(Wal { count: all as u64, p99: (before.0 * 1e6).round() as u64 })
}

/// The figure, for people.
pub fn figure(wal: &Wal) -> String {
    format!("{:.1} ms (99th percentile of {} fsyncs since etcd began)", wal.p99 as f64 / 1000.0, wal.count)
}

/// What is to be said of a disk that is too slow for etcd.
pub fn slow(wal: &Wal) -> Option<String> {
    (wal.count >= ENOUGH && wal.p99 > SLOW).then(|| {
        format!("its etcd takes {} to keep a write, and wants less than {} ms", figure(wal), SLOW / 1000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(&str, u64)]) -> String {
        let line = |(le, n): &(&str, u64)| {
            format!("etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"{le}\"}} {n}\n")
        };
        counts.iter().map(line).collect()
    }

    #[test]
    fn a_percentile_is_read_from_buckets() {
        let quick = histogram(&[("0.001", 50), ("0.002", 990), ("0.004", 1000), ("+Inf", 1000)]);
        assert_eq!(read(&quick), Some(Wal { count: 1000, p99: 2000 }));
        assert_eq!(slow(&read(&quick).unwrap()), None);
        let ill = histogram(&[("0.008", 900), ("0.016", 980), ("0.032", 1000), ("+Inf", 1000)]);
        let wal = read(&ill).unwrap();
        assert_eq!(wal.p99, 24_000);
        assert!(slow(&wal).unwrap().contains("24.0 ms (99th percentile of 1000"));
        // Beyond the last bound, large counts in Go's notation, and what is none.
        let beyond = histogram(&[("4.096", 10), ("8.192", 20), ("+Inf", 1000)]);
        assert_eq!(read(&beyond).unwrap().p99, 8_192_000);
        assert_eq!(
            read("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1.2e+06\n").unwrap().count,
            1_200_000
        );
        assert_eq!(read("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"x\"} 1\nnothing\n"), None);
        assert_eq!(slow(&Wal { count: 99, p99: 50_000 }), None);
    }

    /// The script runs here: without a manifest it says nothing.
    #[test]
    fn the_script_runs_here() {
        let output = std::process::Command::new("sh").args(["-c", SCRIPT]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(?s)(etcd_disk_wal_fsync_duration_seconds_bucket.le=\"[0-9.+Infe-]{0,6}\". [0-9.e+-]{0,9}\n){0,4}.{0,40}") {
            let _ = read(&text);
        }
    }
}
