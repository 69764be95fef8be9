//! `--web-search`.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::gateway::web_search::Backend;
use crate::session::remote::token;
use crate::settings::{Flags, Resolver, Settings};
use crate::supervisor::Lease;
use crate::supervisor::protocol::WebSearch;
use crate::sys::environment::Environment;
use crate::ui::Ui;

/// The search service that was named, if any. Its key is removed from the environment, so that no child process gets it.
///
/// Errors: it is none, or there is no key.
pub(super) fn asked(
    host: &mut Environment,
    settings: &Settings,
    flags: &Flags,
) -> Result<Option<Backend>> {
    let resolver = Resolver {
        environment: host,
        settings,
        flags,
        model: None,
    };
    let Some(named) = resolver.web_search()? else {
        return Ok(None);
    };
    let key = |variable: &str| {
        token::take_out(host, variable).map_err(|cause| {
            let word = named.trim().to_lowercase();
            Error::usage(format!("--web-search {word} needs a key in {variable}"))
                .cause(cause)
                .hint(format!(
                    "from a file: {variable}=$(cat FILE) cclocal --web-search {word}"
                ))
        })
    };
    Backend::named(&named, key).map(Some)
}

/// The same for a lease request. `for_programs`: also for those that use the server's key.
pub(super) fn wanted(backend: Option<&Backend>, for_programs: bool) -> Option<WebSearch> {
    backend.cloned().map(|backend| WebSearch {
        backend,
        for_programs,
    })
}

/// Says that there is no web search, if an older supervisor runs the gateway.
pub(super) fn say_if_refused(ui: &Ui, lease: &Lease, backend: Option<&Backend>) {
    if backend.is_some() && !lease.granted.web_search {
        ui.notice("web search is off: another version of cclocal started this engine. To unload it: cclocal stop");
    }
}

/// For `--dry-run`.
pub(super) fn report(backend: Option<&Backend>) -> Value {
    match backend {
        None => Value::Null,
        Some(backend) => json!({
            "service": backend.kind(),
            "url": backend.shown(),
            "key": backend.kind().key_variable().map(|variable| format!("from {variable}")),
        }),
    }
}
