//! The command line.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::catalog::{Choice, catalog, parse_model_argument};
use crate::engine::argv::MAX_OUTPUT_TOKENS;
use crate::error::{Error, Result};
use crate::gateway;
use crate::sys::environment::Environment;

/// The longest time for which an engine is kept without a session, in seconds: a day.
pub const LONGEST_LINGER: u64 = crate::supervisor::state::LONGEST_LINGER.as_secs();

/// The smallest window that can be asked for, in tokens: less holds no session (see `memory::smallest_window`).
const SMALLEST_WINDOW: u64 = 20_480;
/// The largest, in tokens: what the client assumes of a model it does not know.
const LARGEST_WINDOW: u64 = 1_000_000;

#[derive(Debug, Parser)]
#[command(
    name = "cclocal",
    version,
    about = "Claude Code on a model that runs on your own machine",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "What follows -- goes to Claude Code unchanged: cclocal --gemma -- --continue\nWithout a model flag a menu opens, on a terminal."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<CliCommand>,
    #[command(flatten)]
    pub launch: LaunchArgs,
    #[command(flatten)]
    pub elsewhere: ElsewhereArgs,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Install the engine into a private folder (and Claude Code, with --client)
    Setup(SetupArgs),
    /// Run the whole chain on a built-in model: a real tool call writes a real file
    Demo(DemoArgs),
    /// Start the engine alone and print the command that connects Claude Code to it from another terminal
    Server(Box<LaunchArgs>),
    /// Run Claude Code in this folder on an engine of cclocal that runs already on this machine
    Connect(ConnectArgs),
    /// Show what runs: models, memory, sessions, requests
    Status(StatusArgs),
    /// End what runs, which frees its memory
    Stop(StopArgs),
    /// Show the engine's log
    Logs(LogsArgs),
    /// List the models in the Hugging Face cache, with their real sizes
    #[command(long_flag = "list", short_flag = 'l')]
    List(ListArgs),
    /// Remove models from the Hugging Face cache
    #[command(long_flag = "rm", long_flag_alias = "clean")]
    Rm(RmArgs),
    /// Own one engine in the background; run by cclocal itself
    #[command(hide = true)]
    Supervisor,
    /// Read a PDF from standard input; run by cclocal itself
    #[command(hide = true, name = gateway::READ_PDF)]
    ReadPdf,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As JSON, sizes in bytes, times in seconds
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Only the engine at this port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Also under sessions that use it
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Of the engine at this port [default: of the only one that runs, else 8000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Go on until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// The engine's port [default: of the only one that runs, else 8000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How long the model stays loaded after its last session [default: 300; 0 ends it at once] [env: CCLOCAL_LINGER]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=LONGEST_LINGER))]
    pub linger: Option<u64>,
    /// Let Claude Code search the web; its queries leave this machine: the URL of a SearXNG instance, brave or tavily [default: no web search]
    #[arg(long, value_name = "URL")]
    pub web_search: Option<String>,
    /// Taken only to say where it belongs.
    #[arg(hide = true)]
    pub url: Option<String>,
    /// Pass options after `--` on that cclocal does not know: whether the session then stays on this machine is not known either
    #[arg(long)]
    pub pass_unknown: bool,
    /// Arguments for Claude Code
    #[arg(last = true, value_name = "CLAUDE ARGS")]
    pub claude_args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// As JSON, sizes in bytes
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// What to remove: a Hugging Face id (org/name) or a model flag's name (gemma). Without one, a list to choose from
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// Ask nothing
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Ask nothing
    #[arg(long, short)]
    pub yes: bool,
    /// Install the engine anew, even if it looks fine
    #[arg(long)]
    pub force: bool,
    /// Install Claude Code too, with npm, into cclocal's own folder, if it is missing
    #[arg(long)]
    pub client: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Ask nothing: install what is missing (the engine from PyPI, Claude Code from npm)
    #[arg(long, short)]
    pub yes: bool,
    /// Keep the scratch folder
    #[arg(long)]
    pub keep: bool,
}

/// `--ctx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// By this machine's memory.
    Auto,
    Tokens(u64),
}

impl Window {
    /// What was asked for, in tokens.
    pub fn tokens(self) -> Option<u64> {
        match self {
            Window::Auto => None,
            Window::Tokens(tokens) => Some(tokens),
        }
    }
}

fn window(text: &str) -> std::result::Result<Window, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Window::Auto),
        Ok(tokens) if (SMALLEST_WINDOW..=LARGEST_WINDOW).contains(&tokens) => {
            Ok(Window::Tokens(tokens))
        }
        _ => Err(format!(
            "it is `auto`, or from {SMALLEST_WINDOW} to {LARGEST_WINDOW} tokens"
        )),
    }
}

