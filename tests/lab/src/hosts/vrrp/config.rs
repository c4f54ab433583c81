//! keepalived.conf, as far as the lab reads it, and keepalived's words for what is wrong.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::hosts::Machine;
use crate::hosts::machine::INTERFACE;

/// A configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The instances.
    pub instances: Vec<Instance>,
    /// Scripts and processes that instances track.
    pub scripts: BTreeMap<String, Script>,
    /// Files that instances track.
    pub files: BTreeMap<String, TrackFile>,
}

/// A `vrrp_instance`.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// `virtual_router_id`.
    pub router_id: u8,
    /// `priority`.
    pub priority: u8,
    /// `advert_int` in seconds.
    pub advert: f64,
    /// `nopreempt`.
    pub nopreempt: bool,
    /// `unicast_src_ip`.
    pub source: Option<Ipv4Addr>,
    /// `unicast_peer`.
    pub peers: Vec<Ipv4Addr>,
    /// `virtual_ipaddress`, with prefix length.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// `track_script`, `track_process` and `track_file`, with a weight of their own.
    pub tracked: Vec<(String, Option<i32>)>,
}

/// A `vrrp_script` or `vrrp_track_process`.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The command line, or `process NAME`.
    pub line: String,
    /// Its weight; 0 makes a failure a fault.
    pub weight: i32,
}

/// A `track_file`.
#[derive(Clone, Debug, Default)]
pub struct TrackFile {
    /// Its path.
    pub path: String,
    /// What its number is multiplied with; 0 makes any other number than 0 a fault.
    pub weight: i32,
    /// The number that keepalived writes at start when there is no such file (`init_file`).
    pub initial: Option<i32>,
}

/// What the check of a file found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What `keepalived -t` prints.
    pub lines: Vec<String>,
    /// True when it would exit 5.
    pub error: bool,
    /// True when keepalived ends at start.
    pub fatal: bool,
}

const GLOBAL: [&str; 25] = [
    "router_id",
    "enable_script_security",
    "script_user",
    "vrrp_version",
    "vrrp_garp_master_delay",
    "vrrp_garp_master_refresh",
    "vrrp_garp_master_repeat",
    "vrrp_garp_master_refresh_repeat",
    "vrrp_garp_lower_prio_delay",
    "vrrp_garp_lower_prio_repeat",
    "vrrp_garp_interval",
    "vrrp_gna_interval",
    "vrrp_strict",
    "vrrp_skip_check_adv_addr",
    "vrrp_check_unicast_src",
    "notification_email_from",
    "smtp_server",
    "max_auto_priority",
    "min_auto_priority_delay",
    "vrrp_startup_delay",
    "enable_snmp_vrrp",
    "process_names",
    "vrrp_priority",
    "checker_priority",
    "vrrp_min_garp",
];
const SCRIPT: [&str; 8] = ["script", "interval", "timeout", "weight", "fall", "rise", "user", "init_fail"];
const INSTANCE: [&str; 34] = [
    "state",
    "interface",
    "virtual_router_id",
    "priority",
    "advert_int",
    "nopreempt",
    "preempt_delay",
    "authentication",
    "unicast_src_ip",
    "unicast_peer",
    "virtual_ipaddress",
    "track_script",
    "track_process",
    "track_file",
    "higher_prio_send_advert",
    "track_interface",
    "garp_master_delay",
    "garp_master_refresh",
    "garp_master_repeat",
    "garp_master_refresh_repeat",
    "garp_lower_prio_delay",
    "garp_lower_prio_repeat",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "dont_track_primary",
    "use_vmac",
    "smtp_alert",
    "debug",
    "version",
    "check_unicast_src",
    "mcast_src_ip",
];

struct Reader<'a> {
    file: &'a str,
    machine: &'a Machine,
    config: Config,
    report: Report,
    secure: bool,
    current_script: String,
    missing_interface: bool,
}

