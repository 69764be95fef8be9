//! The operating system: processes, signals, files, ports, the environment, and facts about this machine.

pub mod capabilities;
pub mod disk;
pub mod environment;
pub mod files;
pub mod log;
pub mod loopback;
pub mod machine;
pub mod network;
pub mod paths;
pub mod platform;
pub mod port;
pub mod process;
pub mod secret;
pub mod syscalls;
pub mod tokens;
pub mod variables;
