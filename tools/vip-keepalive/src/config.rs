//! keepalived.conf as data, as text, and read back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nom::branch::alt;
use nom::bytes::complete::{is_not, take_while1};
use nom::character::complete::{char, space0};
use nom::combinator::{map, recognize};
use nom::multi::many0;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser as _};
use serde::{Deserialize, Serialize};
use stage::Failure;

/// The first line of keepalived.conf.
pub const HEADER: &str = "# Managed by kubeline (vip-keepalive). Changes here are overwritten.";
/// The file that keepalived reads.
pub const CONFIG: &str = "/etc/keepalived/keepalived.conf";
/// Where a configuration is tested before it is swapped in; a run that dies meanwhile leaves it to the next boot.
pub const CANDIDATE: &str = "/run/kubeline/keepalived.conf";
/// There from the swap until keepalived has read it: after a run that died between, what runs is not what lies
/// on the disk. A reboot removes it, and reads the disk.
pub const PENDING: &str = "/run/kubeline/keepalived.pending";
/// The check.
pub const SCRIPT: &str = "/usr/libexec/kubeline/check-haproxy";
/// The check's text.
pub const SCRIPT_TEXT: &str = include_str!("../templates/check-haproxy.sh");

/// What systemd does when HAProxy starts and ends.
pub const HAPROXY_UNIT: &str = "/etc/systemd/system/haproxy.service.d/kubeline-vip.conf";
/// The text of that.
pub const HAPROXY_UNIT_TEXT: &str = include_str!("../templates/haproxy-unit.conf");
/// What systemd does when keepalived ends.
pub const KEEPALIVED_UNIT: &str = "/etc/systemd/system/keepalived.service.d/kubeline.conf";
/// `1` from the moment that HAProxy ended until it serves again, `0` else; keepalived watches it.
pub const ENDED: &str = "/run/kubeline/haproxy-ended";

const UNIT_TEMPLATE: &str = include_str!("../templates/keepalived-unit.conf.j2");
const TEMPLATE: &str = include_str!("../templates/keepalived.conf.j2");

/// All that decides who holds the address, as keepalived understands a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The interface.
    pub interface: String,
    /// The virtual router id.
    pub router_id: String,
    /// The priority.
    pub priority: String,
    /// Seconds between adverts.
    pub advert: String,
    /// `BACKUP` or `MASTER`.
    pub state: String,
    /// True with `nopreempt`.
    pub nopreempt: bool,
    /// The address that adverts come from.
    pub source: String,
    /// Whom adverts are sent to.
    pub peers: Vec<String>,
    /// The shared addresses.
    pub addresses: Vec<String>,
    /// The checks that the instance tracks, and each one's command line and weight.
    pub checks: BTreeMap<String, (String, String)>,
    /// The files that the instance tracks, and each one's path and weight.
    pub files: BTreeMap<String, (String, String)>,
}

/// What one machine's file says, but for the interface, which the machine itself tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The machine's name.
    pub name: String,
    /// Its own address.
    pub source: Ipv4Addr,
    /// The other load balancers.
    pub peers: Vec<Ipv4Addr>,
    /// The shared address.
    pub vip: Ipv4Addr,
    /// The virtual router id.
    pub router_id: u8,
    /// Its priority.
    pub priority: u8,
    /// Milliseconds between adverts.
    pub advert_ms: u32,
    /// What the check asks for.
    pub monitor: String,
}

#[derive(Serialize)]
struct Data<'a> {
    header: &'static str,
    name: &'a str,
    script: &'static str,
    monitor: &'a str,
    ended: &'static str,
    interface: &'a str,
    router_id: u8,
    priority: u8,
    advert: String,
    source: Ipv4Addr,
    peers: &'a [Ipv4Addr],
    addresses: [String; 1],
}

#[derive(Serialize)]
struct UnitData<'a> {
    header: &'static str,
    interface: &'a str,
    address: String,
}

impl Instance {
    /// The file for this interface.
    ///
    /// # Errors
    /// A template that does not render is an internal fault.
    pub fn text(&self, interface: &str) -> Result<String, Failure> {
        let data = Data {
            header: HEADER,
            name: &self.name,
            script: SCRIPT,
            monitor: &self.monitor,
            ended: ENDED,
            interface,
            router_id: self.router_id,
            priority: self.priority,
            advert: advert(self.advert_ms),
            source: self.source,
            peers: &self.peers,
            addresses: [self.address()],
        };
        let template = render::Template::new("keepalived.conf", TEMPLATE);
        template.render(&data).map_err(|e| Failure::internal("cannot render keepalived.conf").caused_by(&e))
    }

