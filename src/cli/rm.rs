//! `cclocal rm`.

use super::args::RmArgs;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ui::Ui;

pub fn run(_host: &Host, _ui: &Ui, _args: &RmArgs) -> Result<()> {
    Err(Error::other("not built yet"))
}
