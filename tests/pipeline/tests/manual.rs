//! The manual against the programs: every flag, verb and field stands in its page, and the pages invent none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_doc::{Exit, Section, schema};
use serde_json::Value;

/// A tool's command line, and the sections that it reads.
struct Line {
    command: clap::Command,
    reads: &'static [Section],
}

/// Built so that `--help` and `--version` are among its arguments.
fn line<T: stage::Tool>() -> Line {
    let mut command = stage::command::<T>();
    command.build();
    Line { command, reads: T::READS }
}

/// The eight.
fn lines() -> Vec<Line> {
    vec![
        line::<pve_vm::PveVmTool>(),
        line::<lb_render::LbRender>(),
        line::<vip_keepalive::VipKeepalive>(),
        line::<kadm_bootstrap::KadmBootstrap>(),
        line::<cni_install::CniInstall>(),
        line::<nfs_provision::NfsProvision>(),
        line::<ingress_install::IngressInstall>(),
        line::<obs_install::ObsInstall>(),
    ]
}

fn commands() -> Vec<clap::Command> {
    lines().into_iter().map(|line| line.command).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man")
}

fn page(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap_or_else(|e| panic!("man/{file}: {e}"))
}

/// A flag as mdoc's `Fl` has it: `f` for `-f`, `-file` for `--file`.
fn spellings(arg: &clap::Arg) -> Vec<String> {
    let long = arg.get_long().map(|l| format!("-{l}"));
    arg.get_short().map(String::from).into_iter().chain(long).collect()
}

fn flags<'a>(args: impl Iterator<Item = &'a clap::Arg>) -> BTreeSet<String> {
    args.flat_map(spellings).collect()
}

/// What follows each `macro_name` on a line of macros, such as the flags after `Fl`.
fn arguments(line: &str, macro_name: &str) -> Vec<String> {
    if !line.starts_with('.') {
        return Vec::new();
    }
    let words: Vec<&str> = line[1..].split_whitespace().collect();
    words.windows(2).filter(|w| w[0] == macro_name).map(|w| w[1].to_owned()).collect()
}

/// The lines from a heading to the next one of the same macro or of `.Sh`.
fn part<'p>(page: &'p str, heading: &str) -> Vec<&'p str> {
    let level = heading.split(' ').next().unwrap();
    let lines = page.lines().skip_while(|l| *l != heading).skip(1);
    lines.take_while(|l| !l.starts_with(".Sh ") && !l.starts_with(&format!("{level} "))).collect()
}

/// The items of a list: the words after `.It`, and the text up to the next item.
fn items<'p>(lines: &[&'p str]) -> Vec<(&'p str, String)> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for line in lines {
        match line.strip_prefix(".It ") {
            Some(head) => all.push((head, String::new())),
            None => all.iter_mut().last().into_iter().for_each(|(_, text)| {
                text.push_str(line);
                text.push('\n');
            }),
        }
    }
    all
}

