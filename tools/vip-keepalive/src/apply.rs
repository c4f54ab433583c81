//! One step: do it, and see that it is done.

use std::net::Ipv4Addr;
use std::time::Duration;

use fleet::{Fleet, failure, links, packages, units};
use remote::{Command, Host, RemoteFile};
use stage::{Ctx, Exit, Failure, Waiting};

use crate::SERVICE;
use crate::config::{
    CANDIDATE, CONFIG, Config, ENDED, HAPROXY_UNIT, HAPROXY_UNIT_TEXT, KEEPALIVED_UNIT, PENDING, SCRIPT,
    SCRIPT_TEXT,
};
use crate::plan::Step;
use crate::want::{Balancer, Want};

/// How long keepalived may take to start.
const STARTING: Duration = Duration::from_secs(15);
/// How long the election may take: the check's two seconds and three adverts, with much room.
const ELECTING: Duration = Duration::from_secs(20);

/// Opens a TCP connection and closes it again.
///
/// * `$1` the address, `$2` the port.
/// * Exit: 0 connected; anything else: not, within three seconds.
pub const CONNECT: &str = r#"# kubeline: vip-keepalive-connect v1
exec timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2"
"#;

/// Listens for VRRP adverts (IP protocol 112, to 224.0.0.18: RFC 5798) on a segment.
///
/// * `$1` the machine's own address there, `$2` for how many seconds.
/// * Standard output: for each router that was heard `ADDRESS ID`, once.
/// * Exit: 0, whoever was heard.
///
/// Perl, because Debian's perl-base is essential and has Socket; tcpdump is a package more.
pub const LISTEN: &str = r#"# kubeline: vip-keepalive-listen v1
exec perl -MSocket=AF_INET,SOCK_RAW,IPPROTO_IP,IP_ADD_MEMBERSHIP,pack_ip_mreq,inet_aton,inet_ntoa -e '
my ($own, $seconds) = @ARGV;
socket(my $s, AF_INET, SOCK_RAW, 112) or die "a raw socket: $!\n";
my $group = pack_ip_mreq(inet_aton("224.0.0.18"), inet_aton($own));
setsockopt($s, IPPROTO_IP, IP_ADD_MEMBERSHIP, $group) or die "joining 224.0.0.18: $!\n";
my ($end, %heard) = (time + $seconds);
while ((my $left = $end - time) > 0) {
  my $ready = "";
  vec($ready, fileno $s, 1) = 1;
  select($ready, undef, undef, $left) > 0 or next;
  defined recv($s, my $packet, 2048, 0) or next;
  my $header = (ord($packet) & 15) * 4;
  next if length($packet) < $header + 2;
  my ($kind, $id) = unpack "x${header}CC", $packet;
  my $router = inet_ntoa(substr $packet, 12, 4) . " $id";
  print "$router\n" if ($kind & 15) == 1 && !$heard{$router}++;
}' "$1" "$2"
"#;
/// How long adverts are listened for, in seconds: three of VRRP's default interval.
const LISTENING: &str = "3";

/// Does one step.
///
/// # Errors
/// Exit 4 with keepalived's or apt's own words, exit 5 for transport trouble.
pub async fn apply(step: &Step, fleet: &Fleet, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let host = |name: &str| fleet.host(name);
    match step {
        Step::Retire { machine } => retire(host(machine)?).await,
        Step::Install { machine } => {
            packages::install(host(machine)?, &want.packages, &["keepalived", "iputils-arping"], ctx).await?;
            SERVICE.enable(host(machine)?).await
        }
        Step::Enable { machine } => SERVICE.enable(host(machine)?).await,
        Step::Probe { machine, interface, address, router_id } => {
            let (host, own) = (host(machine)?, want.balancer(machine)?.instance.source);
            let known: Vec<Ipv4Addr> = want.balancers.iter().map(|b| b.instance.source).collect();
            let (address, router) =
                tokio::join!(probe(host, interface, *address), heard(host, own, *router_id, &known));
            address.and(router)
        }
        Step::Test { machine, interface } => test(host(machine)?, want.balancer(machine)?, interface).await,
        Step::Supervise { machine, interface } => {
            supervise(host(machine)?, &want.balancer(machine)?.instance.unit(interface)?).await
        }
        Step::Load { machine, interface } => {
            load(host(machine)?, want.balancer(machine)?, interface, ctx).await
        }
        Step::Prove { machines, address, port, elsewhere } => {
            let hosts = machines.iter().map(|m| host(m)).collect::<Result<Vec<_>, _>>()?;
            Box::pin(prove(&hosts, *address, *port, *elsewhere, want.monitor(), ctx)).await
        }
    }
}

