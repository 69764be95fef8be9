//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::model_flags::ModelFlags;
use crate::claude::permissions;
use crate::engine::argv::MAX_OUTPUT_TOKENS;
use crate::gateway;
use crate::settings::key::{LARGEST_WINDOW, MEM_CHECK, SMALLEST_WINDOW};
use crate::sys::tokens;

/// The longest time for which an engine is kept without a session, in seconds: a day.
pub const LONGEST_LINGER: u64 = crate::supervisor::state::LONGEST_LINGER.as_secs();

/// The longest time that requests wait for an engine that is away, in minutes: a day.
const LONGEST_WAIT: i64 = crate::settings::key::LONGEST_WAIT as i64;

#[derive(Debug, Parser)]
#[command(
    name = "cclocal",
    version,
    about = "Run Claude Code on a language model on your own machine",
    args_conflicts_with_subcommands = true,
    after_help = "Without a model flag, cclocal shows a menu.\n\nOptions of Claude Code go to it, as do arguments after --: cclocal gemma --continue\nThose that would lead off this machine are refused."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<CliCommand>,
    #[command(flatten)]
    pub launch: LaunchArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Install the engine into a private folder
    Setup(SetupArgs),
    /// Check that everything works: Claude Code writes a file with a tiny built-in model
    Demo(DemoArgs),
    /// Look for what is wrong, and say what to do about it; change nothing
    Doctor(DoctorArgs),
    /// Load a model without Claude Code, and print how to connect to it
    Server(Box<LaunchArgs>),
    /// Run Claude Code on a model that is already loaded
    Connect(ConnectArgs),
    /// Download a model, and start nothing
    Pull(PullArgs),
    /// Show loaded models: memory, sessions, requests
    Status(StatusArgs),
    /// Unload models, which frees their memory
    Stop(StopArgs),
    /// Show the engine's log
    Logs(LogsArgs),
    /// Show, set and edit the settings of ~/.config/cclocal/config.toml
    Config(ConfigArgs),
    /// List the models in the Hugging Face cache and their sizes
    #[command(long_flag = "list", short_flag = 'l')]
    List(ListArgs),
    /// Remove models from the Hugging Face cache
    #[command(long_flag = "rm", long_flag_alias = "clean")]
    Rm(RmArgs),
    /// Print the completions of a shell: of commands, options and models
    Completions {
        /// bash, zsh or fish
        shell: Shell,
    },
    /// Print the manual page, for man
    Man,
    /// Own one engine in the background; run by cclocal itself
    #[command(hide = true)]
    Supervisor,
    /// Read a PDF from standard input; run by cclocal itself
    #[command(hide = true, name = gateway::READ_PDF)]
    ReadPdf,
    /// Allow a tool call from standard input, as a hook of Claude Code; run by cclocal itself
    #[command(hide = true, name = permissions::HOOK)]
    AllowTool { note: PathBuf },
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// A model of the catalogue, such as gemma, one of your own by name, or a hub id (org/name)
    pub model: String,
    /// Do not ask: install the engine, which downloads it, if it is missing
    #[arg(long, short = 'y')]
    pub yes: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print one value, as it counts now
    Get {
        /// Such as ctx, or models.NAME.ctx
        key: String,
    },
    /// Set a value in the settings file
    Set {
        /// Such as ctx, or models.NAME.id
        key: String,
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Take a value out of the settings file, or a whole model: models.NAME
    Unset {
        /// Such as ctx, models.NAME.ctx or models.NAME
        key: String,
    },
    /// Open the settings file in $VISUAL or $EDITOR, and check it afterwards
    Edit,
    /// Print the path of the settings file
    Path,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON: sizes in bytes, times in seconds
    #[arg(long)]
    pub json: bool,
    /// Repeat each second until Ctrl-C; with --json one line each second
    #[arg(long, short)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Only the engine on this port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Also if sessions use it: they end
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Port of the engine [default: the only one that runs, else 8000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Follow the log until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Port of the engine [default: the only one that runs, else 8000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Keep-alive: how long the model stays loaded after its last session; 0 unloads it at once [default: 300] [env: CCLOCAL_LINGER]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=LONGEST_LINGER))]
    pub linger: Option<u64>,
    /// Web search, whose queries leave this machine: the URL of a SearXNG instance, brave (with BRAVE_API_KEY) or tavily (with TAVILY_API_KEY), or off [default: off]
    #[arg(long, value_name = "SERVICE")]
    pub web_search: Option<String>,
    #[command(flatten)]
    pub asking: AskingArgs,
    /// Accepted only for an error that points to `--connect`.
    #[arg(hide = true)]
    pub url: Option<String>,
    /// Pass on options after -- that cclocal does not know; they may lead off this machine
    #[arg(long)]
    pub pass_unknown: bool,
    /// Arguments for Claude Code
    #[arg(last = true, value_name = "CLAUDE ARGS")]
    pub claude_args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON: sizes in bytes
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Hugging Face id (org/name) or name of a model flag (gemma) [default: choose from a list]
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Install the engine again, even if it works
    #[arg(long)]
    pub force: bool,
    /// Also install Claude Code if it is missing: with npm, into cclocal's own folder
    #[arg(long)]
    pub client: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Do not ask: install what is missing (the engine from PyPI, Claude Code from npm)
    #[arg(long, short)]
    pub yes: bool,
    /// Keep the demo's folder
    #[arg(long)]
    pub keep: bool,
}

