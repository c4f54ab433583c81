//! haproxy.cfg, as far as the lab reads it: sections, their keywords, and HAProxy's words for what is wrong.

use std::net::Ipv4Addr;

use crate::hosts::fs::Fs;

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Frontends, backends and listens in their order.
    pub proxies: Vec<Proxy>,
    /// The path of the runtime socket.
    pub socket: Option<String>,
    /// `description` of the global section.
    pub description: Option<String>,
    /// `maxconn` of the global section.
    pub maxconn: u32,
}

/// A frontend, backend or listen section.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// `frontend`, `backend` or `listen`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The line it begins at.
    pub line: usize,
    /// `tcp` or `http`.
    pub http: bool,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// The backend that connections go to.
    pub default_backend: Option<String>,
    /// Servers.
    pub servers: Vec<Server>,
    /// The path that `option httpchk` or `http-check send` asks for.
    pub check_path: Option<String>,
    /// The status that `http-check expect` wants; any 2xx or 3xx without.
    pub expect: Option<u16>,
    /// `monitor-uri`.
    pub monitor: Option<String>,
    /// Backends of which one without a live server makes `monitor-uri` answer 503.
    pub monitor_fail: Vec<String>,
    /// `stats uri`.
    pub stats: Option<String>,
    /// The path of the Prometheus exporter.
    pub metrics: Option<String>,
    /// `balance`, as written.
    pub balance: String,
    /// `option tcp-check`, `option httpchk` with `check` on the servers.
    pub timeouts: Vec<String>,
}

/// A `bind` line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bind {
    /// `None`: every address.
    pub address: Option<Ipv4Addr>,
    /// The port.
    pub port: u16,
    /// The line.
    pub line: usize,
    /// With `ssl`: the file or directory of certificate and key.
    pub tls: Option<String>,
    /// True with `transparent`.
    pub transparent: bool,
    /// True with `accept-proxy`.
    pub accept_proxy: bool,
}

/// A `server` line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Its port.
    pub port: u16,
    /// True with `check`.
    pub check: bool,
    /// True with `ssl`: traffic goes over TLS.
    pub tls: bool,
    /// True with `check-ssl` or `ssl`.
    pub check_tls: bool,
    /// The port of the check when it is another one.
    pub check_port: Option<u16>,
    /// The CA file with `verify required`.
    pub ca_file: Option<String>,
    /// 1 or 2 with `send-proxy` or `send-proxy-v2`.
    pub send_proxy: u8,
    /// Checks in a row before it counts as up and as down.
    pub rise: u32,
    /// Checks in a row before it counts as down.
    pub fall: u32,
    /// True with `backup`.
    pub backup: bool,
    /// True with `on-marked-down shutdown-sessions`.
    pub cut_when_down: bool,
}

/// What a check of a file found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The lines after `[ALERT]` that belong to parsing.
    pub parsing: Vec<String>,
    /// Those found once everything was read.
    pub after: Vec<String>,
    /// Those after `[WARNING]`.
    pub warnings: Vec<String>,
}

impl Report {
    /// True when HAProxy would not start.
    pub fn fatal(&self) -> bool {
        !self.parsing.is_empty() || !self.after.is_empty()
    }
}

