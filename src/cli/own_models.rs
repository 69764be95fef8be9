//! Models of the settings file, and others on this disk: how complete they are, and how they fit.

use super::machine_fit::MachineFit;
use super::options;
use crate::app::App;
use crate::catalog::Choice;
use crate::hub::scan::Model;
use crate::hub::{self, Cached};
use crate::memory::Asked;
use crate::memory::fit::Fit;
use crate::settings::{OwnModel, Place, Resolver};
use crate::sys::paths::Paths;

/// A model of the settings file, looked at.
pub(super) struct Seen {
    /// Err: its folder is no model now, and starting it says why.
    pub choice: Result<Choice, Choice>,
    pub cached: Cached,
    pub fit: Fit,
}

pub(super) fn look(app: &App, resolver: &Resolver, own: &OwnModel, here: &MachineFit) -> Seen {
    let choice = own
        .choice(&app.environment)
        .map_err(|_| own.unchecked(&app.environment));
    let cached = match (&choice, &own.place) {
        (_, Place::Id(id)) => hub::cached(&app.paths.hub, id),
        (Ok(_), Place::Folder(folder)) => {
            let folder = app.environment.resolve(folder);
            Cached::Complete {
                bytes: hub::folder_bytes(&folder),
                snapshot: folder,
            }
        }
        (Err(_), Place::Folder(_)) => Cached::Missing,
    };
    let bytes = match &cached {
        Cached::Complete { bytes, .. } => Some(*bytes),
        _ => None,
    };
    let asked = (choice.as_ref().ok())
        .and_then(|choice| options::of_choice(resolver, Some(choice)).ok())
        .map_or(Asked::default(), |options| options.asked);
    let fit = match &choice {
        Ok(choice) => here.of_choice(choice, bytes, asked),
        Err(_) => Fit::Unknown,
    };
    Seen {
        choice,
        cached,
        fit,
    }
}

/// Whether a model of the cache can be started as it is: nothing is missing, and it can chat.
pub(super) fn is_usable(paths: &Paths, model: &Model) -> bool {
    model.complete
        && crate::catalog::is_hub_id(&model.id)
        && hub::settled_files(&paths.hub, &model.id)
            .is_some_and(|files| files.iter().any(|name| name.ends_with(".safetensors")))
        && hub::template(&paths.hub, &model.id).is_some()
}
