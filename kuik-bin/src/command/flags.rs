//! `kuik flags`: the flag reference of all programs as Markdown, generated from the command line definitions.
//!
//! `docs/flags.md` contains the same text; a test compares the two, and `make flags` updates it.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use clap::{Arg, Command, CommandFactory as _};

use super::{Cli, controller, proxy, registry, webhook};
use crate::cli_error::CliError;

const HEAD: &str = "# Flags\n\nGenerated from the command line definitions by `make flags`. `--help` prints the same texts.\n\n\
                    Programs with `--config` also read each flag from a YAML file, in camel case (`dataDir` for `--data-dir`). Flags take\n\
                    precedence over environment variables, and these over the file.\n";

/// Print the flags of all programs as Markdown.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

impl Arguments {
    /// Prints the page.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn run(&self) -> Result<(), CliError> {
        let page = page().map_err(CliError::new)?;
        std::io::stdout().lock().write_all(page.as_bytes()).map_err(CliError::new)
    }
}

fn page() -> Result<String, fmt::Error> {
    let mut page = HEAD.to_owned();
    for mut program in [
        Cli::command(),
        webhook::Cli::command(),
        proxy::Cli::command(),
        controller::Cli::command(),
        registry::Cli::command(),
    ] {
        program.build();
        sections(&mut page, &program, program.get_name())?;
    }
    Ok(page)
}

/// Writes the sections of a command and of its subcommands.
fn sections(page: &mut String, command: &Command, name: &str) -> fmt::Result {
    let mut flags: Vec<_> = command.get_arguments().filter(|flag| is_listed(flag)).collect();
    flags.sort_by_key(|flag| flag.get_long());
    if !flags.is_empty() {
        write!(
            page,
            "\n## `{name}`\n\n| flag | default | meaning | environment variable |\n|---|---|---|---|\n"
        )?;
        flags.into_iter().try_for_each(|flag| row(page, flag))?;
    }
    let listed = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    command
        .get_subcommands()
        .filter(listed)
        .try_for_each(|command| sections(page, command, &format!("{name} {}", command.get_name())))
}

fn is_listed(flag: &Arg) -> bool {
    flag.get_long().is_some() && !flag.is_hide_set() && !matches!(flag.get_id().as_str(), "help" | "version")
}

fn row(page: &mut String, flag: &Arg) -> fmt::Result {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let (meaning, default) = split_default(&help);
    let given: Vec<_> = flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match default {
        Some(default) => default.to_owned(),
        None if flag.is_required_set() => "required".to_owned(),
        None if flag.get_action().takes_values() => given.join(", "),
        None => "false".to_owned(),
    };
    let variable = flag.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    writeln!(
        page,
        "| {} | {} | {} | {variable} |",
        cell(&usage(flag)),
        cell(&default),
        cell(&meaning.replace('\n', " "))
    )
}

/// Splits `text [default: value]` or `text [required]`.
fn split_default(help: &str) -> (&str, Option<&str>) {
    let Some((text, note)) =
        help.rsplit_once('[').and_then(|(text, note)| Some((text, note.strip_suffix(']')?)))
    else {
        return (help, None);
    };
    match note.strip_prefix("default:") {
        Some(default) => (text.trim_end(), Some(default.trim())),
        None if note == "required" => (text.trim_end(), Some(note)),
        None => (help, None),
    }
}

/// Returns a flag with its value, as in `--data-dir DIR`.
fn usage(flag: &Arg) -> String {
    let short = flag.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let long = flag.get_long().unwrap_or_default();
    let value = flag.get_value_names().unwrap_or_default().first();
    match value.filter(|_| flag.get_action().takes_values()) {
        None => format!("`{short}--{long}`"),
        Some(value) if flag.get_num_args().is_some_and(|count| count.min_values() == 0) => {
            format!("`{short}--{long}[={value}]`")
        }
        Some(value) => format!("`{short}--{long} {value}`"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