const TIMEOUTS: [&str; 12] = [
    "client",
    "server",
    "connect",
    "check",
    "queue",
    "handshake",
    "http-keep-alive",
    "http-request",
    "tunnel",
    "tarpit",
    "client-fin",
    "server-fin",
];
const GLOBAL: [&str; 31] = [
    "log",
    "chroot",
    "stats",
    "user",
    "group",
    "daemon",
    "maxconn",
    "ca-base",
    "crt-base",
    "ssl-default-bind-ciphers",
    "ssl-default-bind-ciphersuites",
    "ssl-default-bind-options",
    "ssl-default-bind-curves",
    "ssl-default-server-options",
    "ssl-default-server-ciphers",
    "ssl-default-server-ciphersuites",
    "nbthread",
    "pidfile",
    "tune.ssl.default-dh-param",
    "tune.bufsize",
    "tune.maxrewrite",
    "hard-stop-after",
    "spread-checks",
    "description",
    "node",
    "log-send-hostname",
    "ulimit-n",
    "server-state-base",
    "server-state-file",
    "cpu-map",
    "insecure-fork-wanted",
];
const PROXY: [&str; 43] = [
    "mode",
    "log",
    "option",
    "timeout",
    "bind",
    "default_backend",
    "use_backend",
    "balance",
    "server",
    "default-server",
    "http-check",
    "tcp-check",
    "monitor-uri",
    "monitor",
    "stats",
    "http-request",
    "http-response",
    "tcp-request",
    "maxconn",
    "retries",
    "acl",
    "errorfile",
    "description",
    "log-format",
    "log-tag",
    "redirect",
    "stick-table",
    "stick",
    "hash-type",
    "fullconn",
    "no",
    "cookie",
    "compression",
    "id",
    "http-error",
    "load-server-state-from-file",
    "email-alert",
    "clitcpka-cnt",
    "clitcpka-idle",
    "clitcpka-intvl",
    "srvtcpka-cnt",
    "srvtcpka-idle",
    "srvtcpka-intvl",
];
const OPTIONS: [&str; 19] = [
    "tcplog",
    "httplog",
    "dontlognull",
    "dontlog-normal",
    "redispatch",
    "httpchk",
    "tcp-check",
    "clitcpka",
    "srvtcpka",
    "tcpka",
    "forwardfor",
    "http-server-close",
    "httpclose",
    "log-health-checks",
    "splice-auto",
    "http-keep-alive",
    "allbackups",
    "http-no-delay",
    "tcp-smart-connect",
];

/// Reads a configuration. `fs` is where the files that it names are looked for.
pub fn parse(file: &str, text: &str, fs: &Fs) -> (Config, Report) {
    let mut reader = Reader {
        file,
        fs,
        report: Report::default(),
        defaults: Proxy { balance: "roundrobin".into(), ..Proxy::default() },
        default_server: Server::default(),
    };
    reader.default_server = Server { rise: 2, fall: 3, ..Server::default() };
    let base = reader.default_server.clone();
    let mut config = Config { maxconn: 4096, ..Config::default() };
    let mut section = String::new();
    let mut current: Option<Proxy> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let words = words(line);
        let Some((first, rest)) = words.split_first() else { continue };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match first.as_str() {
            "global" | "defaults" | "frontend" | "backend" | "listen" => {
                config.proxies.extend(current.take());
                section.clone_from(first);
                if first == "defaults" {
                    reader.defaults = Proxy { balance: "roundrobin".into(), ..Proxy::default() };
                    reader.default_server = base.clone();
                } else if first != "global" {
                    let Some(name) = rest.first() else {
                        reader.parse_error(number, format!("'{first}' expects an <id> as name."));
                        continue;
                    };
                    if config.proxies.iter().any(|p| p.name == *name && (p.kind == *first || p.kind == "listen" || first == "listen")) {
                        reader.parse_error(number, format!("{first} '{name}' has the same name as another proxy."));
                    }
                    current = Some(Proxy { kind: first.clone(), name: (*name).into(), line: number, ..reader.defaults.clone() });
                }
            }
            "resolvers" | "peers" | "userlist" | "ring" | "mailers" | "program" | "http-errors" | "cache" => {
                reader.parse_error(number, format!("the lab does not know the section '{first}'"));
                section.clear();
            }
            _ if section.is_empty() => {
                reader.parse_error(number, format!("unknown keyword '{first}' out of section."));
            }
            _ if section == "global" => match first.as_str() {
                "stats" if rest.first() == Some(&"socket") => config.socket = rest.get(1).map(|s| s.to_string()),
                "description" => config.description = Some(rest.join(" ")),
                "maxconn" => config.maxconn = rest.first().and_then(|n| n.parse().ok()).unwrap_or(0),
                "nbproc" => reader.parse_error(
                    number,
                    "nbproc is not supported any more since HAProxy 2.5. Threads will automatically be used on multi-processor \
                     machines if available."
                        .into(),
                ),
                word if GLOBAL.contains(&word) => {}
                word => reader.parse_error(number, format!("unknown keyword '{word}' in 'global' section")),
            },
            _ => {
                let mut defaults = std::mem::take(&mut reader.defaults);
                let proxy = current.as_mut().unwrap_or(&mut defaults);
                reader.keyword(number, &section, first, &rest, proxy);
                reader.defaults = defaults;
            }
        }
    }
    config.proxies.extend(current.take());
    if !text.is_empty() && !text.ends_with('\n') {
        let last = text.lines().count();
        reader.parse_error(
            last,
            "Missing LF on last line, file might have been truncated at position 1.".into(),
        );
    }
    reader.cross(&config);
    (config, reader.report)
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (c, Some(q)) if c == q => quote = None,
            ('#', None) => break,
            (' ' | '\t' | '\r', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

struct Reader<'a> {
    file: &'a str,
    fs: &'a Fs,
    report: Report,
    defaults: Proxy,
    default_server: Server,
}

