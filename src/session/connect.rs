//! Which engine `cclocal connect` means.

use crate::error::{Error, Result};
use crate::supervisor::protocol::Status;
use crate::supervisor::registry::{self, Running};
use crate::supervisor::reservation::USUAL_PORT;
use crate::sys::paths::Paths;
use crate::sys::port;

use super::acquire;

/// The engine at this port; without one the only one that runs, else the one at the usual port.
pub fn find(paths: &Paths, asked: Option<u16>) -> Result<Status> {
    let running = registry::statuses(paths);
    let wanted = match (asked, running.as_slice()) {
        (None, [only]) => only.port,
        (asked, _) => asked.unwrap_or(USUAL_PORT),
    };
    if let Some(status) = running.iter().find(|status| status.port == wanted) {
        return Ok(status.clone());
    }
    let there = registry::at(paths, wanted);
    if let Some(Running::Silent(holder)) = &there {
        return Err(holder.silent(format!("the engine on port {wanted} cannot be used")));
    }
    let error = Error::other(format!("no engine of cclocal runs on port {wanted}"));
    if !running.is_empty() {
        let others: Vec<String> = running.iter().map(acquire::words).collect();
        return Err(error
            .cause(format!("there runs {}", others.join("; ")))
            .hint(format!(
                "name its port: cclocal connect --port {}",
                running[0].port
            )));
    }
    let cause = match there {
        Some(Running::Foreign { version, .. }) => {
            format!("the one there is of another version of cclocal ({version})")
        }
        _ if port::is_free(wanted) => "nothing listens there".to_owned(),
        _ => "another program listens there".to_owned(),
    };
    Err(error
        .cause(cause)
        .hint("start one with `cclocal --server`, in another terminal"))
}
