//! Bad command lines: exit status 2, with what is allowed, and nothing started.

use crate::fakes;
use crate::support::Stage;

fn usage_error(args: &[&str]) -> String {
    let stage = fakes::stage();
    let ran = stage.run(args);
    assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert_eq!(stage.read("engine/pid"), "", "{args:?} started the engine");
    stage.filtered(&ran.stderr)
}

#[test]
fn two_models_at_once() {
    insta::assert_snapshot!(usage_error(&["--gemma", "--coder"]), @"
    error: more than one model: --gemma, --coder
      cause: one engine serves one model
      hint: choose one, for instance: cclocal --gemma
    ");
    insta::assert_snapshot!(usage_error(&["--review", "--model", "org/name"]), @"
    error: more than one model: --review, --model org/name
      cause: one engine serves one model
      hint: choose one, for instance: cclocal --review
    ");
}

#[test]
fn an_unknown_flag() {
    insta::assert_snapshot!(usage_error(&["--gema"]), @"
    error: unexpected argument '--gema' found

      tip: a similar argument exists: '--gemma'
      tip: to pass '--gema' as a value, use '-- --gema'

    Usage: cclocal --gemma [-- <CLAUDE ARGS>...]

    For more information, try '--help'.
    ");
}

#[test]
fn a_flag_of_claude_code_without_the_dashes_before_it() {
    insta::assert_snapshot!(usage_error(&["--gemma", "-p", "hello"]), @"
    error: unexpected argument '-p' found

      tip: to pass '-p' as a value, use '-- -p'

    Usage: cclocal [OPTIONS] [-- <CLAUDE ARGS>...]
           cclocal <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn ports_out_of_range() {
    insta::assert_snapshot!(usage_error(&["--port", "0"]), @"
    error: invalid value '0' for '--port <N>': 0 is not in 1..=65535

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage_error(&["--port", "70000"]), @"
    error: invalid value '70000' for '--port <N>': 70000 is not in 1..=65535

    For more information, try '--help'.
    ");
}

#[test]
fn output_budgets_out_of_range() {
    insta::assert_snapshot!(usage_error(&["--out-tokens", "0"]), @"
    error: invalid value '0' for '--out-tokens <N>': 0 is not in 1..=32768

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage_error(&["--out-tokens", "40000"]), @"
    error: invalid value '40000' for '--out-tokens <N>': 40000 is not in 1..=32768

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage_error(&["--gemma-light", "--ctx", "32768", "--out-tokens", "30000"]), @"
    asking the hub how big Gemma-4-E4B is
    error: replies of 30000 tokens leave no room in a window of 32768 tokens
      cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's own first request, some work, and a summary when the window is full
      hint: take --out-tokens 11576 or less, or --ctx 51192 or more
    ");
}

#[test]
fn windows_are_tokens_or_auto() {
    for wrong in ["20000", "2000000", "wide"] {
        let error = usage_error(&["--gemma-light", "--ctx", wrong]);
        let wanted = format!(
            "error: invalid value '{wrong}' for '--ctx <N|auto>': it is `auto`, or from 20480 to 1000000 tokens"
        );
        assert!(error.starts_with(&wanted), "{error}");
    }
    let stage = fakes::stage();
    let window = |args: &[&str]| {
        let ran = stage.run(&[&["--gemma-light", "--dry-run", "--json"], args].concat());
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        report["memory"]["context_window"]
            .as_u64()
            .expect("a window")
    };
    assert_eq!(window(&["--ctx", "auto"]), window(&[]));
    assert_eq!(window(&["--ctx", "50000"]), 50_000);
}

#[test]
fn things_that_are_no_model() {
    insta::assert_snapshot!(usage_error(&["--model", "gemma"]), @"
    error: `gemma` is not a model
      cause: it has no organisation
      hint: a hub id is org/name, such as mlx-community/gemma-4-e4b-it-4bit; a local folder starts with ./ or /
    ");
    insta::assert_snapshot!(usage_error(&["--model", "--gemma"]), @"
    error: `--gemma` is not a model
      cause: it starts with a dash, like a flag
      hint: a hub id is org/name, such as mlx-community/gemma-4-e4b-it-4bit; a local folder starts with ./ or /
    ");
    insta::assert_snapshot!(usage_error(&["--model", "org/na me"]), @"
    error: `org/na me` is not a model
      cause: it has a space in it
      hint: a hub id is org/name, such as mlx-community/gemma-4-e4b-it-4bit; a local folder starts with ./ or /
    ");
    insta::assert_snapshot!(usage_error(&["--model", "org/../etc"]), @"
    error: `org/../etc` is not a model
      cause: it has more than one slash
      hint: a hub id is org/name, such as mlx-community/gemma-4-e4b-it-4bit; a local folder starts with ./ or /
    ");
    insta::assert_snapshot!(usage_error(&["--model", "./nothing-here"]), @"
    error: there is no model folder ./nothing-here
      cause: No such file or directory (os error 2)
      hint: --model takes a folder that holds config.json and *.safetensors
    ");
}

/// Nothing is started for them. What is known, and why, stands in the tables of `plan/claude_options.rs`.
#[test]
fn options_of_claude_code_that_would_leave_or_are_not_known() {
    insta::assert_snapshot!(usage_error(&["--gemma", "--", "--project-config-root", "/elsewhere", "-p", "hi"]), @"
    error: `--project-config-root` cannot be passed to a local session
      cause: the settings there would not be looked at, and could send the session elsewhere
      hint: start cclocal in that folder, and name others with --add-dir
    ");
    insta::assert_snapshot!(usage_error(&["--gemma", "--", "-p", "hi", "--future"]), @"
    error: `--future` is not an option that cclocal knows
      cause: it is not known whether the session would stay on this machine
      hint: leave it out; or pass it all the same: cclocal … --pass-unknown -- --future …
    ");
    insta::assert_snapshot!(usage_error(&["--gemma", "--pass-unknown", "--", "--pool", "x"]), @"
    error: `--pool` cannot be passed to a local session
      cause: the session would not stay on this machine
      hint: use `claude` itself for that
    ");
    for words in [
        &["--handle-uri", "claude-cli://open?q=hi"] as &[&str],
        &["-p", "hi", "--", "--handle-uri"],
        &["cc://host/token"],
        &["--append-system-prompt", "--managed-settings={}", "hi"],
        &["-px", "hi"],
    ] {
        usage_error(&[&["--gemma", "--"], words].concat());
    }
    let stage = fakes::stage();
    let args = [
        "--gemma",
        "--pass-unknown",
        "--dry-run",
        "--json",
        "--",
        "--future",
        "x",
    ];
    let ran = stage.run(&args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("--future"));
}

#[test]
fn json_alone() {
    insta::assert_snapshot!(usage_error(&["--gemma", "--json"]), @"
    error: the following required arguments were not provided:
      --dry-run

    Usage: cclocal --dry-run --gemma --json [-- <CLAUDE ARGS>...]

    For more information, try '--help'.
    ");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let stage = Stage::bare();
    let ran = stage.run(&["--version"]);
    assert_eq!(
        (ran.status, ran.stdout),
        (0, format!("cclocal {}\n", env!("CARGO_PKG_VERSION")))
    );
    let ran = stage.run(&["--help"]);
    assert_eq!(ran.status, 0);
    insta::assert_snapshot!(ran.stdout, @"
    Claude Code on a model that runs on your own machine

    Usage: cclocal [OPTIONS] [-- <CLAUDE ARGS>...]
           cclocal <COMMAND>

    Commands:
      setup             Install the engine into a private folder (and Claude Code, with --client)
      demo              Run the whole chain on a built-in model: a real tool call writes a real file
      server            Start the engine alone and print the command that connects Claude Code to it
                        from another terminal
      connect           Run Claude Code in this folder on an engine of cclocal that runs already on this
                        machine
      status            Show what runs: models, memory, sessions, requests
      stop              End what runs, which frees its memory
      logs              Show the engine's log
      list, -l, --list  List the models in the Hugging Face cache, with their real sizes
      rm, --rm          Remove models from the Hugging Face cache

    Arguments:
      [CLAUDE ARGS]...  Arguments for Claude Code

    Options:
          --server            Start the engine alone and print the command that connects Claude Code to
                              it
          --port <N>          Port on 127.0.0.1 that Claude Code talks to [default: 8000, or the next
                              that is free]
          --ctx <N|auto>      Context window in tokens [default: auto, by this machine's memory]
          --out-tokens <N>    Longest reply in tokens, thoughts included; a file that is written has to
                              fit in one [default: 8192, or 4096 where memory is short]
          --vision            Serve the whole model, pictures included; each turn is then computed anew
                              [default: its text part, where it has one]
          --think             Let the model think before it answers, where it can, and show its
                              thoughts; they count against --out-tokens [default: it does not]
          --linger <SECONDS>  How long the model stays loaded after its last session [default: 300; 0
                              ends it at once] [env: CCLOCAL_LINGER]
          --forget-prefix     Keep nothing on the disk of what the model computed of Claude Code's
                              system prompt and tools, and remove what is kept; engines that run already
                              go on as they were started [env: CCLOCAL_FORGET_PREFIX]
          --web-search <URL>  Let Claude Code search the web; its queries leave this machine: the URL of
                              a SearXNG instance, brave (with BRAVE_API_KEY) or tavily (with
                              TAVILY_API_KEY) [default: no web search]
          --safe              Show what memory is planned for and what can be done, however much there
                              is [env: CCLOCAL_FORCE_MEMCHECK]
          --no-mem-check      Start it whatever memory there is: what does not fit is tried in the
                              thriftiest way [env: CCLOCAL_NO_MEMCHECK]
      -y, --yes               Ask nothing: install the engine if it is missing
          --dry-run           Print what would be run, and why; start nothing, write nothing
          --json              With --dry-run: as JSON
          --pass-unknown      Pass options after `--` on that cclocal does not know: whether the session
                              then stays on this machine is not known either
      -h, --help              Print help
      -V, --version           Print version

    Models:
          --gemma-light     Gemma-4-E4B: 5 GB, for 16 GB RAM and more; clean tool calls, the one to
                            start with
          --gemma           Gemma-4-26B-A4B: 16 GB, for 24 GB RAM and more; mixture of experts, 3.8B
                            active parameters
          --review          GLM-4.7-Flash: 17 GB, for 32 GB RAM and more; stronger reasoning
          --coder           Qwen3-Coder-30B-A3B: 18 GB, for 32 GB RAM and more; the heavier code model
          --qwen3           Qwen3.5-9B: 5 GB, for 16 GB RAM and more; general reasoning; leaks
                            plain-text thinking
          --coder7b         Qwen2.5-Coder-7B: 5 GB, for 16 GB RAM and more; code analysis; tool calls
                            unreliable
          --light           the same as --gemma-light
          --model <ID|DIR>  Any MLX model: a Hugging Face id (org/name) or a local folder (./dir); with
                            --connect, its id there

    Engines that others run:
          --connect <URL>     Run Claude Code on the engine at this URL (vllm-mlx, or vLLM), maybe of
                              another machine: prompts go there, and no engine is started
          --token-env <NAME>  With --connect: the variable that holds the engine's token
          --insecure          With --connect: allow plain http to another machine

    What follows -- goes to Claude Code unchanged: cclocal --gemma -- --continue
    Without a model flag a menu opens, on a terminal.
    ");
}