/// Whether tools ask.
#[derive(Debug, Args)]
pub struct AskingArgs {
    /// Ask before Claude Code's tools change or run anything; reading files is allowed [default: ask only with --connect]
    #[arg(long, overrides_with = "no_ask")]
    pub ask: bool,
    /// Run Claude Code's tools without asking, Bash included
    #[arg(long, overrides_with = "ask")]
    pub no_ask: bool,
}

impl AskingArgs {
    /// The choice that was made, if one was.
    pub fn given(&self) -> Option<bool> {
        (self.ask || self.no_ask).then_some(self.ask)
    }

    /// Takes this as the choice where none was made.
    pub fn or(&mut self, choice: Option<bool>) {
        if let (None, Some(asks)) = (self.given(), choice) {
            (self.ask, self.no_ask) = (asks, !asks);
        }
    }
}

/// `--ctx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// By this machine's memory.
    Auto,
    Tokens(u64),
}

impl Window {
    /// The window that was asked for, in tokens.
    pub fn tokens(self) -> Option<u64> {
        match self {
            Window::Auto => None,
            Window::Tokens(tokens) => Some(tokens),
        }
    }
}

fn window(text: &str) -> Result<Window, String> {
    match tokens::parse(text) {
        _ if text == "auto" => Ok(Window::Auto),
        Some(tokens) if (SMALLEST_WINDOW..=LARGEST_WINDOW).contains(&tokens) => {
            Ok(Window::Tokens(tokens))
        }
        _ => Err(format!(
            "use `auto`, or {SMALLEST_WINDOW} to {LARGEST_WINDOW} tokens, such as 64k"
        )),
    }
}

fn reply(text: &str) -> Result<u64, String> {
    tokens::parse(text)
        .filter(|tokens| (1..=MAX_OUTPUT_TOKENS).contains(tokens))
        .ok_or_else(|| format!("use 1 to {MAX_OUTPUT_TOKENS} tokens, such as 8k"))
}

