//! What a new machine's ports, disk and ways to the others are like, before one is touched.

use std::collections::{BTreeMap, BTreeSet};

use nom::IResult;
use nom::Parser as _;
use nom::bytes::complete::{tag, take_till1, take_until};
use nom::character::complete::{digit1, not_line_ending, space1};
use nom::combinator::{map_res, opt, rest};
use nom::sequence::{delimited, preceded, terminated};
use remote::Command;
use stage::{Ctx, Failure};

use crate::World;
use crate::fault::Fault;
use crate::kernel::cgroup_v1;
use crate::node::Node;
use crate::probed::{Fsync, Probed, SLOW};
use crate::seen::Seen;
use crate::want::Want;

/// Ports of a control plane's components on every machine's own addresses (kubernetes.io, "Ports and Protocols"; etcd's
/// metrics; kube-proxy; the approver's health check), beside the API server's.
const CONTROL_PLANE: [u16; 10] = [2379, 2380, 2381, 10246, 10248, 10249, 10250, 10256, 10257, 10259];
/// Those of a worker.
const WORKER: [u16; 4] = [10248, 10249, 10250, 10256];

/// Tells of listeners, of the disk, and of the ways to other machines, one fact a line.
///
/// * `$1` the folder that etcd will have, or empty: then the disk is left alone. The others are `ADDRESS:PORT`.
/// * The disk is tried as etcd's log uses it, with a file that has no name and leaves nothing: at most 1000 writes of 2300
///   bytes with fdatasync, for a second at most. perl-base is on every Debian and Ubuntu (Essential: yes).
/// * Each way is tried for 3 s at most, all at once. Whether something listens is not asked: a refusal is an answer too.
/// * Exit: 0. What could not be tried is not told.
pub const PROBE: &str = r#"# kubeline: kadm-probe v1
set -u
export LC_ALL=C
disk=$1
shift
ss -Hltnp 2>/dev/null | sed 's/^/listen /'
[ -z "$disk" ] || perl - "$disk" <<'END' 2>/dev/null
use strict;
use warnings;
use Fcntl;
use POSIX ();
# The numbers of fdatasync and clock_gettime, and O_TMPFILE: perl-base has no other way to them.
my %known = (x86_64 => [75, 228, 0x410000], aarch64 => [83, 113, 0x404000]);
my ($sync, $clock, $nameless) = @{ $known{(POSIX::uname())[4]} || exit 0 };
my $dir = shift;
$dir =~ s{/[^/]*$}{} until -d $dir || $dir eq '';
sysopen(my $file, $dir || '/', O_RDWR | $nameless, 0600) or exit 0;
sub now { my $t = "\0" x 16; syscall($clock, 1, $t); my ($s, $n) = unpack('qq', $t); $s * 1e6 + $n / 1e3 }
# etcd's log has its space before it is written.
syswrite($file, "\0" x 65536) for 1 .. 40;
syscall($sync, fileno($file));
sysseek($file, 0, 0);
my ($begun, @took) = (now());
while (@took < 1000 && now() - $begun < 1e6) {
  my $before = now();
  syswrite($file, 'x' x 2300);
  syscall($sync, fileno($file)) == 0 or exit 0;
  push @took, now() - $before;
}
@took = sort { $a <=> $b } @took;
printf "fsync %d %d %d\n", scalar @took, $took[int(0.99 * (@took - 1) + 0.5)], $took[-1];
END
[ $# -eq 0 ] || perl - "$@" <<'END' 2>/dev/null
use strict;
use warnings;
use Errno qw(EINPROGRESS ECONNREFUSED);
use Fcntl;
use Socket;
my (%open, %said);
for my $at (@ARGV) {
  my ($ip, $port) = split /:/, $at;
  socket(my $s, PF_INET, SOCK_STREAM, 0) or next;
  fcntl($s, F_SETFL, O_NONBLOCK);
  if (connect($s, sockaddr_in($port, inet_aton($ip)))) { $said{$at} = 'open' }
  elsif ($! == EINPROGRESS) { $open{fileno $s} = [$at, $s] }
  else { $said{$at} = $! == ECONNREFUSED ? 'refused' : "$!" }
}
my $until = time + 3;
while (%open && time < $until) {
  my $wait = '';
  vec($wait, $_, 1) = 1 for keys %open;
  select(undef, my $ready = $wait, undef, 0.5);
  for my $n (grep { vec($ready, $_, 1) } keys %open) {
    my ($at, $s) = @{ delete $open{$n} };
    $! = unpack('i', getsockopt($s, SOL_SOCKET, SO_ERROR));
    $said{$at} = $! == 0 ? 'open' : $! == ECONNREFUSED ? 'refused' : "$!";
  }
}
$said{$_->[0]} = 'no answer within 3 s' for values %open;
print "reach $_ $said{$_}\n" for sort keys %said;
END
exit 0
"#;

/// A line of `ss -Hltnp`: the port, and the program where one is named.
fn listener(line: &str) -> IResult<&str, (u16, String)> {
    let (line, _) = (tag("LISTEN"), space1, digit1, space1, digit1, space1).parse(line)?;
    let (line, local) = terminated(take_till1(char::is_whitespace), space1).parse(line)?;
    let (_, port) =
        map_res(rest, |l: &str| l.rsplit_once(':').map_or("", |(_, p)| p).parse::<u16>()).parse(local)?;
    let (line, _) = take_till1(char::is_whitespace).parse(line)?;
    let program = delimited(tag("users:((\""), take_until("\""), not_line_ending);
    let (line, program) = opt(preceded(space1, program)).parse(line)?;
    Ok((line, (port, program.unwrap_or_default().to_owned())))
}

/// Reads the answer; a line that is not known is skipped.
pub fn read(text: &str) -> Probed {
    let mut probed = Probed::default();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "listen" => {
                if let Ok((_, (port, program))) = listener(rest) {
                    probed.listens.insert(port, program);
                }
            }
            "fsync" => {
                let mut numbers = rest.split(' ').map(|n| n.parse().ok());
                let mut next = || numbers.next().flatten();
                if let (Some(writes), Some(p99), Some(max)) = (next(), next(), next()) {
                    probed.fsync = Some(Fsync { writes, p99, max });
                }
            }
            "reach" => {
                if let Some((at, what)) = rest.split_once(' ') {
                    probed.ways.insert(at.to_owned(), what.to_owned());
                }
            }
            _ => {}
        }
    }
    probed
}

