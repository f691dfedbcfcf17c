//! The owner's command that follows a new model, ended when it takes too long.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use twin_shared::id::{DeviceId, ModelVersion};

use crate::config::ModelRules;

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Why the command did not do its work. The new model answers all the same.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It does not start or cannot be watched.
    #[error("model.on_new_model: {0}")]
    Io(#[from] io::Error),
    /// It failed.
    #[error("model.on_new_model ended with {0}")]
    Failed(ExitStatus),
    /// It took too long.
    #[error("model.on_new_model was ended after {} s, see model.hook_limit_s", .0.as_secs())]
    TooLong(Duration),
}

/// Runs the command, if there is one, and waits for it. Its standard output goes to our standard error.
///
/// # Errors
/// When it does not start, fails or takes too long; then it is ended, with all that it started.
pub fn run(rules: &ModelRules, device: &DeviceId, version: &ModelVersion, file: &Path) -> Result<(), HookError> {
    let Some(command) = &rules.on_new_model else { return Ok(()) };
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env("TWIN_MODEL", file)
        .env("TWIN_MODEL_VERSION", version.to_string())
        .env("TWIN_DEVICE", device.as_str())
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .process_group(0)
        .spawn()?;
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(HookError::Failed(status)),
            None if begun.elapsed() < rules.hook_limit => thread::sleep(LOOK),
            None => break,
        }
    }
    // What it started goes with it.
    Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
    child.wait()?;
    Err(HookError::TooLong(rules.hook_limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(command: &str, limit_ms: u64) -> ModelRules {
        ModelRules { on_new_model: Some(command.to_owned()), hook_limit: Duration::from_millis(limit_ms) }
    }

    fn called(rules: &ModelRules) -> Result<(), HookError> {
        run(rules, &"board1".parse().expect("a name"), &ModelVersion([0xab; 32]), Path::new("/models/m.safetensors"))
    }

    #[test]
    fn the_command_learns_of_the_model() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("said");
        let command = format!("echo $TWIN_DEVICE $TWIN_MODEL $TWIN_MODEL_VERSION > {}", file.display());
        called(&rules(&command, 60_000)).expect("done");
        let said = std::fs::read_to_string(file).expect("written");
        assert_eq!(said.trim(), format!("board1 /models/m.safetensors {}", "ab".repeat(32)));
        called(&ModelRules { on_new_model: None, hook_limit: Duration::ZERO }).expect("nothing to do");
    }

    #[test]
    fn a_failure_is_told_and_an_endless_one_is_ended_with_its_children() {
        assert!(matches!(called(&rules("exit 3", 60_000)), Err(HookError::Failed(_))));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let command = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        assert!(matches!(called(&rules(&command, 500)), Err(HookError::TooLong(_))));
        let child = std::fs::read_to_string(file).expect("written");
        // A killed child takes a moment to end, and may stay as a zombie until it is collected.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        let ended = |state: &str| state.is_empty() || state.contains(") Z ");
        let over = std::time::Instant::now() + Duration::from_secs(10);
        while !ended(&state()) && std::time::Instant::now() < over {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(ended(&state()), "{}", state());
    }
}
