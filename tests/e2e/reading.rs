//! The real client behind the gateway: what the model gets of files that it reads, and a model that makes the same call for ever.

use std::thread::JoinHandle;

use cclocal::gateway::anthropic::{Pictures, Served};
use cclocal::gateway::{self, Access, Engine, Settings};
use cclocal::sys::process;
use cclocal::sys::secret::Secret;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::engine::served;
use crate::pictures::PNG;
use crate::scripted_server::{Reply, Request, ScriptedServer};
use crate::support::pdf::pdf;
use crate::world::{Guard, MODEL, TOKEN, World, clients};

/// A gateway in a thread of its own. It ends when this is dropped.
struct Gateway {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Puts it between the world's client and its server.
    fn between(world: &mut World, pictures: Pictures) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let port = listener.local_addr().expect("an address").port();
        world.between = Some(port);
        let base_url = world.ours.url();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let (_engine, engine) = watch::channel(Engine::Ready {
                base_url,
                key: None,
            });
            let (_window, window) = watch::channel(1_000_000);
            let served = Served {
                pictures,
                ..served(MODEL)
            };
            let settings = Settings {
                exclusive: false,
                pdf_reader: Some(env!("CARGO_BIN_EXE_cclocal").into()),
                ..Settings::new(served, engine, window, Access::new(&Secret::new(TOKEN)))
            };
            process::runtime()
                .expect("a runtime")
                .block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a port");
                    gateway::serve(listener, settings, async {
                        let _ = stopped.await;
                    })
                    .await
                })
                .expect("it serves");
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok());
        }
    }
}

/// A world whose model reads these files, one after the other, and then says that it is done.
fn reading(files: &'static [&'static str]) -> World {
    World::new(move |request: &Request| {
        if request.json()["tools"].as_array().is_none_or(Vec::is_empty) {
            return Reply::Text("A title".into());
        }
        let number = request.tool_results();
        match files.get(number) {
            Some(file) => Reply::Tool {
                id: format!("call_{number}"),
                name: "Read",
                input: json!({"file_path": file}),
            },
            None => Reply::Text("Done.".into()),
        }
    })
}

/// The messages of the last request of the main loop.
fn last(server: &ScriptedServer) -> Vec<Value> {
    let messages = server.messages();
    let mut bodies = messages.iter().map(Request::json);
    let body = bodies
        .rfind(|body| {
            body["tools"]
                .as_array()
                .is_some_and(|tools| !tools.is_empty())
        })
        .expect("a request");
    body["messages"].as_array().expect("messages").clone()
}

fn with_files(files: &'static [&'static str]) -> World {
    let world = reading(files);
    let project = world.path("project");
    fs_err::write(project.join("picture.png"), PNG).expect("written");
    let pages = pdf(&["Hello from the first page", "and from the second"]);
    fs_err::write(project.join("paper.pdf"), pages).expect("written");
    fs_err::write(project.join("a.txt"), "nothing\n").expect("written");
    world
}

#[test]
fn a_picture_and_a_pdf_that_are_read_are_told_in_words() {
    for (version, client) in clients() {
        let mut world = with_files(&["picture.png", "paper.pdf"]);
        let _gateway = Gateway::between(&mut world, Pictures::Words);
        let outcome = world.run(&client, Guard::Whole, &["-p", "read them"]);
        assert!(outcome.success, "{version}: {}", outcome.output);
        let said = json!(last(&world.ours)).to_string();
        assert!(
            said.contains("[a picture of 96×64 pixels (PNG)"),
            "{version}: {said}"
        );
        assert!(
            said.contains("Hello from the first page") && said.contains("and from the second"),
            "{version}: {said}"
        );
        for kind in [r#""type":"image""#, r#""type":"document""#] {
            assert!(!said.contains(kind), "{version}: {said}");
        }
    }
}

#[test]
fn a_picture_that_is_read_is_shown_to_a_model_that_sees() {
    for (version, client) in clients() {
        let mut world = with_files(&["picture.png"]);
        let _gateway = Gateway::between(&mut world, Pictures::Shown);
        let outcome = world.run(&client, Guard::Whole, &["-p", "look at it"]);
        assert!(outcome.success, "{version}: {}", outcome.output);
        let messages = last(&world.ours);
        let at = |kind: &str| {
            let of_kind = |block: &Value| block["type"] == kind;
            messages.iter().position(|message| {
                let blocks = message["content"].as_array();
                message["role"] == "user" && blocks.is_some_and(|blocks| blocks.iter().any(of_kind))
            })
        };
        let result = at("tool_result").expect("a result");
        assert_eq!(at("image"), Some(result + 1), "{version}: {messages:?}");
    }
}

#[test]
fn a_model_that_makes_the_same_call_for_ever_is_stopped() {
    for (version, client) in clients() {
        let mut world = with_files(&["a.txt"; 100]);
        let _gateway = Gateway::between(&mut world, Pictures::Words);
        let outcome = world.run(&client, Guard::Whole, &["-p", "go on"]);
        assert!(outcome.success, "{version}: {}", outcome.output);
        let words = "The model called the tool Read five times with the same result, so cclocal ended this turn.";
        assert!(
            outcome.output.contains(words),
            "{version}: {}",
            outcome.output
        );
        let said = json!(last(&world.ours)).to_string();
        for count in ["three times", "four times"] {
            assert!(
                said.contains(&format!("made {count} with this result")),
                "{version}: {said}"
            );
        }
    }
}
