//! Claude Code on a real terminal: handed over whole, and given back as it was.

use crate::real::{self, TEXT, free_port};
use crate::screen::Screen;
use crate::support::Stage;

/// Starts a session and answers the question about the folder, which is the user's to answer.
fn start<'a>(stage: &'a Stage, port: &str) -> Screen<'a> {
    start_with(stage, port, "../hermes-llama")
}

/// The same on this model.
pub fn start_with<'a>(stage: &'a Stage, port: &str, model: &str) -> Screen<'a> {
    start_in(stage, "work", &format!("--model {model} --port {port}"))
}

/// The same in this folder of the stage, with these arguments.
pub fn start_in<'a>(stage: &'a Stage, folder: &str, arguments: &str) -> Screen<'a> {
    let screen = launch(stage, folder, arguments);
    let is_prompt =
        |text: &str| text.contains("Claude Code v") && !text.contains("trust this folder");
    // It is asked once for each folder.
    let text = screen.wait_until("the prompt or the question", |text| {
        is_prompt(text) || text.contains("Yes, I trust this folder")
    });
    if !is_prompt(&text) {
        screen.settle();
        if !yes_is_chosen(&screen.text()) {
            screen.key("Down");
        }
        screen.wait_until("the answer yes", yes_is_chosen);
        screen.key("Enter");
        screen.wait_until("the prompt", is_prompt);
    }
    screen.settle();
    screen
}

/// Types the command in this folder of the stage, on a terminal of its own. Its status is shown when it has ended.
pub fn launch<'a>(stage: &'a Stage, folder: &str, arguments: &str) -> Screen<'a> {
    let screen = Screen::open(stage, 80, 24);
    let binary = env!("CARGO_BIN_EXE_cclocal");
    screen.line(&format!(
        "cd ../{folder}; {binary} {arguments}; echo status=$?"
    ));
    screen
}

/// On the stage's own model, in the folder where people work.
pub fn launch_on<'a>(stage: &'a Stage, port: &str) -> Screen<'a> {
    launch(
        stage,
        "work",
        &format!("--model ../hermes-llama --port {port}"),
    )
}

/// The newest client proposes no, the old one yes.
fn yes_is_chosen(text: &str) -> bool {
    text.lines()
        .any(|line| line.contains('❯') && line.contains("Yes, I trust"))
}

pub fn leave(screen: &Screen) {
    screen.line("/exit");
    screen.wait_for("status=0");
}

#[test]
fn a_session_from_the_prompt_to_the_file_and_back() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let screen = start(&stage, &free_port());
        screen.line("Create hello.txt");
        screen.wait_for("Done: the Write tool has written the file.");
        assert_eq!(stage.read("work/hello.txt"), TEXT);
        leave(&screen);
        // The terminal is a shell's again: it echoes, and the cursor is where it should be.
        screen.line("stty -a | grep -o ' echo ' | tr -d ' '; echo end");
        screen.wait_until("an echoing terminal", |text| text.contains("\necho\nend"));
        drop(screen);
        assert_eq!(real::claude_files(&stage), Vec::<String>::new());
        stage.assert_nothing_left();
    }
}

#[test]
fn the_trust_question_is_asked_and_no_means_no() {
    let stage = real::stage(&real::client());
    let screen = launch_on(&stage, &free_port());
    screen.wait_for("Yes, I trust this folder");
    screen.settle();
    screen.key("Enter");
    screen.wait_for("status=1");
    drop(screen);
    stage.assert_nothing_left();
}

/// The project's hooks come through a plugin of ours, which must not be a way around the question. What is beside hooks goes on.
#[test]
fn a_projects_hooks_wait_for_the_answer_and_the_status_line_stays() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let hook = r#"[{"hooks": [{"type": "command", "command": "touch ../ran"}]}]"#;
        let settings = format!(
            r#"{{"statusLine": {{"type": "command", "command": "echo the line of mine"}}, "hooks": {{"SessionStart": {hook}, "UserPromptSubmit": {hook}}}}}"#
        );
        fs_err::create_dir_all(stage.path("work/.claude")).expect("made");
        fs_err::write(stage.path("work/.claude/settings.json"), settings).expect("written");
        let port = free_port();
        let screen = launch_on(&stage, &port);
        screen.wait_for("Yes, I trust this folder");
        screen.settle();
        if yes_is_chosen(&screen.text()) {
            screen.key("Down");
            screen.wait_until("the answer no", |text| !yes_is_chosen(text));
        }
        screen.key("Enter");
        screen.wait_for("status=1");
        assert!(!stage.path("ran").exists());
        drop(screen);
        let screen = start(&stage, &port);
        screen.wait_for("the line of mine");
        screen.line("Create hello.txt");
        screen.wait_for("Done: the Write tool has written the file.");
        assert!(stage.path("ran").exists());
        leave(&screen);
    }
}

/// The client's `/plugin` would fetch a catalogue, and look through Anthropic's directory.
#[test]
fn the_list_of_plugins_asks_nobody() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let log = stage.path("debug.txt");
        let arguments = format!(
            "--model ../hermes-llama --port {} -- --debug-file {}",
            free_port(),
            log.display()
        );
        let screen = start_in(&stage, "work", &arguments);
        screen.line("/plugin");
        // Its list stands for the blink of an eye, if at all: a folder is in the place of the file that it reads.
        screen.wait_until("the list, or why there is none", |text| {
            text.contains("Marketplaces") || text.contains("marketplace configuration")
        });
        screen.settle();
        screen.key("Escape");
        screen.settle();
        leave(&screen);
        let log = fs_err::read_to_string(log).expect("read");
        assert!(!log.is_empty());
        for asked in ["Fetching plugin catalog", "storage.googleapis.com"] {
            assert!(!log.contains(asked), "{asked}");
        }
    }
}

#[test]
fn ctrl_z_suspends_both_and_fg_brings_both_back() {
    let stage = real::stage(&real::client());
    let screen = start(&stage, &free_port());
    screen.key("C-z");
    screen.wait_for("Stopped");
    screen.line("jobs");
    screen.wait_for("[1]+  Stopped");
    screen.line("clear; fg; echo status=$?");
    screen.wait_until("the session again", |text| {
        text.contains("Claude Code v") && text.contains("❯")
    });
    screen.line("Create hello.txt");
    screen.wait_for("Done: the Write tool has written the file.");
    leave(&screen);
}

#[test]
fn ctrl_c_is_the_clients_own() {
    let stage = real::stage(&real::client());
    let screen = start(&stage, &free_port());
    screen.key("C-c");
    screen.wait_for("again to exit");
    screen.key("C-c");
    screen.wait_for("status=0");
}

#[test]
fn ctrl_c_while_loading_ends_all_of_it() {
    let stage = real::stage(&real::client());
    let screen = launch_on(&stage, &free_port());
    screen.wait_for("loading");
    screen.key("C-c");
    screen.wait_for("status=130");
    drop(screen);
    stage.assert_nothing_left();
}

#[test]
fn a_resize_reaches_the_client() {
    let stage = real::stage(&real::client());
    let screen = start(&stage, &free_port());
    let rule = |width: usize| {
        move |text: &str| {
            text.lines()
                .any(|line| line.trim_end() == "─".repeat(width))
        }
    };
    screen.wait_until("a rule of 80 columns", rule(80));
    screen.resize(100, 30);
    screen.wait_until("a rule of 100 columns", rule(100));
    leave(&screen);
}
