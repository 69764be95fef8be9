//! `cclocal server`.

use super::args::LaunchArgs;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ui::Ui;

pub fn run(_host: &Host, _ui: &Ui, _args: &LaunchArgs) -> Result<u8> {
    Err(Error::other("not built yet"))
}
