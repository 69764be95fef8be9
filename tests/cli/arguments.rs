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
fn a_word_that_is_nothing_gets_a_suggestion_that_stays_on_this_machine() {
    let said = [
        &["--gema"][..],
        &["--gemma", "--continu"],
        &["--conect", "http://x"],
        &["gema"],
        &["lst"],
        &["--gemma", "say hello"],
        &["some-org/some-model"],
        &["connect", "--resum"],
        &["status", "--jsn"],
    ]
    .map(usage_error);
    insta::assert_snapshot!(said.join("\n"), @"
    error: `--gema` is not an option that cclocal knows
      hint: perhaps: cclocal --gemma

    error: `--continu` is not an option that cclocal knows
      hint: perhaps: cclocal --continue

    error: `--conect` is not an option that cclocal knows
      hint: cclocal --help lists the options; one that only Claude Code knows goes after `--`: cclocal … -- --conect

    error: `gema` is neither a command nor a model
      hint: perhaps: cclocal gemma

    error: `lst` is neither a command nor a model
      hint: perhaps: cclocal list

    error: `say hello` is neither a command nor a model
      hint: if it is a prompt, it goes after `--`: cclocal … -- 'say hello'

    error: `some-org/some-model` is neither a command nor a model
      hint: a model's id or folder comes with --model: cclocal --model some-org/some-model

    error: `--resum` is not an option that cclocal knows
      hint: perhaps: cclocal connect --resume

    error: unexpected argument '--jsn' found

      tip: a similar argument exists: '--json'

    Usage: cclocal status --json

    For more information, try '--help'.
    ");
}

#[test]
fn options_of_claude_code_need_no_dashes_before_them() {
    let stage = fakes::stage();
    let last_words = |args: &[&str]| {
        let ran = stage.run(&[&["--dry-run", "--json"], args].concat());
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let argv = report["claude"]["argv"].as_array().cloned();
        let words: Vec<String> = argv
            .expect("arguments")
            .iter()
            .skip_while(|word| {
                !word
                    .as_str()
                    .is_some_and(|word| word.starts_with("--append-system"))
            })
            .skip(1)
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect();
        (report["model"]["name"].clone(), words.join(" "))
    };
    let plain = last_words(&["--gemma", "--", "-p", "say hello", "--verbose"]);
    assert_eq!(plain.1, "-p say hello --verbose");
    for typed in [
        &["--gemma", "-p", "say hello", "--verbose"][..],
        &["gemma", "-p", "say hello", "--verbose"],
        &["gemma", "--ctx", "24k", "-p", "say hello", "--verbose"],
        &[
            "gemma",
            "-p",
            "say hello",
            "--ctx",
            "24k",
            "--",
            "--verbose",
        ],
    ] {
        assert_eq!(last_words(typed), plain, "{typed:?}");
    }
    // What may not be passed is refused as it is behind the dashes.
    let refused = usage_error(&["--gemma", "--settings", "x"]);
    assert_eq!(refused, usage_error(&["--gemma", "--", "--settings", "x"]));
}

#[test]
fn help_is_a_command_too() {
    let stage = fakes::stage();
    for (command, option) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "connect"], &["connect", "--help"]),
    ] {
        let ran = stage.run(command);
        assert_eq!((ran.status, ran.stdout), (0, stage.run(option).stdout));
    }
}

