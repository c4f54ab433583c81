//! One run of a tool: the verb, its movements, its end.

use std::path::Path;
use std::sync::Arc;

use clap::{CommandFactory as _, FromArgMatches as _};
use cluster_doc::{Document, Exit, Section, schema};
use serde_json::Value;

use crate::args::{Cli, Common, Verb};
use crate::ctx::{Ctx, Inner};
use crate::events::Events;
use crate::frame::{Frame, looking};
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::settle::{Scene, exit_of};
use crate::{Edges, Failure, Own, Prompt, Site, Tool, checks, input, saved};

/// The command line of a tool, for its help, its completions and its manual's test.
pub fn command<T: Tool>() -> clap::Command {
    Cli::<T::Flags, T::Verb>::command().name(T::NAME).bin_name(T::NAME).about(T::ABOUT).after_help(T::TEACH)
}

/// Runs a tool with these arguments (the first is the program's name) and edges.
pub async fn run<T: Tool>(args: Vec<std::ffi::OsString>, edges: Edges) -> Exit {
    let Edges {
        stdin, stdin_is_terminal, stdout, stderr, stderr_is_terminal, prompt, env, working_dir, ..
    } = edges;
    let frame = (edges.interrupts, edges.crash_after, edges.crashed);
    let line = typed(T::NAME, &args);
    let matches = command::<T>().try_get_matches_from(args);
    let name = matches.as_ref().ok().and_then(|m| m.subcommand_name()).unwrap_or("apply").to_owned();
    let parsed = matches.and_then(|m| Cli::<T::Flags, T::Verb>::from_arg_matches(&m));
    let mut output = Output { stdout, file: None };
    let quiet = Progress::new(
        T::NAME,
        stderr.clone(),
        false,
        crate::args::When::Never,
        crate::args::LogForm::Text,
        0,
    );
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) if !e.use_stderr() => {
            return ended::<T>(output.write(e.render().to_string().as_bytes()), &quiet);
        }
        Err(e) => {
            quiet.raw(&e.render().to_string());
            return Exit::Usage;
        }
    };
    let common = cli.common;
    let site = Site::new(working_dir, env);
    let progress =
        Progress::new(T::NAME, stderr, stderr_is_terminal, common.progress, common.log, common.verbose);
    output.file = common.output.as_deref().map(|path| site.absolute(path));
    let verb = match cli.verb {
        None if stdin_is_terminal && common.file.is_none() => {
            let help = command::<T>().render_help().to_string();
            return ended::<T>(output.write(help.as_bytes()), &quiet);
        }
        verb => verb.unwrap_or(Verb::Apply { plan: None }),
    };
    match verb {
        Verb::Schema => {
            let text = serde_json::to_string_pretty(&schema(T::NAME, T::READS)).unwrap_or_default() + "\n";
            return ended::<T>(output.write(text.as_bytes()), &progress);
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command::<T>(), T::NAME, &mut text);
            return ended::<T>(output.write(&text), &progress);
        }
        _ => {}
    }
    let (interrupts, crash_after, crashed) = frame;
    let result = async {
        let events = common.events.as_deref().map(|path| site.absolute(path));
        let events = Events::open(T::NAME, events.as_deref())?;
        let frame = Frame { line, events, verbose: common.verbose, interrupts, crash_after, crashed };
        let file = common.file.as_deref().map(|path| site.absolute(path));
        let status = common.status.as_deref().map(|path| site.absolute(path));
        let doc = input::document(stdin, file.as_deref(), status.as_deref())?;
        let ctx = Ctx {
            inner: Arc::new(Inner {
                tool: T::NAME,
                verb: name.clone(),
                site,
                jobs: common.jobs.map(usize::from),
                progress: progress.clone(),
                accept_new_host_keys: common.accept_new_host_keys,
            }),
        };
        bounded::<T>((&name, verb), &cli.own, &common, &doc, &ctx, &frame, &mut output, prompt).await
    };
    match result.await {
        Ok(exit) => exit,
        Err(failure) => ended::<T>(Err(failure), &progress),
    }
}

/// The command line, quoted for a shell.
fn typed(name: &str, args: &[std::ffi::OsString]) -> String {
    let args: Vec<_> = args.iter().skip(1).map(|arg| arg.to_string_lossy()).collect();
    let words = std::iter::once(name).chain(args.iter().map(AsRef::as_ref));
    shlex::try_join(words).unwrap_or_else(|_| name.to_owned())
}

/// Ends a run: nothing more than the exit, or the failure's words as well.
fn ended<T: Tool>(result: Result<(), Failure>, progress: &Progress) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(failure) => {
            progress.raw(&failure.print(T::NAME));
            failure.exit
        }
    }
}

/// Runs the verb until it ends, the time is up, or Ctrl-C ends a movement that changes nothing.
#[allow(clippy::too_many_arguments)] // One call, from above: a struct would only name the same eight again.
async fn bounded<T: Tool>(
    verb: (&str, Verb<T::Verb>),
    flags: &T::Flags,
    common: &Common,
    doc: &Document,
    ctx: &Ctx,
    frame: &Frame,
    output: &mut Output,
    prompt: Option<Prompt>,
) -> Result<Exit, Failure> {
    let run = tokio::time::timeout(common.timeout, act::<T>(verb, flags, doc, ctx, frame, output, prompt));
    run.await.unwrap_or_else(|_| {
        let mut failure =
            Failure::transient(format!("stopped after {} s (--timeout)", common.timeout.as_secs()));
        if let Some(what) = ctx.inner.progress.last_waiting() {
            failure = failure.because(format!("it was waiting for {what}"));
        }
        Err(failure.hint("run again: it goes on where it stopped; or give it more time with --timeout"))
    })
}

