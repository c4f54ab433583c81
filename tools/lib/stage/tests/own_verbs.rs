//! A toy tool with verbs of its own: each kind, its consent, its failures and its end.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test says what it expects.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cluster_doc::{Document, Exit, Section};
use serde::Serialize;
use serde_json::{Value, json};
use stage::{Consent, Ctx, Edges, Failure, Own, Plan, Site, Tool};

/// Keeps one file in its working directory: `bell`.
struct Toy;

#[derive(clap::Subcommand, Clone)]
enum Verb {
    /// Tell where the bell is
    Where,
    /// Tell whether the bell is there
    Look,
    /// Hang another bell
    Hang {
        name: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Ring the bell once
    Ring {
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(clap::Args, Clone)]
struct Flags {}

#[derive(Clone, PartialEq, Serialize)]
struct Hang(String);

impl std::fmt::Display for Hang {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hang the bell {}", self.0)
    }
}

impl Tool for Toy {
    const NAME: &'static str = "toy";
    const ABOUT: &'static str = "Hangs bells";
    const TEACH: &'static str = "";
    const READS: &'static [Section] = &[];
    type Flags = Flags;
    type Verb = Verb;
    type Want = PathBuf;
    type World = PathBuf;
    type Seen = Vec<String>;
    type Step = Hang;

    fn want(_: &Flags, _: &Document, site: &Site) -> Result<PathBuf, Failure> {
        Ok(site.absolute(std::path::Path::new(".")))
    }

    async fn connect(want: &PathBuf, _: &Ctx) -> Result<PathBuf, Failure> {
        Ok(want.clone())
    }

    async fn observe(world: &PathBuf, _: &PathBuf, _: &Ctx) -> Result<Vec<String>, Failure> {
        let mut names: Vec<String> =
            world.read_dir().unwrap().flatten().map(|f| f.file_name().into_string().unwrap()).collect();
        names.sort();
        Ok(names)
    }

    fn plan(_: &PathBuf, seen: &Vec<String>) -> Plan<Hang> {
        hanging("bell", seen)
    }

    async fn apply(step: &Hang, world: &PathBuf, _: &PathBuf, _: &Ctx) -> Result<(), Failure> {
        std::fs::write(world.join(&step.0), "").unwrap();
        Ok(())
    }

    fn status(_: &PathBuf, seen: &Vec<String>) -> Value {
        json!({ "bells": seen })
    }

    fn own(verb: &Verb, _: &PathBuf, _: &Site) -> Result<Own<Toy>, Failure> {
        Ok(match verb.clone() {
            Verb::Where => Own::Tell(Box::new(|_| Ok("in the tower\n".to_owned()))),
            Verb::Look => Own::Look(Box::new(|_, seen: &Vec<String>| {
                let exit = if seen.is_empty() { Exit::Differs } else { Exit::Done };
                Ok((format!("{} bells\n", seen.len()), exit))
            })),
            Verb::Hang { name, .. } if name.contains('/') => {
                return Err(Failure::new(Exit::Usage, format!("\"{name}\" is no bell's name")));
            }
            Verb::Hang { name, consent } => {
                Own::Settle { consent: Some(consent), planner: Box::new(move |_, seen| hanging(&name, seen)) }
            }
            Verb::Ring { consent } => Own::Once {
                consent: Some(consent),
                intent: Box::new(|_, seen| match seen.first() {
                    Some(bell) => Ok(format!("toy: rings {bell}\n")),
                    None => Err(Failure::precondition("there is no bell to ring").hint("toy apply")),
                }),
                run: Box::new(|world, _, seen, ctx| Box::pin(rung(world, seen, ctx))),
            },
        })
    }