impl Reader<'_> {
    fn parse_error(&mut self, line: usize, text: String) {
        self.report.parsing.push(format!("parsing [{}:{line}] : {text}", self.file));
    }

    fn keyword(&mut self, line: usize, section: &str, word: &str, rest: &[&str], proxy: &mut Proxy) {
        let first = rest.first().copied().unwrap_or_default();
        match word {
            "mode" => match first {
                "tcp" | "http" => proxy.http = first == "http",
                "health" => self.parse_error(line, "'mode health' doesn't exist anymore. Please use 'http-request return status 200' instead.".into()),
                other => self.parse_error(line, format!("unknown proxy mode '{other}'.")),
            },
            "timeout" if TIMEOUTS.contains(&first) => {
                if rest.get(1).is_none_or(|v| !duration(v)) {
                    let given = rest.get(1).copied().unwrap_or_default();
                    self.parse_error(line, format!("unexpected character '{}' in 'timeout {first}'", given.chars().next().unwrap_or(' ')));
                }
                proxy.timeouts.push(first.into());
            }
            "timeout" => {
                let names: Vec<String> = TIMEOUTS.iter().map(|t| format!("'{t}'")).collect();
                let (last, all) = names.split_last().map(|(l, a)| (l.clone(), a.join(", "))).unwrap_or_default();
                self.parse_error(line, format!("'timeout' supports {all} and {last} (got '{first}')"));
            }
            "option" if first == "httpchk" => {
                proxy.check_path = Some(match rest.get(1..) {
                    Some([uri]) => (*uri).into(),
                    Some([_method, uri, ..]) => (*uri).into(),
                    _ => "/".into(),
                });
            }
            "option" if OPTIONS.contains(&first) => {}
            "option" => self.parse_error(line, format!("unknown option '{first}'.")),
            "http-check" => self.http_check(line, rest, proxy),
            "bind" if section == "backend" => {
                self.report.warnings.push(format!("parsing [{}:{line}] : 'bind' ignored because backend '{}' has no frontend capability.", self.file, proxy.name));
            }
            "bind" => self.bind(line, rest, proxy),
            "default_backend" => proxy.default_backend = Some(first.into()),
            "use_backend" => {
                // Conditions are not evaluated: the first one without a condition decides.
                if rest.len() == 1 {
                    proxy.default_backend = Some(first.into());
                }
            }
            "balance" => proxy.balance = rest.join(" "),
            "default-server" => {
                let mut server = self.default_server.clone();
                self.server_options(line, rest, &mut server, "default-server");
                self.default_server = server;
            }
            "server" if section == "frontend" => {
                self.report.warnings.push(format!("parsing [{}:{line}] : 'server' ignored because frontend '{}' has no backend capability.", self.file, proxy.name));
            }
            "server" => self.server(line, rest, proxy),
            "monitor-uri" => proxy.monitor = Some(first.into()),
            "monitor" => {
                // monitor fail if { nbsrv(NAME) lt 1 }
                let text = rest.join(" ");
                match text.split_once("nbsrv(").and_then(|(_, t)| t.split_once(')')) {
                    Some((name, _)) if first == "fail" => proxy.monitor_fail.push(name.into()),
                    _ => self.parse_error(line, format!("the lab does not know 'monitor {text}'")),
                }
            }
            "stats" if first == "uri" => proxy.stats = rest.get(1).map(|s| s.to_string()),
            "stats" if first == "enable" => {
                proxy.stats.get_or_insert_with(|| "/haproxy?stats".into());
            }
            "http-request" if rest.starts_with(&["use-service", "prometheus-exporter"]) => {
                let path = rest.iter().position(|w| *w == "path").and_then(|at| rest.get(at + 1));
                proxy.metrics = Some(path.copied().unwrap_or("/metrics").into());
            }
            word if PROXY.contains(&word) => {}
            word => self.parse_error(line, format!("unknown keyword '{word}' in '{section}' section")),
        }
    }

    fn http_check(&mut self, line: usize, rest: &[&str], proxy: &mut Proxy) {
        match rest.first() {
            Some(&"expect") => match rest {
                [_, "status", status] => match status.parse() {
                    Ok(status) => proxy.expect = Some(status),
                    Err(_) => self
                        .parse_error(line, format!("'http-check expect' : invalid status code '{status}'")),
                },
                [_, "rstatus" | "string" | "rstring", _] => {}
                _ => self.parse_error(line, "'http-check expect' : expects a pattern".into()),
            },
            Some(&"send") => {
                let after = |word: &str| rest.iter().position(|w| *w == word).and_then(|at| rest.get(at + 1));
                if let Some(uri) = after("uri") {
                    proxy.check_path = Some((*uri).into());
                }
            }
            Some(&("connect" | "disable-on-404" | "send-state" | "comment")) => {}
            other => {
                let other = other.copied().unwrap_or_default();
                self.parse_error(line, format!("'http-check' : unknown argument '{other}'"));
            }
        }
    }

    fn bind(&mut self, line: usize, rest: &[&str], proxy: &mut Proxy) {
        let Some((address, options)) = rest.split_first() else {
            return self.parse_error(
                line,
                "'bind' expects {<path>|[addr1]:port1[-end1]}{,[addr]:port[-end]}... as arguments.".into(),
            );
        };
        let mut bind = Bind { line, ..Bind::default() };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match *option {
                "transparent" => bind.transparent = true,
                "accept-proxy" => bind.accept_proxy = true,
                "ssl" => {
                    bind.tls.get_or_insert_default();
                }
                "crt" => {
                    let path = options.next().copied().unwrap_or_default();
                    if !self.fs.exists(path) {
                        self.parse_error(
                            line,
                            format!("'bind {address}' in section '{}' : unable to stat SSL certificate from file '{path}' : No such file or directory.", proxy.kind),
                        );
                    }
                    bind.tls = Some(path.into());
                }
                "alpn" | "ssl-min-ver" | "maxconn" | "mode" | "user" | "group" | "name" | "ca-file"
                | "verify" | "ciphers" | "curves" | "id" => {
                    options.next();
                }
                "v4only" | "v4v6" | "tfo" | "defer-accept" | "no-sslv3" | "strict-sni" => {}
                other => {
                    self.parse_error(
                        line,
                        format!("'bind {address}' in section '{}' : unknown keyword '{other}'.", proxy.kind),
                    );
                }
            }
        }
        for part in address.split(',') {
            if part.starts_with('/') || part.starts_with("unix@") || part.starts_with("[::]") {
                continue;
            }
            let Some((host, port)) = part.trim_start_matches("ipv4@").rsplit_once(':') else {
                self.parse_error(line, format!("'bind' : missing port number: '{part}'"));
                continue;
            };
            let address = match host {
                "" | "*" | "0.0.0.0" => None,
                host => match host.parse() {
                    Ok(address) => Some(address),
                    Err(_) => {
                        self.parse_error(line, format!("'bind' : invalid address: '{host}' in '{part}'"));
                        continue;
                    }
                },
            };
            match port.parse::<u16>() {
                Ok(port) if port > 0 => proxy.binds.push(Bind { address, port, ..bind.clone() }),
                _ => self.parse_error(line, format!("'bind' : invalid port '{port}' in '{part}'")),
            }
        }
    }

    fn server(&mut self, line: usize, rest: &[&str], proxy: &mut Proxy) {
        let [name, address, options @ ..] = rest else {
            return self
                .parse_error(line, "'server' expects <name> and <addr>[:<port>] as arguments.".into());
        };
        let mut server = Server { name: (*name).into(), ..self.default_server.clone() };
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        match (host.parse(), port.parse()) {
            (Ok(host), Ok(port)) => (server.address, server.port) = (Some(host), port),
            (Err(_), _) => {
                self.parse_error(line, format!("'server {name}' : could not resolve address '{host}'."))
            }
            (_, Err(_)) => self.parse_error(line, format!("'server {name}' : invalid port '{port}'")),
        }
        if proxy.servers.iter().any(|s| s.name == *name) {
            self.report.after.push(format!("config : {} '{}', another server named '{name}' was already defined, please use distinct names.", proxy.kind, proxy.name));
        }
        let label = format!("server {}/{name}", proxy.name);
        self.server_options(line, options, &mut server, &label);
        proxy.servers.push(server);
    }

    fn server_options(&mut self, line: usize, options: &[&str], server: &mut Server, label: &str) {
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match *option {
                "check" => server.check = true,
                "no-check" => server.check = false,
                "check-ssl" => server.check_tls = true,
                "ssl" => (server.tls, server.check_tls) = (true, true),
                "no-check-ssl" => server.check_tls = false,
                "backup" => server.backup = true,
                "send-proxy" => server.send_proxy = 1,
                "send-proxy-v2" => server.send_proxy = 2,
                "rise" => server.rise = options.next().and_then(|n| n.parse().ok()).unwrap_or(2),
                "fall" => server.fall = options.next().and_then(|n| n.parse().ok()).unwrap_or(3),
                "port" => server.check_port = options.next().and_then(|n| n.parse().ok()),
                "verify" => {
                    if options.next() == Some(&"none") {
                        server.ca_file = None;
                    }
                }
                "ca-file" => {
                    let path = options.next().copied().unwrap_or_default();
                    if !self.fs.exists(path) {
                        self.parse_error(line, format!("'{label}' : unable to load CA file '{path}'"));
                    }
                    server.ca_file = Some(path.into());
                }
                "on-marked-down" => server.cut_when_down = options.next() == Some(&"shutdown-sessions"),
                "inter" | "fastinter" | "downinter" | "weight" | "maxconn" | "slowstart" | "check-sni"
                | "sni" | "crt" | "alpn" | "check-alpn" | "verifyhost" | "id" | "cookie" | "init-addr"
                | "on-error" | "observe" | "error-limit" | "on-marked-up" | "resolvers" | "ssl-min-ver"
                | "check-proto" | "proto" => {
                    options.next();
                }
                "check-send-proxy" | "no-send-proxy" | "disabled" | "enabled" | "no-backup" => {}
                other => self.parse_error(line, format!("'{label}' : unknown keyword '{other}'.")),
            }
        }
    }

    fn cross(&mut self, config: &Config) {
        for proxy in &config.proxies {
            if let Some(name) = &proxy.default_backend
                && !config.proxies.iter().any(|p| p.name == *name && p.kind != "frontend")
            {
                self.report.after.push(format!(
                    "config : Proxy '{}': unable to find required default_backend: '{name}'.",
                    proxy.name
                ));
            }
            for name in &proxy.monitor_fail {
                if !config.proxies.iter().any(|p| p.name == *name && p.kind != "frontend") {
                    self.report.after.push(format!("parsing [{}:{}] : unable to find backend '{name}' referenced in arg 1 of sample fetch keyword 'nbsrv' in proxy '{}'.", self.file, proxy.line, proxy.name));
                }
            }
            if proxy.kind != "backend" && proxy.binds.is_empty() {
                self.report.warnings.push(format!("config : {} '{}' has no 'bind' directive. Please declare it as a backend if this was intended.", proxy.kind, proxy.name));
            }
            let wants: &[&str] = match proxy.kind.as_str() {
                "frontend" => &["client"],
                "backend" => &["connect", "server"],
                _ => &["client", "connect", "server"],
            };
            let empty = proxy.kind == "backend" && proxy.servers.is_empty();
            if !empty && wants.iter().any(|w| !proxy.timeouts.iter().any(|t| t == w)) {
                self.report.warnings.push(format!(
                    "config : missing timeouts for {} '{}'.\n   | While not properly invalid, you will certainly encounter various problems\n   | \
                     with such a configuration. To fix this, please ensure that all following\n   | timeouts are set to a non-zero value: \
                     'client', 'connect', 'server'.",
                    proxy.kind, proxy.name
                ));
            }
        }
    }
}

fn duration(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    digits.len() < text.len() && ["", "us", "ms", "s", "m", "h", "d"].contains(&digits)
}