/// Duplicate address detection: two questions to the whole segment; exit 1 is an answer (arping(8), -D).
async fn probe(host: &Host, interface: &str, address: Ipv4Addr) -> Result<(), Failure> {
    let doing = || format!("cannot probe for {address} from {}", host.name());
    let arping = Command::new("arping").args(["-D", "-c", "2", "-w", "3", "-I", interface]);
    let arping = arping.arg(address.to_string()).sudo();
    let said = host.run(&arping).await.map_err(|e| failure(doing(), &e))?;
    match said.exit {
        0 => Ok(()),
        1 => {
            let text = said.text().into_owned();
            let mac = text.split_once('[').and_then(|(_, rest)| Some(rest.split_once(']')?.0.to_owned()));
            let by = mac.map_or_else(|| "another machine".to_owned(), |mac| format!("the MAC address {mac}"));
            Err(Failure::precondition(format!("{address} is in use on the segment already"))
                .because(format!("{by} answers for it, asked from {}", host.name()))
                .hint("find that machine, or choose a free address for spec.vip.address"))
        }
        _ => Err(Failure::precondition(doing()).because(said.tail())),
    }
}

/// Adverts of a router of this id that is none of ours: the two would take each other for peers.
async fn heard(host: &Host, own: Ipv4Addr, router_id: u8, known: &[Ipv4Addr]) -> Result<(), Failure> {
    let doing = || format!("cannot listen for routers from {}", host.name());
    let listen = Command::sh(LISTEN).args([own.to_string(), LISTENING.to_owned()]).sudo();
    let said = host.ok(&listen).await.map_err(|e| failure(doing(), &e))?;
    let text = said.text().into_owned();
    let mut routers = text.lines().filter_map(|line| {
        let (address, id) = line.split_once(' ')?;
        Some((address.parse::<Ipv4Addr>().ok()?, id.parse::<u8>().ok()?))
    });
    let foreign = routers.find(|(address, id)| *id == router_id && !known.contains(address));
    match foreign {
        None => Ok(()),
        Some((address, _)) => {
            Err(Failure::precondition(format!("the router id {router_id} is in use on the segment already"))
                .because(format!("{address} sends VRRP adverts with it, heard from {}", host.name()))
                .hint("choose another number from 1 to 255 for spec.vip.routerId"))
        }
    }
}

async fn test(host: &Host, balancer: &Balancer, interface: &str) -> Result<(), Failure> {
    let doing = || format!("cannot test the configuration of {}", balancer.name);
    let transport = |e: remote::Error| failure(doing(), &e);
    let script = RemoteFile::new(SCRIPT, SCRIPT_TEXT).mode(0o755);
    host.write(&script).await.map_err(transport)?;
    let text = balancer.instance.text(interface)?;
    host.write(&RemoteFile::new(CANDIDATE, text.as_bytes())).await.map_err(transport)?;
    let check = Command::new("/usr/sbin/keepalived").args(["-t", "-f", CANDIDATE]).sudo();
    let said = host.run(&check).await.map_err(transport)?;
    host.remove(CANDIDATE).await.map_err(transport)?;
    if said.success() || crashed(&said) {
        return Ok(());
    }
    Err(Failure::precondition(format!(
        "keepalived on {} refuses its new configuration; nothing live was touched",
        balancer.name
    ))
    .because(said.tail())
    .hint(format!("vip-keepalive render {}", balancer.name)))
}

/// keepalived 2.2.7 (Debian 12) ends `-t` with SIGTERM to itself when a file has a `vrrp_script`, after it has
/// said all there was to say: silence is consent.
fn crashed(said: &remote::Output) -> bool {
    const SIGTERM: i32 = 128 + 15;
    let told = said.error_text();
    said.exit == SIGTERM && told.lines().all(|line| line.trim().is_empty() || line.starts_with("Terminated"))
}

async fn supervise(host: &Host, keepalived: &str) -> Result<(), Failure> {
    let doing = || format!("cannot have systemd watch over HAProxy on {}", host.name());
    let transport = |e: remote::Error| failure(doing(), &e);
    for (path, text) in [(HAPROXY_UNIT, HAPROXY_UNIT_TEXT), (KEEPALIVED_UNIT, keepalived)] {
        host.write(&RemoteFile::new(path, text.as_bytes())).await.map_err(transport)?;
    }
    host.ok(&daemon_reload()).await.map_err(transport)?;
    // The check still asks HAProxy itself: a wrong word here costs a second, not the address.
    host.write(&RemoteFile::new(ENDED, "0\n")).await.map(drop).map_err(transport)
}

fn daemon_reload() -> Command {
    Command::new("systemctl").arg("daemon-reload").sudo()
}

async fn load(host: &Host, balancer: &Balancer, interface: &str, ctx: &Ctx) -> Result<(), Failure> {
    let transport =
        |e: remote::Error| failure(format!("cannot load the configuration of {}", balancer.name), &e);
    host.write(&RemoteFile::new(PENDING, "swapped in, not read yet\n")).await.map_err(transport)?;
    let config = RemoteFile::new(CONFIG, balancer.instance.text(interface)?.as_bytes());
    let swapped =
        SERVICE.swap(host, &[config], CONFIG, Box::pin(understood(host, balancer, interface, ctx))).await;
    // After a machine was lost nobody knows what its keepalived has read: the mark stays.
    if swapped.as_ref().err().is_none_or(|wrong| wrong.exit == Exit::Precondition) {
        host.remove(PENDING).await.map_err(transport)?;
    }
    swapped
}