    /// What systemd does when keepalived on this interface ends.
    ///
    /// # Errors
    /// A template that does not render is an internal fault.
    pub fn unit(&self, interface: &str) -> Result<String, Failure> {
        let data = UnitData { header: HEADER, interface, address: self.address() };
        let template = render::Template::new("kubeline.conf", UNIT_TEMPLATE);
        template.render(&data).map_err(|e| Failure::internal("cannot render kubeline.conf").caused_by(&e))
    }

    /// What keepalived must understand of that file.
    pub fn config(&self, interface: &str) -> Config {
        let check = (format!("{SCRIPT} {}", self.monitor), "0".to_owned());
        Config {
            interface: interface.to_owned(),
            router_id: self.router_id.to_string(),
            priority: self.priority.to_string(),
            advert: advert(self.advert_ms),
            state: "BACKUP".to_owned(),
            nopreempt: true,
            source: self.source.to_string(),
            peers: self.peers.iter().map(ToString::to_string).collect(),
            addresses: vec![self.address()],
            checks: BTreeMap::from([("haproxy".to_owned(), check)]),
            files: BTreeMap::from([("haproxy_ended".to_owned(), (ENDED.to_owned(), "0".to_owned()))]),
        }
    }

    // A /32 adds no second route to the network, and is never chosen as the source of a connection.
    fn address(&self) -> String {
        format!("{}/32", self.vip)
    }
}

/// Seconds with the two decimals that VRRP version 3 knows.
fn advert(ms: u32) -> String {
    let text = format!("{}.{:02}", ms / 1000, ms % 1000 / 10);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Config {
    /// Reads a file as keepalived does. In a list (`unicast_peer`, `virtual_ipaddress`) each line is one entry:
    /// keepalived takes the first word and says nothing of the others.
    pub fn read(text: &str) -> Config {
        let mut config = Config::default();
        let mut scripts: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut files: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut tracked: Vec<String> = Vec::new();
        let mut watched: Vec<String> = Vec::new();
        let mut blocks: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            let words = words(line);
            let Some(first) = words.first().cloned() else { continue };
            let second = words.get(1).cloned().unwrap_or_default();
            if first == "}" {
                blocks.pop();
                continue;
            }
            let path: Vec<&str> = blocks.iter().map(|(name, _)| name.as_str()).collect();
            let name = blocks.first().map(|(_, name)| name.clone()).unwrap_or_default();
            match (path.as_slice(), first.as_str()) {
                (["vrrp_script"], "script") => scripts.entry(name).or_default().0 = second.clone(),
                (["vrrp_script"], "weight") => scripts.entry(name).or_default().1 = second.clone(),
                (["track_file"], "file") => files.entry(name).or_default().0 = second.clone(),
                (["track_file"], "weight") => files.entry(name).or_default().1 = second.clone(),
                (["vrrp_instance"], word) => config.take(word, &second),
                (["vrrp_instance", "unicast_peer"], peer) => config.peers.push(peer.to_owned()),
                (["vrrp_instance", "virtual_ipaddress"], address) => {
                    config.addresses.push(address.to_owned());
                }
                (["vrrp_instance", "track_script"], name) => tracked.push(name.to_owned()),
                (["vrrp_instance", "track_file"], name) => watched.push(name.to_owned()),
                _ => {}
            }
            // `name { a b }` on one line opens and closes; what stands between is lost on keepalived as well.
            let (opens, closes) = (words.iter().any(|w| w == "{"), words.iter().any(|w| w == "}"));
            if opens && !closes {
                blocks.push((first, second));
            }
        }
        scripts.retain(|name, _| tracked.contains(name));
        config.checks = scripts;
        files.retain(|name, _| watched.contains(name));
        config.files = files;
        config
    }

    fn take(&mut self, word: &str, value: &str) {
        let slot = match word {
            "interface" => &mut self.interface,
            "virtual_router_id" => &mut self.router_id,
            "priority" => &mut self.priority,
            "advert_int" => &mut self.advert,
            "state" => &mut self.state,
            "unicast_src_ip" => &mut self.source,
            "nopreempt" => {
                self.nopreempt = true;
                return;
            }
            _ => return,
        };
        value.clone_into(slot);
    }

    /// The first difference, in words; `None` when both mean the same.
    pub fn differs(&self, due: &Config) -> Option<String> {
        let fields = [
            ("interface", &self.interface, &due.interface),
            ("virtual_router_id", &self.router_id, &due.router_id),
            ("priority", &self.priority, &due.priority),
            ("advert_int", &self.advert, &due.advert),
            ("state", &self.state, &due.state),
            ("unicast_src_ip", &self.source, &due.source),
        ];
        let text = |list: &[String]| if list.is_empty() { "nothing".to_owned() } else { list.join(" ") };
        let lists = [
            ("unicast_peer", text(&self.peers), text(&due.peers)),
            ("virtual_ipaddress", text(&self.addresses), text(&due.addresses)),
        ];
        let field = fields.into_iter().find(|(_, is, due)| is != due);
        let field = field.map(|(name, is, due)| format!("{name} is {is:?} and due is {due:?}"));
        let list = || lists.into_iter().find(|(_, is, due)| is != due);
        let list = || list().map(|(name, is, due)| format!("{name} is {is} and due is {due}"));
        let preempt = || (!self.nopreempt && due.nopreempt).then(|| "nopreempt is missing".to_owned());
        let same = || self.checks == due.checks && self.files == due.files;
        let checks = || (!same()).then(|| "its checks differ".to_owned());
        field.or_else(list).or_else(preempt).or_else(checks)
    }
}