#[test]
fn completions_and_the_manual_name_commands_options_and_models() {
    let stage = fakes::stage();
    for shell in ["bash", "zsh", "fish"] {
        let ran = stage.run(&["completions", shell]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        for word in ["connect", "no-ask", "gemma-light", "status"] {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
        assert!(!ran.stdout.contains("supervisor"), "{shell}");
    }
    let script = stage.run(&["completions", "bash"]).stdout;
    let ask = "COMP_WORDS=(cclocal gem); COMP_CWORD=1; _cclocal cclocal gem cclocal; echo ${COMPREPLY[@]}";
    let bash = std::process::Command::new("bash")
        .args(["-c", &format!("{script}\n{ask}")])
        .output()
        .expect("bash");
    assert_eq!(
        String::from_utf8_lossy(&bash.stdout).trim(),
        "gemma-light gemma"
    );
    let page = stage.run(&["man"]);
    assert_eq!(page.status, 0, "{}", page.stderr);
    assert!(page.stdout.starts_with(".ie") && page.stdout.contains("\ncclocal status\n"));
    assert!(!page.stdout.contains("supervisor"));
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
    error: invalid value '0' for '--out-tokens <N>': use 1 to 32768 tokens, such as 8k

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage_error(&["--out-tokens", "40000"]), @"
    error: invalid value '40000' for '--out-tokens <N>': use 1 to 32768 tokens, such as 8k

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(usage_error(&["--gemma-light", "--ctx", "32768", "--out-tokens", "30000"]), @"
    asking the hub for the size of Gemma-4-E4B
    error: replies of 30000 tokens leave no room in a window of 32768 tokens
      cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
      hint: take --out-tokens 13884 or less, or --ctx 48884 or more
    ");
}

#[test]
fn windows_are_tokens_or_auto() {
    for wrong in ["20000", "2000000", "wide"] {
        let error = usage_error(&["--gemma-light", "--ctx", wrong]);
        let wanted = format!(
            "error: invalid value '{wrong}' for '--ctx <N|auto>': use `auto`, or 20480 to 1000000 tokens"
        );
        assert!(error.starts_with(&wanted), "{error}");
    }
    // Its memory is the same each time.
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, 24);
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
    insta::assert_snapshot!(usage_error(&["--model", "whisper"]), @"
    error: `whisper` is not a model
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
      cause: cclocal would not check the settings there, and they could send the session elsewhere
      hint: start cclocal in that folder, and name others with --add-dir
    ");
    insta::assert_snapshot!(usage_error(&["--gemma", "--", "-p", "hi", "--future"]), @"
    error: `--future` is not an option that cclocal knows
      cause: cclocal cannot tell whether the session would stay on this machine
      hint: leave it out, or pass it anyway: cclocal … --pass-unknown -- --future …
    ");
    insta::assert_snapshot!(usage_error(&["--gemma", "--pass-unknown", "--", "--pool", "x"]), @"
    error: `--pool` cannot be passed to a local session
      cause: the session would not stay on this machine
      hint: use plain `claude` for that
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
    Run Claude Code on a language model on your own machine

    Usage: cclocal [OPTIONS] [-- <CLAUDE ARGS>...]
           cclocal <COMMAND>

    Commands:
      setup             Install the engine into a private folder
      demo              Check that everything works: Claude Code writes a file with a tiny built-in
                        model
      doctor            Look for what is wrong, and say what to do about it; change nothing
      server            Load a model without Claude Code, and print how to connect to it
      connect           Run Claude Code on a model that is already loaded
      pull              Download a model, and start nothing
      status            Show loaded models: memory, sessions, requests
      stop              Unload models, which frees their memory
      logs              Show the engine's log
      config            Show, set and edit the settings of ~/.config/cclocal/config.toml
      list, -l, --list  List the models in the Hugging Face cache and their sizes
      rm, --rm          Remove models from the Hugging Face cache
      completions       Print the completions of a shell: of commands, options and models
      man               Print the manual page, for man
      help              Print this message or the help of the given subcommand(s)

    Arguments:
      [CLAUDE ARGS]...  Arguments for Claude Code

    Options:
          --menu                  Choose from the menu, even if the settings file names a model
          --ask                   Ask before Claude Code's tools change or run anything; reading files
                                  is allowed [default: ask only with --connect]
          --no-ask                Run Claude Code's tools without asking, Bash included
          --server                Load the model without Claude Code, and print how to connect to it
          --port <N>              Port on 127.0.0.1 [default: the first free one from 8000]
          --ctx <N|auto>          Context window in tokens; auto fits it to the memory [default: auto]
          --out-tokens <N>        Longest reply in tokens, thinking included; a file that Claude Code
                                  writes must fit in one reply [default: 8192, or 4096 if memory is
                                  short]
          --vision                Let the model see pictures; slower, as each turn computes the whole
                                  conversation [default: text only]
          --think                 Let the model think before it answers, if it can, and show its
                                  thinking, which counts towards --out-tokens [default: off]
          --linger <SECONDS>      Keep-alive: how long the model stays loaded after its last session; 0
                                  unloads it at once [default: 300] [env: CCLOCAL_LINGER]
          --forget-prefix         Do not store the computed system prompt on disk, and delete what is
                                  stored; engines that run already are not changed [env:
                                  CCLOCAL_FORGET_PREFIX]
          --web-search <SERVICE>  Web search, whose queries leave this machine: the URL of a SearXNG
                                  instance, brave (with BRAVE_API_KEY) or tavily (with TAVILY_API_KEY),
                                  or off [default: off]
          --safe                  Show the memory plan and ask before the start, even if the model fits
                                  easily [env: CCLOCAL_FORCE_MEMCHECK]
          --no-mem-check          Start the model even if it does not fit in memory; it may crash [env:
                                  CCLOCAL_NO_MEMCHECK]
      -y, --yes                   Do not ask: install the engine if it is missing
          --dry-run               Print what would run, and why; start and write nothing
          --json                  With --dry-run: print JSON
          --pass-unknown          Pass on options after -- that cclocal does not know; they may lead off
                                  this machine
      -h, --help                  Print help
      -V, --version               Print version

    Models:
          --gemma-light     Gemma-4-E4B: 5.1 GB download, 16 GB RAM or more; clean tool calls, the one
                            to start with
          --gemma           Gemma-4-26B-A4B: 15.3 GB download, 24 GB RAM or more; mixture of experts,
                            3.8B active parameters
          --review          GLM-4.7-Flash: 16.9 GB download, 24 GB RAM or more; stronger reasoning
          --coder           Qwen3-Coder-30B-A3B: 17.2 GB download, 24 GB RAM or more; the heavier code
                            model
          --qwen3           Qwen3.5-9B: 6 GB download, 16 GB RAM or more; general reasoning; leaks
                            plain-text thinking
          --coder7b         Qwen2.5-Coder-7B: 4.3 GB download, 16 GB RAM or more; code analysis; tool
                            calls unreliable
          --light           Same as --gemma-light
          --model <ID|DIR>  Any MLX model: a Hugging Face id (org/name) or a local folder (./dir); with
                            --connect, the id that the engine uses

    Other engines:
          --connect <URL>     Run Claude Code on the engine at this URL (vllm-mlx or vLLM), also on
                              another machine, or of this name in the settings file; prompts go there
          --token-env <NAME>  With --connect: name of the variable that holds the engine's token
          --parallel <N>      With --connect: requests at a time, for agents and background questions
                              [default: what the engine says, else 4]
          --wait <MINUTES>    With --connect: how long requests wait for an engine that is away
                              [default: 15]
          --insecure          With --connect: allow plain http to another machine

    Without a model flag, cclocal shows a menu.

    Options of Claude Code go to it, as do arguments after --: cclocal gemma --continue
    Those that would lead off this machine are refused.
    ");
}
