//! `cclocal list`.

use super::args::ListArgs;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ui::Ui;

pub fn run(_host: &Host, _ui: &Ui, _args: &ListArgs) -> Result<()> {
    Err(Error::other("not built yet"))
}