/// The words of a line: comments begin with # or !, quotes hold a word together, braces stand alone.
fn words(line: &str) -> Vec<String> {
    let comment = recognize(preceded(alt((char('#'), char('!'))), many0(is_not("\n"))));
    let quoted = delimited(char('"'), recognize(many0(is_not("\""))), char('"'));
    let brace = recognize(alt((char('{'), char('}'))));
    let plain = take_while1(|c: char| !c.is_whitespace() && !"{}\"#!".contains(c));
    let word = alt((map(comment, |_| None), map(alt((quoted, brace, plain)), Some)));
    let all: IResult<&str, Vec<Option<&str>>> = many0(preceded(space0, word)).parse(line);
    let all = all.map(|(_, words)| words).unwrap_or_default();
    all.into_iter().flatten().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance {
            name: "lb-1".into(),
            source: Ipv4Addr::new(10, 30, 0, 11),
            peers: vec![Ipv4Addr::new(10, 30, 0, 12), Ipv4Addr::new(10, 30, 0, 13)],
            vip: Ipv4Addr::new(10, 30, 0, 10),
            router_id: 30,
            priority: 150,
            advert_ms: 200,
            monitor: "http://127.0.0.1:8404/healthz".into(),
        }
    }

    #[test]
    fn what_is_written_is_what_is_understood() {
        let text = instance().text("eth0").unwrap();
        assert_eq!(Config::read(&text), instance().config("eth0"));
        assert_eq!(Config::read(&text).differs(&instance().config("eth0")), None);
    }

    #[test]
    fn a_list_on_one_line_is_misread_as_keepalived_does() {
        let text = instance().text("eth0").unwrap();
        let one = text.replace("10.30.0.12\n        10.30.0.13", "10.30.0.12 10.30.0.13");
        let why = Config::read(&one).differs(&instance().config("eth0")).unwrap();
        assert_eq!(why, "unicast_peer is 10.30.0.12 and due is 10.30.0.12 10.30.0.13");
        let block = text.replace("unicast_peer {\n", "unicast_peer { 10.30.0.12 }\n#");
        assert!(Config::read(&block).differs(&instance().config("eth0")).is_some());
    }

    #[test]
    fn adverts_have_two_decimals_at_most() {
        let all: Vec<String> = [200, 1000, 1010, 40_950].into_iter().map(advert).collect();
        assert_eq!(all, ["0.2", "1", "1.01", "40.95"]);
    }

    #[test]
    fn any_single_failing_check_moves_the_address() {
        // A fault (weight 0) takes the holder out whatever the priorities; nopreempt alone decides nothing then.
        let config = Config::read(&instance().text("eth0").unwrap());
        assert!(config.nopreempt && config.state == "BACKUP");
        assert!(!config.checks.is_empty() && config.checks.values().all(|(_, weight)| weight == "0"));
        assert!(!config.files.is_empty() && config.files.values().all(|(_, weight)| weight == "0"));
    }
}