/// keepalived runs, and what lies on the disk means what was wanted: `keepalived -t` takes a list on one line and
/// keepalived then reads its first entry alone.
async fn understood(host: &Host, balancer: &Balancer, interface: &str, ctx: &Ctx) -> Result<(), Failure> {
    let doing = || format!("cannot ask for keepalived on {}", balancer.name);
    let what = format!("keepalived on {}", balancer.name);
    ctx.wait_for(&what, STARTING, async || {
        let unit = units::unit(host, "keepalived.service").await.map_err(|e| failure(doing(), &e))?;
        let running = unit.is_active();
        Ok(if running { Waiting::Seen(()) } else { Waiting::NotYet(format!("it is {}", unit.active)) })
    })
    .await?;
    let installed = host.read(CONFIG).await.map_err(|e| failure(doing(), &e))?.unwrap_or_default();
    let understood = Config::read(&String::from_utf8_lossy(&installed));
    match understood.differs(&balancer.instance.config(interface)) {
        None => Ok(()),
        Some(why) => {
            Err(Failure::precondition(format!("{CONFIG} says something else than is wanted")).because(why))
        }
    }
}

/// Waits for exactly one holder, then for a connection through the address from a machine that does not hold it, whose
/// ARP entry then is the holder's.
async fn prove(
    hosts: &[&Host],
    vip: Ipv4Addr,
    port: Option<u16>,
    elsewhere: bool,
    monitor: &str,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = || format!("cannot prove who holds {vip}");
    let look = async || -> Result<Waiting<()>, Failure> {
        let asked = futures::future::try_join_all(hosts.iter().map(|host| links::addresses(host))).await;
        let asked = asked.map_err(|e| failure(doing(), &e))?;
        let (holders, others): (Vec<_>, Vec<_>) =
            hosts.iter().zip(&asked).partition(|(_, addresses)| addresses.contains_key(&vip));
        let names: Vec<&str> = holders.iter().map(|(host, _)| host.name()).collect();
        match names.as_slice() {
            [_] => {}
            [] if elsewhere => {}
            [] => return Ok(Waiting::NotYet("nobody holds it".to_owned())),
            many => return Ok(Waiting::NotYet(format!("{} hold it at once", many.join(" and ")))),
        }
        let Some(port) = port else { return Ok(Waiting::Seen(())) };
        let Some((client, _)) = others.first().or(holders.first()) else { return Ok(Waiting::Seen(())) };
        let connect = Command::sh(CONNECT).args([vip.to_string(), port.to_string()]);
        let said = client.run(&connect).await.map_err(|e| failure(doing(), &e))?;
        if !said.success() {
            return Ok(Waiting::NotYet(format!("{} gets no connection to {vip}:{port}", client.name())));
        }
        match holders.first().filter(|(holder, _)| holder.name() != client.name()) {
            Some((holder, held)) => {
                let interface = held.get(&vip).map(String::as_str).unwrap_or_default();
                believed(client, holder, interface, vip).await.map_err(|e| failure(doing(), &e))
            }
            None => Ok(Waiting::Seen(())),
        }
    };
    let result = ctx.wait_for(&format!("one machine that holds {vip} and serves"), ELECTING, look).await;
    let Err(mut wrong) = result else { return Ok(()) };
    let mut silent = Vec::new();
    for host in hosts {
        let check = Command::new(SCRIPT).arg(monitor);
        if host.run(&check).await.is_ok_and(|said| !said.success()) {
            silent.push(host.name());
        }
    }
    if !silent.is_empty() {
        let why = format!("HAProxy does not answer at {monitor} on {}", silent.join(", "));
        wrong = wrong.because(why).hint("lb-render check; a machine without HAProxy never holds the address");
    }
    Err(wrong)
}

/// Whether the segment sends to the holder: the ARP entry that the connection left on another machine is the holder's.
async fn believed(
    client: &Host,
    holder: &Host,
    interface: &str,
    vip: Ipv4Addr,
) -> Result<Waiting<()>, remote::Error> {
    let asked = futures::try_join!(links::neighbour(client, vip), links::hardware(holder, interface))?;
    Ok(match asked {
        (Some(entry), Some(own)) if entry == own => Waiting::Seen(()),
        (entry, own) => Waiting::NotYet(format!(
            "{} sends what is for {vip} to {}, and {} on {} is {}",
            client.name(),
            entry.as_deref().unwrap_or("nobody"),
            interface,
            holder.name(),
            own.as_deref().unwrap_or("without an address"),
        )),
    })
}

async fn retire(host: &Host) -> Result<(), Failure> {
    let doing = || format!("cannot stop keepalived on {}", host.name());
    let transport = |e: remote::Error| failure(doing(), &e);
    SERVICE.disable(host).await?;
    for path in [SCRIPT, PENDING, HAPROXY_UNIT, KEEPALIVED_UNIT] {
        host.remove(path).await.map_err(transport)?;
    }
    host.ok(&daemon_reload()).await.map_err(transport)?;
    // Last: by it the next run knows that something is left to do.
    for path in [ENDED, CONFIG] {
        host.remove(path).await.map_err(transport)?;
    }
    Ok(())
}
