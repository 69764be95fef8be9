//! The hub's cache: what is whole, and downloads that were not finished.

use super::Finding;
use crate::app::App;
use crate::hub::{self, scan};
use crate::supervisor::protocol::PhaseName;
use crate::supervisor::registry::{self, Running};
use crate::ui;

/// How many unfinished downloads have a line each.
const NAMED: usize = 3;

/// A download that was begun and is not going on.
struct Unfinished {
    id: String,
    bytes: u64,
}

pub(super) fn cache(app: &App) -> Vec<Finding> {
    let folder = &app.paths.hub;
    let place = app.environment.tilde(folder);
    let models = match scan::scan(folder) {
        Ok(models) => models,
        Err(error) => {
            return vec![
                Finding::fail("models", format!("{place} cannot be read: {error}"))
                    .next("make sure that it is a folder and that you may read it"),
            ];
        }
    };
    let running = registry::running(&app.paths);
    let goes_on = |model: &scan::Model| {
        running.iter().any(|running| match running {
            Running::Known(status) => {
                status.phase == PhaseName::Downloading && running.serves(model)
            }
            Running::Foreign { .. } | Running::Silent(_) => running.serves(model),
        })
    };
    let unfinished: Vec<Unfinished> = models
        .iter()
        // A model in another form than MLX's is not whole to us either, and yet nothing of it is missing.
        .filter(|model| !model.complete && hub::settled_files(folder, &model.id).is_none())
        .filter(|model| !goes_on(model))
        .map(|model| Unfinished {
            id: model.id.clone(),
            bytes: model.bytes,
        })
        .collect();
    let complete = models.iter().filter(|model| model.complete).count();
    of_cache(&place, complete, scan::total_bytes(&models), &unfinished)
}

fn of_cache(place: &str, complete: usize, bytes: u64, unfinished: &[Unfinished]) -> Vec<Finding> {
    const CHECK: &str = "models";
    let size = ui::bytes(bytes);
    let said = match complete {
        0 if bytes == 0 => format!("none yet, in {place}"),
        0 => format!("none that is whole; {size} in {place}"),
        1 => format!("1 that is whole; {size} in {place}"),
        count => format!("{count} that are whole; {size} in {place}"),
    };
    let mut found = vec![Finding::ok(CHECK, said)];
    found.extend(unfinished.iter().take(NAMED).map(|model| {
        Finding::warn(
            CHECK,
            format!(
                "{}: a download that was not finished, {}",
                model.id,
                ui::bytes(model.bytes)
            ),
        )
        .next(format!(
            "run it again to go on, or: cclocal rm {}",
            model.id
        ))
    }));
    if let Some(more @ 1..) = unfinished.len().checked_sub(NAMED) {
        found.push(
            Finding::warn(CHECK, format!("{more} more downloads were not finished"))
                .next("cclocal list shows them"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn unfinished_downloads_are_named() {
        let half = |name: &str| Unfinished {
            id: format!("org/{name}"),
            bytes: 300_000,
        };
        let found = of_cache("~/hub", 2, 5_000_000_000, &[half("a")]);
        assert_eq!(
            found[0],
            Finding::ok("models", "2 that are whole; 5.0 GB in ~/hub")
        );
        assert_eq!(found[1].level, Level::Warn);
        assert_eq!(
            found[1].next.as_deref(),
            Some("run it again to go on, or: cclocal rm org/a")
        );
        let many: Vec<_> = ["a", "b", "c", "d", "e"].map(half).into();
        let found = of_cache("~/hub", 0, 0, &many);
        assert_eq!(found.len(), 5);
        assert!(found[4].message.starts_with("2 more"), "{found:?}");
    }
}