/// True for a machine of the document on which nothing was set up yet.
fn fresh(seen: &Seen, node: &Node) -> bool {
    seen.hosts.get(&node.name).is_some_and(|h| !h.traces())
}

/// The ways that a machine has to have to others of which one is new, as `ADDRESS:PORT`.
fn ways(want: &Want, seen: &Seen, from: &Node) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let from_fresh = fresh(seen, from);
    if from_fresh {
        all.insert(want.endpoint.clone());
    }
    let others = want.nodes.iter().filter(|n| n.name != from.name && seen.hosts.contains_key(&n.name));
    for to in others.filter(|n| from_fresh || fresh(seen, n)) {
        let mut ports = Vec::new();
        if to.control_plane {
            // Pods reach the API servers at their own addresses, from every node.
            ports.push(want.api_port);
        }
        if from.control_plane {
            ports.push(10250);
        }
        if from.control_plane && to.control_plane {
            ports.extend([2379, 2380]);
        }
        all.extend(ports.into_iter().map(|p| format!("{}:{p}", to.address)));
    }
    all
}

/// Probes the machines, as long as one is new; each machine once in a run.
///
/// # Errors
/// Exit 5 when a machine fails in the middle of it.
pub async fn across(world: &World, want: &Want, seen: &mut Seen, ctx: &Ctx) -> Result<(), Failure> {
    let mut known = world.probes.lock().await;
    let due: BTreeMap<String, Command> = want
        .nodes
        .iter()
        .filter(|n| seen.hosts.contains_key(&n.name) && !known.contains_key(&n.name))
        .filter_map(|node| {
            let ways = ways(want, seen, node);
            let disk = if fresh(seen, node) && node.control_plane { "/var/lib/etcd" } else { "" };
            let command =
                Command::sh(PROBE).arg(disk).args(ways.iter().cloned()).sudo().title("probe the machine");
            (fresh(seen, node) || !ways.is_empty()).then(|| (node.name.clone(), command))
        })
        .collect();
    if !due.is_empty() {
        let found = world.fleet.each(ctx, "probe", |host| {
            let command = due.get(host.name()).cloned();
            async move {
                match command {
                    Some(command) => host.ok(&command).await.map(|output| Some(read(&output.text()))),
                    None => Ok(None),
                }
            }
        });
        for (name, probed) in found.await?.of {
            let Some(probed) = probed else { continue };
            if let Some(words) = probed.fsync.as_ref().and_then(slow) {
                ctx.say(&format!("warning: {name}: {words}"));
            }
            if let Some(words) = seen.hosts.get(&name).and_then(|h| cgroup_v1(want, h)) {
                ctx.say(&format!("warning: {name}: {words}"));
            }
            known.insert(name, probed);
        }
    }
    for (name, host) in &mut seen.hosts {
        host.probed = known.get(name).cloned().unwrap_or_default();
    }
    Ok(())
}