// The variables are named in the words of the options, not read by clap: what it read from one would conflict with `--connect` and with other options, and
// an empty one would be wrong.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    #[command(flatten)]
    pub model: ModelFlags,
    /// Start the engine alone and print the command that connects Claude Code to it
    #[arg(long)]
    pub server: bool,
    /// Port on 127.0.0.1 that Claude Code talks to [default: 8000, or the next that is free]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Context window in tokens [default: auto, by this machine's memory]
    #[arg(long, value_name = "N|auto", value_parser = window)]
    pub ctx: Option<Window>,
    /// Longest reply in tokens, thoughts included; a file that is written has to fit in one [default: 8192, or 4096 where memory is short]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_OUTPUT_TOKENS))]
    pub out_tokens: Option<u64>,
    /// Serve the whole model, pictures included; each turn is then computed anew [default: its text part, where it has one]
    #[arg(long)]
    pub vision: bool,
    /// Let the model think before it answers, where it can, and show its thoughts; they count against --out-tokens [default: it does not]
    #[arg(long)]
    pub think: bool,
    /// How long the model stays loaded after its last session [default: 300; 0 ends it at once] [env: CCLOCAL_LINGER]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=LONGEST_LINGER))]
    pub linger: Option<u64>,
    /// Keep nothing on the disk of what the model computed of Claude Code's system prompt and tools, and remove what is kept; engines that run already go on as they were started [env: CCLOCAL_FORGET_PREFIX]
    #[arg(long)]
    pub forget_prefix: bool,
    /// Let Claude Code search the web; its queries leave this machine: the URL of a SearXNG instance, brave (with BRAVE_API_KEY) or tavily (with TAVILY_API_KEY) [default: no web search]
    #[arg(long, value_name = "URL")]
    pub web_search: Option<String>,
    /// Show what memory is planned for and what can be done, however much there is [env: CCLOCAL_FORCE_MEMCHECK]
    #[arg(long, conflicts_with = "no_mem_check")]
    pub safe: bool,
    /// Start it whatever memory there is: what does not fit is tried in the thriftiest way [env: CCLOCAL_NO_MEMCHECK]
    #[arg(long)]
    pub no_mem_check: bool,
    /// Ask nothing: install the engine if it is missing
    #[arg(long, short)]
    pub yes: bool,
    /// Print what would be run, and why; start nothing, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Pass options after `--` on that cclocal does not know: whether the session then stays on this machine is not known either
    #[arg(long)]
    pub pass_unknown: bool,
    /// Arguments for Claude Code
    #[arg(last = true, value_name = "CLAUDE ARGS")]
    pub claude_args: Vec<OsString>,
}

/// What has to do with engines that somebody else runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engines that others run")]
pub struct ElsewhereArgs {
    /// Run Claude Code on the engine at this URL (vllm-mlx, or vLLM), maybe of another machine: prompts go there, and no engine is started
    #[arg(long, value_name = "URL", conflicts_with_all = of_this_machine())]
    pub connect: Option<String>,
    /// With --connect: the variable that holds the engine's token
    #[arg(long, value_name = "NAME", requires = "connect", conflicts_with_all = of_this_machine())]
    pub token_env: Option<String>,
    /// With --connect: allow plain http to another machine
    #[arg(long, requires = "connect", conflicts_with_all = of_this_machine())]
    pub insecure: bool,
}

/// What is said of an engine of this machine, and has no meaning for any other. clap requires nothing that conflicts with what is there, so each
/// option of the others has to name them.
fn of_this_machine() -> Vec<String> {
    let options = [
        "server",
        "port",
        "think",
        "linger",
        "forget_prefix",
        "safe",
        "no_mem_check",
        "yes",
    ];
    let models = ModelFlags::names().map(|(flag, _)| flag);
    models.chain(options.map(str::to_owned)).collect()
}

/// The model flags: one for each model of the catalogue and each alias, and `--model`.
#[derive(Debug, Default)]
pub struct ModelFlags {
    /// The flags that were given, in the catalogue's order.
    flags: Vec<String>,
    model: Option<String>,
}

impl ModelFlags {
    /// The one model that was asked for. More than one is a usage error.
    pub fn choice(&self, host: &Environment) -> Result<Option<Choice>> {
        let mut given: Vec<String> = self.flags.iter().map(|flag| format!("--{flag}")).collect();
        if let Some(model) = &self.model {
            given.push(format!("--model {model}"));
        }
        if given.len() > 1 {
            return Err(
                Error::usage(format!("more than one model: {}", given.join(", ")))
                    .cause("one engine serves one model")
                    .hint(format!("choose one, for instance: cclocal {}", given[0])),
            );
        }
        if let Some(flag) = self.flags.first() {
            return Ok(Some(Choice::Flag(flag.clone())));
        }
        match &self.model {
            Some(model) => {
                parse_model_argument(host, model).map(|argument| Some(Choice::Argument(argument)))
            }
            None => Ok(None),
        }
    }

    /// What was named with `--model`, as it was typed.
    pub fn named(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn names() -> impl Iterator<Item = (String, String)> {
        let catalog = catalog();
        let models = catalog.models.iter().map(|entry| {
            let help = format!(
                "{}: {} GB, for {} GB RAM and more; {}",
                entry.name, entry.download_gb, entry.ram_gb, entry.note
            );
            (entry.flag.clone(), help)
        });
        let aliases = catalog
            .aliases
            .iter()
            .map(|(alias, flag)| (alias.clone(), format!("the same as --{flag}")));
        models.chain(aliases)
    }
}

impl Args for ModelFlags {
    fn augment_args(command: Command) -> Command {
        let heading = Some("Models");
        let flags = Self::names().map(|(flag, help)| {
            Arg::new(flag.clone())
                .long(flag)
                .help(help)
                .help_heading(heading)
                .action(ArgAction::SetTrue)
        });
        command.args(flags).arg(
            Arg::new("model")
                .long("model")
                .value_name("ID|DIR")
                .help("Any MLX model: a Hugging Face id (org/name) or a local folder (./dir); with --connect, its id there")
                .help_heading(heading)
                .allow_hyphen_values(true)
                .action(ArgAction::Set),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ModelFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            flags: Self::names()
                .map(|(flag, _)| flag)
                .filter(|flag| matches.get_flag(flag))
                .collect(),
            model: matches.get_one::<String>("model").cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
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