    fn teardown(_: &PathBuf, _: &Vec<String>) -> Plan<Hang> {
        Plan::new()
    }
}

/// A bell with a rope rings until somebody has had enough.
async fn rung(world: &std::path::Path, seen: &[String], ctx: &Ctx) -> Result<String, Failure> {
    if world.join("rope").exists() {
        ctx.say("ringing");
        let long = std::time::Duration::from_secs(60);
        ctx.wait_for("silence", long, || async {
            Ok(match world.join("enough").exists() {
                true => stage::Waiting::Seen(()),
                false => stage::Waiting::NotYet("nobody has had enough".to_owned()),
            })
        })
        .await?;
    }
    Ok(format!("{} rang\n", seen[0]))
}

fn hanging(name: &str, seen: &[String]) -> Plan<Hang> {
    let mut plan = Plan::new();
    if !seen.iter().any(|s| s == name) {
        plan.step(Hang(name.to_owned()), "it is not there");
    }
    plan
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Edges with a document to read in this directory, and what is written to them.
fn edges(dir: &tempfile::TempDir) -> (Edges, Sink, Sink) {
    let document =
        json!({ "apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": { "name": "t" }, "spec": {} });
    let input = std::io::Cursor::new(document.to_string().into_bytes());
    let (stdout, stderr) = (Sink::default(), Sink::default());
    (Edges::plain(input, stdout.clone(), stderr.clone(), dir.path().to_owned()), stdout, stderr)
}

/// The line as on a terminal, with what a person there answers: standard output, standard error, exit code.
async fn toy(dir: &tempfile::TempDir, line: &str, answer: Option<&'static str>) -> (String, String, u8) {
    let (mut edges, stdout, stderr) = edges(dir);
    edges.prompt = answer.map(|answer| Arc::new(move |_: &str| Ok(answer.to_owned())) as stage::Prompt);
    let args = std::iter::once("toy").chain(line.split_whitespace()).map(Into::into).collect();
    let exit = stage::run::<Toy>(args, edges).await;
    (stdout.text(), stderr.text(), exit.code())
}

#[tokio::test]
async fn tell_and_look_write_their_text_and_end_as_they_say() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(toy(&dir, "where", None).await, ("in the tower\n".into(), String::new(), 0));
    assert_eq!(toy(&dir, "look", None).await, ("0 bells\n".into(), String::new(), 6));
    assert_eq!(toy(&dir, "apply", None).await.2, 0);
    assert_eq!(toy(&dir, "look", None).await, ("1 bells\n".into(), String::new(), 0));
}

#[tokio::test]
async fn settle_asks_then_makes_it_so_and_writes_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let (stdout, stderr, exit) = toy(&dir, "hang big", None).await;
    assert_eq!((stdout.as_str(), exit), ("", 4));
    assert!(
        stderr.contains("toy hang was not confirmed") && stderr.contains("hint: toy hang big --yes"),
        "{stderr}"
    );
    assert_eq!(toy(&dir, "hang big", Some("no\n")).await.2, 4);
    let (stdout, _, exit) = toy(&dir, "hang big --plan", None).await;
    assert!(stdout.contains("hang the bell big") && exit == 0, "{stdout}");
    assert!(!dir.path().join("big").exists());

    let (stdout, _, exit) = toy(&dir, "hang big", Some("yes\n")).await;
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((document["status"]["toy"].clone(), exit), (json!({ "bells": ["big"] }), 0));
    // What is so already is not asked about.
    assert_eq!(toy(&dir, "hang big", None).await, (stdout, String::new(), 0));
    assert_eq!(toy(&dir, "hang a/b --yes", None).await.2, 2);
}

#[tokio::test]
async fn once_refuses_from_what_is_seen_and_asks_with_its_intent() {
    let dir = tempfile::tempdir().unwrap();
    let (_, stderr, exit) = toy(&dir, "ring --yes", None).await;
    assert!(stderr.contains("there is no bell to ring") && exit == 4, "{stderr}");
    assert_eq!(toy(&dir, "apply", None).await.2, 0);
    assert_eq!(toy(&dir, "ring --plan", None).await, ("toy: rings bell\n".into(), String::new(), 0));
    assert_eq!(toy(&dir, "ring", None).await.2, 4);
    assert_eq!(toy(&dir, "ring", Some("yes\n")).await, ("bell rang\n".into(), String::new(), 0));
}

#[tokio::test]
async fn a_first_ctrl_c_lets_it_finish_and_a_second_one_aborts_it() {
    for presses in [1, 2] {
        let (sender, interrupts) = tokio::sync::watch::channel(0);
        let dir = tempfile::tempdir().unwrap();
        for name in ["bell", "rope"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let (mut edges, stdout, stderr) = edges(&dir);
        edges.interrupts = interrupts;
        let args = ["toy", "ring", "--yes"].iter().map(Into::into).collect();
        let run = tokio::spawn(stage::run::<Toy>(args, edges));
        while !stderr.text().contains("ringing") {
            tokio::task::yield_now().await;
        }
        sender.send(1).unwrap();
        while !stderr.text().contains("Ctrl-C again") {
            tokio::task::yield_now().await;
        }
        if presses == 2 {
            sender.send(2).unwrap();
            assert_eq!(run.await.unwrap().code(), 130);
            assert!(stderr.text().contains("aborted in the middle of ring"), "{}", stderr.text());
        } else {
            std::fs::write(dir.path().join("enough"), "").unwrap();
            assert_eq!(run.await.unwrap().code(), 0);
            assert_eq!(stdout.text(), "bell rang\n");
        }
    }
}