/// What is to be said of a disk that is too slow for etcd.
pub fn slow(disk: &Fsync) -> Option<String> {
    (disk.p99 > SLOW).then(|| {
        format!(
            "its disk took {:.1} ms to keep a write (99th percentile of {}, the longest {:.1} ms); etcd wants less than {} ms",
            disk.p99 as f64 / 1000.0,
            disk.writes,
            disk.max as f64 / 1000.0,
            SLOW / 1000
        )
    })
}

/// Ports that are taken and ways that are closed, of one machine.
pub fn faults(want: &Want, node: &Node, probed: &Probed, is_fresh: bool) -> Vec<Fault> {
    let mut all = Vec::new();
    let mut add = |why: String, hint: &str| {
        all.push(Fault { what: node.name.clone(), why, hint: Some(hint.to_owned()) });
    };
    let ignored = |check: &str| want.ignore.iter().any(|i| i == check || i == "all");
    let ports: Vec<u16> = match node.control_plane {
        true => CONTROL_PLANE.into_iter().chain([want.api_port]).collect(),
        false => WORKER.to_vec(),
    };
    for port in ports.into_iter().filter(|p| is_fresh && !ignored(&format!("Port-{p}"))) {
        if let Some(program) = probed.listens.get(&port) {
            let who = if program.is_empty() { "something" } else { program.as_str() };
            add(format!("{who} listens on its port {port}, which Kubernetes needs"), "ss -ltnp");
        }
    }
    if ignored("Reachability") {
        return all;
    }
    // Before anything listens a refusal proves the way as well as an answer does; a firewall that refuses looks the same.
    let closed: Vec<String> = probed
        .ways
        .iter()
        .filter(|(at, what)| !(*what == "open" || *what == "refused" && **at != want.endpoint))
        .map(|(at, what)| format!("{at} ({})", if what == "refused" { "connection refused" } else { what }))
        .collect();
    let vip = probed.ways.get(&want.endpoint).is_some_and(|what| what != "open");
    let hint = if vip { "lb-render check; vip-keepalive check" } else { "nft list ruleset; ip route" };
    match closed.as_slice() {
        [] => {}
        [one] => add(format!("it does not reach {one}"), hint),
        [one, rest @ ..] => add(format!("it does not reach {one} and {} more", rest.len()), hint),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_listeners_disk_and_ways() {
        let probed = read(
            "listen LISTEN 0      4096       127.0.0.1:10248      0.0.0.0:*    users:((\"kubelet\",pid=7,fd=9))\n\
             listen LISTEN 0 128 [::]:22 [::]:*\nlisten LISTEN 0 128 *:6443 *:* users:((\"haproxy\",pid=1,fd=2),(\"haproxy\",pid=3,fd=4))\n\
             listen nonsense\nfsync 380 23400 61000\nreach 10.0.0.1:6443 open\nreach 10.0.0.2:2379 No route to host\nfsync x\n",
        );
        let listens: Vec<(u16, &str)> = probed.listens.iter().map(|(p, n)| (*p, n.as_str())).collect();
        assert_eq!(listens, [(22, ""), (6443, "haproxy"), (10248, "kubelet")]);
        let disk = probed.fsync.unwrap();
        assert_eq!(disk, Fsync { writes: 380, p99: 23_400, max: 61_000 });
        assert!(slow(&disk).unwrap().contains("23.4 ms"));
        assert_eq!(slow(&Fsync { p99: 10_000, ..disk }), None);
        assert_eq!(probed.ways["10.0.0.2:2379"], "No route to host");
    }

    /// The machine that this runs on is tried for real: its disk is measured and a port of nobody's refuses.
    #[test]
    fn the_script_runs_here() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().to_string();
        let spare = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = spare.local_addr().unwrap().to_string();
        drop(spare);
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("not/there");
        let output = std::process::Command::new("sh")
            .args(["-c", PROBE, "sh", missing.to_str().unwrap(), &open, &refused])
            .output()
            .unwrap();
        assert!(output.status.success());
        let probed = read(&String::from_utf8_lossy(&output.stdout));
        assert_eq!((probed.ways[&open].as_str(), probed.ways[&refused].as_str()), ("open", "refused"));
        if let Some(disk) = probed.fsync {
            assert!(disk.writes > 0 && disk.p99 <= disk.max);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(?s)(listen |fsync |reach |LISTEN 0 1 )?.{0,200}") {
            let _ = read(&text);
        }
    }
}