async fn act<T: Tool>(
    (name, verb): (&str, Verb<T::Verb>),
    flags: &T::Flags,
    doc: &Document,
    ctx: &Ctx,
    frame: &Frame,
    output: &mut Output,
    prompt: Option<Prompt>,
) -> Result<Exit, Failure> {
    if let Verb::Lint = verb {
        let spec = doc.spec(Section::ALL)?;
        for warning in doc.warnings(&spec) {
            ctx.say(&format!("warning: {warning}"));
        }
        return Ok(Exit::Done);
    }
    if let Verb::Get { pointer } = &verb {
        output.write(value_at(doc, pointer)?.as_bytes())?;
        return Ok(Exit::Done);
    }
    let want = T::want(flags, doc, ctx.site())?;
    let want = looking(frame, T::prepare(want, ctx)).await?;
    if let Verb::Render { only, dir } = &verb {
        return render::<T>(&want, only.as_deref(), dir.as_deref(), ctx.site(), output);
    }
    let own = match &verb {
        Verb::Own(own) => match T::own(own, &want, ctx.site())? {
            Own::Tell(tell) => {
                output.write(tell(&want)?.as_bytes())?;
                return Ok(Exit::Done);
            }
            own => Some(own),
        },
        _ => None,
    };
    let world = looking(frame, T::connect(&want, ctx)).await?;
    let seen = looking(frame, T::observe(&world, &want, ctx)).await?;
    let scene = Scene::<T> { verb: name, world: &world, want: &want, doc, ctx, frame, prompt };
    if let Some(own) = own {
        return scene.own(own, seen, output).await;
    }
    match verb {
        Verb::Plan { json, save } => {
            let plan = T::plan(&want, &seen);
            if let Some(path) = save {
                saved::save::<T>(&plan, &doc.spec_text(), &ctx.site().absolute(&path))?;
            }
            let text = if json { pretty(&plan.json(T::NAME)) } else { plan.text(T::NAME) };
            output.write(text.as_bytes())?;
            Ok(Exit::Done)
        }
        Verb::Check { json, metrics } => {
            let mut findings = checks::of_plan(&T::plan(&want, &seen));
            findings.extend(T::check(&want, &seen));
            if let Some(path) = metrics {
                let text = checks::metrics(T::NAME, &findings);
                output::write_file(&ctx.site().absolute(&path), text.as_bytes(), 0o644)?;
            }
            let text = if json {
                pretty(&checks::json(T::NAME, &findings))
            } else {
                checks::text(T::NAME, &findings) + &T::overview(&want, &seen).unwrap_or_default()
            };
            output.write(text.as_bytes())?;
            Ok(if findings.is_empty() { Exit::Done } else { Exit::Differs })
        }
        Verb::Destroy(consent) => {
            let Some((held, _)) = scene.made_so(Some(consent), &T::teardown, seen, output).await? else {
                return Ok(Exit::Done);
            };
            output.write(doc.without_status(T::NAME).as_bytes())?;
            Ok(exit_of(&held))
        }
        Verb::Apply { plan: file } => {
            let plan = T::plan(&want, &seen);
            let (guard, plan, seen) = scene.guarded(plan, &T::plan, seen).await?;
            if let Some(path) = file {
                saved::confirm::<T>(&plan, &doc.spec_text(), &ctx.site().absolute(&path))?;
            }
            let (held, seen) = scene.settle(plan, &T::plan, seen).await?;
            drop(guard);
            scene.told(&held, &seen, output)
        }
        Verb::Lint
        | Verb::Get { .. }
        | Verb::Render { .. }
        | Verb::Schema
        | Verb::Completions { .. }
        | Verb::Own(_) => Ok(Exit::Done),
    }
}

/// A text as it is, anything else as JSON.
fn value_at(doc: &Document, pointer: &str) -> Result<String, Failure> {
    match doc.at(pointer) {
        Some(Value::String(text)) => Ok(format!("{text}\n")),
        Some(value) => Ok(pretty(value)),
        None => Err(Failure::new(Exit::Refused, format!("the document has nothing at {pointer}"))),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn render<T: Tool>(
    want: &T::Want,
    only: Option<&str>,
    dir: Option<&Path>,
    site: &Site,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let Some(files) = T::render(want)? else {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} installs no files: there is nothing to render", T::NAME),
        ));
    };
    let files: Vec<_> =
        files.into_iter().filter(|f| only.is_none_or(|only| f.path.starts_with(only))).collect();
    if files.is_empty() {
        let only = only.unwrap_or_default();
        return Err(Failure::new(Exit::Usage, format!("no file's path begins with \"{only}\""))
            .hint(format!("{} render --dir DIR, then look what there is", T::NAME)));
    }
    if let Some(dir) = dir {
        for file in &files {
            output::write_file(&site.absolute(dir).join(&file.path), &file.content, 0o644)?;
        }
        return Ok(Exit::Done);
    }
    let mut text = Vec::new();
    for file in &files {
        if files.len() > 1 {
            text.extend_from_slice(format!("# {}\n", file.path).as_bytes());
        }
        text.extend_from_slice(&file.content);
    }
    output.write(&text)?;
    Ok(Exit::Done)
}