#[test]
fn every_flag_of_a_tool_stands_in_its_page_and_the_page_invents_none() {
    let mut wrong = Vec::new();
    for command in commands() {
        let name = command.get_name().to_owned();
        let page = page(&format!("{name}.1"));
        let verbs: BTreeSet<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        assert!(verbs.contains("plan"), "{name} has no verbs: {verbs:?}");

        // OPTIONS has the flags of every verb, each with its default.
        let options = part(&page, ".Sh OPTIONS");
        let items_ = items(&options);
        let told: BTreeSet<String> =
            items_.iter().flat_map(|(head, _)| arguments(&format!(".It {head}"), "Fl")).collect();
        let real = flags(command.get_arguments());
        for flag in real.difference(&told) {
            wrong.push(format!("{name}.1: OPTIONS lacks -{flag}"));
        }
        for flag in told.difference(&real) {
            wrong.push(format!("{name}.1: OPTIONS has -{flag}, which {name} does not know"));
        }
        for arg in command.get_arguments().filter(|a| a.get_action().takes_values()) {
            let spelt = spellings(arg);
            let item = items_.iter().find(|(head, _)| {
                arguments(&format!(".It {head}"), "Fl").iter().any(|flag| spelt.contains(flag))
            });
            let Some((_, text)) = item else { continue };
            for default in arg.get_default_values() {
                let default = default.to_string_lossy();
                if !text.split(|c: char| !c.is_alphanumeric()).any(|word| word == default) {
                    wrong.push(format!("{name}.1: {} does not tell its default {default}", spelt.join(", ")));
                }
            }
        }

        // "Verbs" has each verb with the flags and arguments that are its own.
        let listed = items(&part(&page, ".Ss Verbs"))
            .into_iter()
            .filter_map(|(head, _)| {
                let line = format!(".It {head}");
                Some((
                    arguments(&line, "Cm").first()?.clone(),
                    arguments(&line, "Fl"),
                    arguments(&line, "Ar"),
                ))
            })
            .map(|(verb, flags, args)| (verb, (flags.into_iter().collect::<BTreeSet<_>>(), args)))
            .collect::<BTreeMap<_, _>>();
        for verb in listed.keys().filter(|v| !verbs.contains(*v)) {
            wrong.push(format!("{name}.1: {verb} is no verb"));
        }
        for verb in command.get_subcommands() {
            let own = |a: &&clap::Arg| !a.is_global_set() && a.get_id() != "help" && a.get_id() != "version";
            let Some((told, args)) = listed.get(verb.get_name()) else {
                wrong.push(format!("{name}.1: the verb {} is missing", verb.get_name()));
                continue;
            };
            let real = flags(verb.get_arguments().filter(own));
            if *told != real {
                wrong.push(format!("{name}.1: {} has {real:?}, the page tells {told:?}", verb.get_name()));
            }
            for positional in verb.get_positionals().filter(own) {
                let shown = positional.get_value_names().unwrap_or_default();
                let known = shown.iter().any(|v| args.contains(&v.to_string().to_lowercase()));
                if !known {
                    wrong.push(format!("{name}.1: {} does not tell its argument {shown:?}", verb.get_name()));
                }
            }
        }

        // Nowhere does the page speak of what is not there.
        let mut every = real;
        every.extend(command.get_subcommands().flat_map(|c| flags(c.get_arguments())));
        for line in page.lines() {
            for flag in arguments(line, "Fl").into_iter().filter(|f| !every.contains(f)) {
                wrong.push(format!("{name}.1: speaks of -{flag}: {line}"));
            }
            for verb in arguments(line, "Cm").into_iter().filter(|v| !verbs.contains(v)) {
                wrong.push(format!("{name}.1: speaks of the verb {verb}: {line}"));
            }
        }
        if !page.contains(&format!(".Nm {name}\n")) {
            wrong.push(format!("{name}.1: is not the page of {name}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_names_the_sections_that_its_tool_reads() {
    let all: BTreeSet<&str> = Section::ALL.iter().map(|s| s.key()).collect();
    for Line { command, reads } in lines() {
        let page = page(&format!("{}.1", command.get_name()));
        let lines = part(&page, ".Ss Reads");
        let quoted: Vec<String> = lines.iter().flat_map(|l| arguments(l, "Ql")).collect();
        let told: BTreeSet<&str> = quoted.iter().map(String::as_str).filter(|w| all.contains(w)).collect();
        let real: BTreeSet<&str> = reads.iter().map(|s| s.key()).collect();
        assert_eq!(told, real, "{}.1: Reads", command.get_name());
    }
}

#[test]
fn the_overview_knows_the_verbs_the_flags_and_the_exit_codes() {
    let page = page("kubeline.7");
    let all = commands();
    // Those of all tools; what one has of its own stands in its page.
    let of = |tool: &clap::Command| tool.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let verbs: BTreeSet<String> =
        all.iter().map(of).reduce(|a: BTreeSet<String>, b| &a & &b).unwrap_or_default();
    let heads = |heading: &str| -> BTreeSet<String> {
        items(&part(&page, heading))
            .iter()
            .filter_map(|(head, _)| Some(head.split(' ').next_back()?.to_owned()))
            .collect()
    };
    assert_eq!(heads(".Ss Verbs"), verbs);

    let mut known: BTreeSet<String> = BTreeSet::new();
    for command in &all {
        known.extend(flags(command.get_arguments()));
        known.extend(command.get_subcommands().flat_map(|c| flags(c.get_arguments())));
    }
    let told: BTreeSet<String> = page.lines().flat_map(|line| arguments(line, "Fl")).collect();
    let invented: Vec<_> = told.difference(&known).collect();
    assert!(invented.is_empty(), "kubeline.7 speaks of {invented:?}");

    let codes = [
        Exit::Done,
        Exit::Internal,
        Exit::Usage,
        Exit::Refused,
        Exit::Precondition,
        Exit::Transient,
        Exit::Differs,
        Exit::Partial,
        Exit::Empty,
        Exit::Interrupted,
    ];
    let codes: BTreeSet<String> = codes.iter().map(|exit| exit.code().to_string()).collect();
    assert_eq!(heads(".Sh EXIT STATUS"), codes);
}

/// A field of the document's schema.
#[derive(Default)]
struct Field {
    required: bool,
    default: Option<Value>,
}

/// The fields below a schema, by their path: `template.image.url`, `disks[].size`.
fn fields(root: &Value, schema: &Value, at: &str, all: &mut BTreeMap<String, Field>) {
    if let Some(target) = schema["$ref"].as_str().and_then(|r| root.pointer(r.strip_prefix('#')?)) {
        fields(root, target, at, all);
    }
    for kind in ["anyOf", "oneOf", "allOf"] {
        for one in schema[kind].as_array().into_iter().flatten() {
            fields(root, one, at, all);
        }
    }
    if schema["items"].is_object() {
        let below = if at.is_empty() { String::new() } else { format!("{at}[]") };
        fields(root, &schema["items"], &below, all);
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let required = schema["required"].as_array().into_iter().flatten().any(|k| k == key);
        let default = property.get("default").cloned();
        all.insert(path.clone(), Field { required, default });
        fields(root, property, &path, all);
    }
}

/// The words and numbers of a default.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map.values().flat_map(words).collect(),
        Value::Array(list) => list.iter().flat_map(words).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

#[test]
fn every_field_of_the_document_stands_in_its_page_and_the_page_invents_none() {
    let page = page("cluster-doc.5");
    let root = schema("cluster-doc", Section::ALL);
    let mut wrong = Vec::new();
    let mut count = 0;
    for section in Section::ALL {
        let key = section.key();
        let mut real = BTreeMap::new();
        fields(&root, &root["properties"]["spec"]["properties"][key], "", &mut real);
        let heading = format!(".Ss {key}");
        if !page.lines().any(|l| l == heading) {
            wrong.push(format!("the section {key} is missing"));
            continue;
        }
        let lines = part(&page, &heading);
        let told: BTreeMap<String, String> = items(&lines)
            .into_iter()
            .filter_map(|(head, text)| Some((arguments(&format!(".It {head}"), "Cm").first()?.clone(), text)))
            .collect();
        for (path, field) in &real {
            count += 1;
            let Some(text) = told.get(path) else {
                wrong.push(format!("{key}: {path} is missing"));
                continue;
            };
            if field.required && !text.contains("Required.") {
                wrong.push(format!("{key}: {path} is required, which the page does not say"));
            }
            for word in field.default.iter().flat_map(words) {
                let default = text.lines().skip_while(|l| !l.starts_with("Default: ")).collect::<String>();
                if !default.contains(&word) {
                    wrong.push(format!("{key}: {path} does not tell its default {word}"));
                }
            }
        }
        for path in told.keys().filter(|p| !real.contains_key(*p)) {
            wrong.push(format!("{key}: {path} is no field"));
        }
    }
    assert!(count > 100, "only {count} fields were found in the schema");
    assert!(wrong.is_empty(), "man/cluster-doc.5:\n{}", wrong.join("\n"));
}

#[test]
fn the_pages_are_clean_mdoc() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    pages.sort();
    let names: BTreeSet<String> =
        pages.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let mut wanted: BTreeSet<String> = commands().iter().map(|c| format!("{}.1", c.get_name())).collect();
    wanted.extend(["cluster-doc.5".to_owned(), "kubeline.7".to_owned()]);
    assert_eq!(names, wanted);
    match Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(&pages).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(said.is_empty(), "{said}");
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: the pages are not linted: mandoc is not installed (apt-get install mandoc)");
        }
        Err(e) => panic!("mandoc: {e}"),
    }
}
