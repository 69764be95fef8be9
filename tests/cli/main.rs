//! Tests through the binary, with executable fakes for the engine and the client: no Python, no network.

mod arguments;
mod cache;
mod cache_links;
mod connect_outage;
mod connect_url;
mod connect_window;
mod docs;
mod dry_run;
mod errors;
mod failures;
mod fakes;
mod faults;
mod hung;
mod impostors;
mod launch;
mod meanwhile;
mod memory;
mod memory_plan;
mod models;
mod models_page;
mod odd_files;
mod odd_names;
mod patches;
mod pdf;
mod preflight;
mod prompts;
mod rehearsal;
mod reliability;
mod screens;
mod server;
mod signals;
mod supervisor;
#[path = "../support/mod.rs"]
mod support;
mod surroundings;
mod web_search;
