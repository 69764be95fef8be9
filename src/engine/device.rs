//! The engine's device, asked of its own Python.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use super::executable::Executable;
use crate::engine::env;
use crate::memory::budget::Device;
use crate::sys::capabilities;
use crate::sys::environment::Environment;

/// Importing mlx takes 0.1 s on a warm disk.
const DEADLINE: Duration = Duration::from_secs(20);

/// mlx.core.device_info(), which older versions have in mlx.core.metal.
const QUESTION: &str = "import json, mlx.core as mx
ask = getattr(mx, 'device_info', None) or mx.metal.device_info
print(json.dumps({'gpu': mx.default_device() == mx.Device(mx.gpu), 'recommended': ask().get('max_recommended_working_set_size')}))";

const TOPIC: &str = "device";

/// The answer and the machine that gave it: machines may share a home.
#[derive(Serialize, Deserialize)]
struct Kept {
    machine: String,
    device: Device,
}

/// Asks, or remembers what Metal said: that stays the same until the system is another one. None if it does not say, which is no reason to stop:
/// there are rougher figures.
pub fn ask(host: &Environment, cache: &Path, engine: &Executable) -> Option<Device> {
    let machine = machine();
    if let Some(kept) = capabilities::remembered::<Kept>(cache, TOPIC, &engine.python)
        && Some(&kept.machine) == machine.as_ref()
    {
        return Some(kept.device);
    }
    let device = look(host, engine)?;
    if let (Some(machine), Some(_)) = (machine, device.recommended) {
        capabilities::remember(cache, TOPIC, &engine.python, &Kept { machine, device });
    }
    Some(device)
}

/// This machine and its system.
fn machine() -> Option<String> {
    let names = uname().ok()?;
    let text = [names.nodename(), names.release()].map(|name| name.to_string_lossy().into_owned());
    Some(text.join(" "))
}

/// Asks, and writes nothing down.
pub fn look(host: &Environment, engine: &Executable) -> Option<Device> {
    let mut command = Command::new(&engine.python);
    // Isolated: nothing of the current folder is imported. And nothing is written (`-B`).
    command
        .args(["-I", "-B", "-c", QUESTION])
        .env_clear()
        .envs(env::inherited(host));
    match capabilities::ask(&mut command, DEADLINE) {
        Ok(answer) => serde_json::from_str(answer.trim()).ok(),
        Err(error) => {
            tracing::debug!(%error, "the engine's device is unknown");
            None
        }
    }
}
