//! End to end: the real engine and the real client, offline. `.ci/run` sets what they need and runs them where there is nothing but loopback.
//!
//! - `CCLOCAL_E2E_HOME`: a `CCLOCAL_HOME` in which `cclocal setup` has been run;
//! - `CCLOCAL_E2E_CLAUDE`, `CCLOCAL_E2E_CLAUDE_OLD`: the newest client, and an old one.

mod asking;
mod attacks;
mod chain;
mod compaction;
mod cut;
mod demo;
mod doctor;
mod download;
mod elsewhere;
mod engine;
mod fake_hub;
mod files;
mod first_request;
mod gateway;
mod history;
mod hooks;
mod impostors;
mod interactive;
mod kept;
mod live_line;
mod masks;
mod memory;
mod memory_limit;
mod pictures;
mod print_mode;
mod raw;
mod reading;
mod real;
mod rehearsal;
mod restart;
mod screen;
mod scripted_server;
mod server;
mod settings;
mod signals;
mod stable;
#[path = "../support/mod.rs"]
mod support;
mod template;
mod tool_calls;
mod tool_loop;
mod turns;
mod usage;
mod web_search;
mod world;
