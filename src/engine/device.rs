//! What the engine would compute on, asked of its own Python.

use std::process::Command;
use std::time::Duration;

use super::executable::Executable;
use crate::env_vars;
use crate::host::Host;
use crate::machine::memory::Device;
use crate::probe;

/// Importing mlx takes 0.1 s on a warm disk.
const DEADLINE: Duration = Duration::from_secs(20);

/// mlx.core.device_info(), which older versions have in mlx.core.metal.
const QUESTION: &str = "import json, mlx.core as mx
ask = getattr(mx, 'device_info', None) or mx.metal.device_info
print(json.dumps({'gpu': mx.default_device() == mx.Device(mx.gpu), 'recommended': ask().get('max_recommended_working_set_size')}))";

/// Asks. None if it does not say, which is no reason to stop: there are rougher figures.
pub fn ask(host: &Host, engine: &Executable) -> Option<Device> {
    let mut command = Command::new(&engine.python);
    // Isolated: nothing of the current folder is imported.
    command
        .args(["-I", "-c", QUESTION])
        .env_clear()
        .envs(env_vars::engine_env(host));
    match probe::ask(&mut command, DEADLINE) {
        Ok(answer) => serde_json::from_str(answer.trim()).ok(),
        Err(error) => {
            tracing::debug!(%error, "the engine's device is unknown");
            None
        }
    }
}