// The variables are named in the words of the options, not read by clap: what it read from one would conflict with `--connect` and with other options, and
// an empty one would be wrong.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    #[command(flatten)]
    pub model: ModelFlags,
    /// Choose from the menu, even if the settings file names a model
    #[arg(long, conflicts_with_all = ModelFlags::all())]
    pub menu: bool,
    #[command(flatten)]
    pub asking: AskingArgs,
    /// Load the model without Claude Code, and print how to connect to it
    #[arg(long)]
    pub server: bool,
    /// Port on 127.0.0.1 [default: the first free one from 8000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Context window in tokens; auto fits it to the memory [default: auto]
    #[arg(long, value_name = "N|auto", value_parser = window)]
    pub ctx: Option<Window>,
    /// Longest reply in tokens, thinking included; a file that Claude Code writes must fit in one reply [default: 8192, or 4096 if memory is short]
    #[arg(long, value_name = "N", value_parser = reply)]
    pub out_tokens: Option<u64>,
    /// Let the model see pictures; slower, as each turn computes the whole conversation [default: text only]
    #[arg(long)]
    pub vision: bool,
    /// Turn off what the settings file turns on
    #[arg(long, hide = true, overrides_with = "vision")]
    pub no_vision: bool,
    /// Let the model think before it answers, if it can, and show its thinking, which counts towards --out-tokens [default: off]
    #[arg(long)]
    pub think: bool,
    /// Turn off what the settings file turns on
    #[arg(long, hide = true, overrides_with = "think")]
    pub no_think: bool,
    /// Keep-alive: how long the model stays loaded after its last session; 0 unloads it at once [default: 300] [env: CCLOCAL_LINGER]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=LONGEST_LINGER))]
    pub linger: Option<u64>,
    /// Do not store the computed system prompt on disk, and delete what is stored; engines that run already are not changed [env: CCLOCAL_FORGET_PREFIX]
    #[arg(long)]
    pub forget_prefix: bool,
    /// Turn off what the settings file turns on
    #[arg(long, hide = true, overrides_with = "forget_prefix")]
    pub no_forget_prefix: bool,
    /// Web search, whose queries leave this machine: the URL of a SearXNG instance, brave (with BRAVE_API_KEY) or tavily (with TAVILY_API_KEY), or off [default: off]
    #[arg(long, value_name = "SERVICE")]
    pub web_search: Option<String>,
    /// Show the memory plan and ask before the start, even if the model fits easily [env: CCLOCAL_FORCE_MEMCHECK]
    #[arg(long, conflicts_with = "no_mem_check")]
    pub safe: bool,
    /// Start the model even if it does not fit in memory; it may crash [env: CCLOCAL_NO_MEMCHECK]
    #[arg(long)]
    pub no_mem_check: bool,
    /// As the settings file has it: always is --safe, never is --no-mem-check
    #[arg(long, hide = true, value_parser = MEM_CHECK.to_vec(), conflicts_with_all = ["safe", "no_mem_check"])]
    pub mem_check: Option<String>,
    /// Do not ask: install the engine if it is missing
    #[arg(long, short)]
    pub yes: bool,
    /// Print what would run, and why; start and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Pass on options after -- that cclocal does not know; they may lead off this machine
    #[arg(long)]
    pub pass_unknown: bool,
    /// Arguments for Claude Code
    #[arg(last = true, value_name = "CLAUDE ARGS")]
    pub claude_args: Vec<OsString>,
}

/// Options for engines that cclocal does not run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Other engines")]
pub struct RemoteArgs {
    /// Run Claude Code on the engine at this URL (vllm-mlx or vLLM), also on another machine, or of this name in the settings file; prompts go there
    #[arg(long, value_name = "URL", conflicts_with_all = of_this_machine())]
    pub connect: Option<String>,
    /// With --connect: name of the variable that holds the engine's token
    #[arg(long, value_name = "NAME", requires = "connect", conflicts_with_all = of_this_machine())]
    pub token_env: Option<String>,
    /// With --connect: requests at a time, for agents and background questions [default: what the engine says, else 4]
    #[arg(long, value_name = "N", requires = "connect", conflicts_with_all = of_this_machine(), value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: Option<u16>,
    /// With --connect: how long requests wait for an engine that is away [default: 15]
    #[arg(long, value_name = "MINUTES", requires = "connect", conflicts_with_all = of_this_machine(), value_parser = clap::value_parser!(u16).range(..=LONGEST_WAIT))]
    pub wait: Option<u16>,
    /// With --connect: allow plain http to another machine
    #[arg(long, requires = "connect", conflicts_with_all = of_this_machine())]
    pub insecure: bool,
}

/// Options for an engine of this machine, which conflict with those for other engines. clap requires nothing that conflicts with an option that is
/// there, so each of the others has to name them.
fn of_this_machine() -> Vec<String> {
    let options = [
        "server",
        "port",
        "think",
        "linger",
        "forget_prefix",
        "safe",
        "no_mem_check",
        "mem_check",
        "yes",
        "menu",
    ];
    let models = ModelFlags::names().map(|(flag, _)| flag);
    models.chain(options.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
