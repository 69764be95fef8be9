//! The settings file, if there is one: a session does not start with one that is wrong.

use super::Finding;
use crate::app::App;
use crate::settings::{Settings, file};

const CHECK: &str = "settings file";

pub(super) fn check(app: &App) -> Vec<Finding> {
    let path = file::path(&app.paths);
    if !path.exists() && !path.is_symlink() {
        return Vec::new();
    }
    vec![match Settings::load(&app.environment, &app.paths) {
        Ok(_) => Finding::ok(CHECK, app.environment.tilde(&path)),
        Err(error) => Finding::error(CHECK, &error),
    }]
}