/// Reads a configuration for a machine.
pub fn parse(file: &str, text: &str, machine: &Machine) -> (Config, Report) {
    let mut reader = Reader {
        file,
        machine,
        config: Config::default(),
        report: Report::default(),
        secure: false,
        current_script: String::new(),
        missing_interface: false,
    };
    // The blocks that are open, outermost first; an unknown one swallows what is in it.
    let mut blocks: Vec<(String, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.split(['#', '!']).next().unwrap_or_default().trim();
        let words = words(line);
        let Some((first, rest)) = words.split_first() else { continue };
        if first == "}" {
            if blocks.pop().is_none() {
                reader.error(number, "Unexpected '}' - ignoring".into());
            }
            continue;
        }
        let opens = words.last().is_some_and(|w| w == "{");
        let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|w| *w != "{").collect();
        let path: Vec<&str> = blocks.iter().map(|(name, _)| name.as_str()).collect();
        let known = reader.line(number, &path, first, &rest, opens);
        if !known {
            reader.error(number, format!("Unknown keyword '{first}'"));
            if opens {
                reader.error(number, "Unexpected '{' - ignoring".into());
            }
        }
        if opens {
            let name = if known { first.clone() } else { "?".into() };
            blocks.push((name, rest.first().map(|s| s.to_string()).unwrap_or_default()));
        }
    }
    if !blocks.is_empty() {
        reader.report.lines.push(format!("There are {} missing '}}'s or extra '{{'s", blocks.len()));
        reader.report.error = true;
    }
    reader.finish();
    (reader.config, reader.report)
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => words.extend(word.take()),
            '{' | '}' if !quoted => {
                words.extend(word.take());
                words.push(c.to_string());
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

impl Reader<'_> {
    fn error(&mut self, line: usize, text: String) {
        self.report.lines.push(format!("({}: Line {line}) {text}", self.file));
        self.report.error = true;
    }

    /// Takes one line in its blocks; false when its keyword is unknown there.
    fn line(&mut self, number: usize, path: &[&str], word: &str, rest: &[&str], opens: bool) -> bool {
        let first = rest.first().copied().unwrap_or_default();
        match path {
            [] => {
                match word {
                    "vrrp_script" | "vrrp_track_process" if opens => {
                        self.config.scripts.insert(first.into(), Script::default());
                        self.current_script = first.into();
                    }
                    "vrrp_instance" if opens => {
                        self.config.instances.push(Instance {
                            name: first.into(),
                            priority: 100,
                            advert: 1.0,
                            ..Instance::default()
                        });
                    }
                    "track_file" | "vrrp_track_file" if opens => {
                        self.config.files.insert(first.into(), TrackFile::default());
                        self.current_script = first.into();
                    }
                    "global_defs" | "vrrp_sync_group" if opens => {}
                    _ => return false,
                }
                true
            }
            ["global_defs"] => {
                self.secure |= word == "enable_script_security";
                GLOBAL.contains(&word)
            }
            ["vrrp_script"] => self.script(word, rest),
            ["track_file" | "vrrp_track_file"] => {
                let name = self.current_script.clone();
                let Some(file) = self.config.files.get_mut(&name) else { return false };
                match word {
                    "file" => file.path = first.into(),
                    "weight" => file.weight = first.parse().unwrap_or(0),
                    "init_file" => file.initial = Some(first.parse().unwrap_or(0)),
                    _ => return false,
                }
                true
            }
            ["vrrp_track_process"] => {
                let name = self.current_script.clone();
                let Some(script) = self.config.scripts.get_mut(&name) else { return false };
                match word {
                    "process" => script.line = format!("process {first}"),
                    "weight" => script.weight = first.parse().unwrap_or(0),
                    "quorum" | "delay" | "terminate_delay" | "fork_delay" | "param_match"
                    | "full_command" => {}
                    _ => return false,
                }
                true
            }
            ["vrrp_instance"] => self.instance(number, word, rest),
            ["vrrp_instance", list] => {
                let Some(instance) = self.config.instances.last_mut() else { return false };
                match *list {
                    "unicast_peer" => match word.parse() {
                        Ok(peer) => instance.peers.push(peer),
                        Err(_) => self.error(number, format!("Invalid address {word}")),
                    },
                    "virtual_ipaddress" => {
                        let (address, prefix) = word.split_once('/').unwrap_or((word, "32"));
                        match (address.parse(), prefix.parse()) {
                            (Ok(address), Ok(prefix)) => instance.addresses.push((address, prefix)),
                            _ => self.error(number, format!("Invalid address {word}")),
                        }
                    }
                    "track_script" | "track_process" | "track_file" => {
                        let weight = rest.iter().position(|w| *w == "weight").and_then(|at| rest.get(at + 1));
                        instance.tracked.push((word.into(), weight.and_then(|w| w.parse().ok())));
                    }
                    "authentication" => return word == "auth_type" || word == "auth_pass",
                    "track_interface" => {}
                    _ => return false,
                }
                true
            }
            ["vrrp_sync_group", ..] => true,
            _ => false,
        }
    }

    fn script(&mut self, word: &str, rest: &[&str]) -> bool {
        let name = self.current_script.clone();
        let Some(script) = self.config.scripts.get_mut(&name) else { return false };
        match word {
            "script" => script.line = rest.join(" "),
            "weight" => script.weight = rest.first().and_then(|w| w.parse().ok()).unwrap_or(0),
            word => return SCRIPT.contains(&word),
        }
        true
    }

    fn instance(&mut self, number: usize, word: &str, rest: &[&str]) -> bool {
        let first = rest.first().copied().unwrap_or_default();
        let Some(name) = self.config.instances.last().map(|i| i.name.clone()) else { return false };
        let in_range = |value: &str| value.parse::<u8>().ok().filter(|v| *v > 0);
        let (mut id, mut priority) = (None, None);
        match word {
            "interface" if first != INTERFACE && first != "lo" => {
                self.missing_interface = true;
                self.report.lines.push(format!(
                    "({}: Line {number}) WARNING - interface {first} for vrrp_instance {name} doesn't exist",
                    self.file
                ));
            }
            "virtual_router_id" => {
                id = in_range(first);
                if id.is_none() {
                    self.error(number, format!("number '{first}' outside range [1, 255]"));
                    self.error(
                        number,
                        format!("({name}): VRID '{first}' not valid - must be between 1 & 255"),
                    );
                }
            }
            "priority" => {
                priority = in_range(first);
                if priority.is_none() {
                    self.error(number, format!("number '{first}' outside range [1, 255]"));
                    self.error(
                        number,
                        format!("({name}) Priority not valid! must be between 1 & 255. Using default 100"),
                    );
                }
            }
            word if INSTANCE.contains(&word) => {}
            _ => return false,
        }
        let Some(instance) = self.config.instances.last_mut() else { return false };
        instance.router_id = id.unwrap_or(instance.router_id);
        instance.priority = priority.unwrap_or(instance.priority);
        match word {
            "advert_int" => instance.advert = first.parse().unwrap_or(1.0),
            "nopreempt" => instance.nopreempt = true,
            "unicast_src_ip" => instance.source = first.parse().ok(),
            _ => {}
        }
        true
    }

    fn finish(&mut self) {
        let tracked: Vec<(String, String)> = self
            .config
            .instances
            .iter()
            .flat_map(|i| i.tracked.iter().map(|(t, _)| (i.name.clone(), t.clone())))
            .collect();
        for (instance, name) in tracked {
            if self.config.files.contains_key(&name) {
                continue;
            }
            let Some(script) = self.config.scripts.get(&name) else {
                self.report.lines.push(format!("({instance}) track script {name} not found, ignoring..."));
                self.report.error = true;
                continue;
            };
            let program = script.line.split_whitespace().next().unwrap_or_default().to_string();
            if program == "process" {
                continue;
            }
            if !program.starts_with('/') || (!in_path(&program) && self.machine.fs.node(&program).is_err()) {
                self.report.lines.push(format!(
                    "WARNING - script '{program}' for vrrp_script {name} not found. Disabling."
                ));
                self.disable(&name);
            } else if self.secure && insecure(self.machine, &program) {
                self.report.lines.push(format!("Disabling track script {name} due to insecure"));
                self.disable(&name);
            } else if !in_path(&program) && self.machine.fs.node(&program).is_ok_and(|n| n.mode & 0o111 == 0)
            {
                self.report.lines.push(format!(
                    "WARNING - script '{program}' for vrrp_script {name} is not executable. Disabling."
                ));
                self.disable(&name);
            }
        }
        if self.missing_interface {
            self.report.lines.push("Non-existent interface specified in configuration".into());
            self.report.error = true;
            self.report.fatal = true;
        }
    }

    /// keepalived runs on without a script that it cannot trust; `-t` calls it an error.
    fn disable(&mut self, name: &str) {
        self.report.error = true;
        self.config.scripts.remove(name);
    }
}

fn in_path(program: &str) -> bool {
    ["/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"]
        .iter()
        .any(|dir| program.strip_prefix(dir).is_some_and(|name| !name.contains('/')))
}

/// A path through a symbolic link (`/bin`), or a file that others than root can write.
fn insecure(machine: &Machine, program: &str) -> bool {
    let linked = program.starts_with("/bin/") || program.starts_with("/sbin/");
    let loose = machine.fs.node(program).is_ok_and(|n| n.mode & 0o022 != 0 || n.owner != "root");
    linked || loose
}
