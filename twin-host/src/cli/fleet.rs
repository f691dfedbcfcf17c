//! `forget`, `backup` and `restore`: a fleet's life.

use std::path::{Path, PathBuf};

use clap::Args;
use twin_shared::id::{DeviceId, JobId};

use super::devices::{DataArguments, failed};
use super::{Failure, print};
use crate::control::{ControlError, Request, ask};
use crate::store;

/// Tells a host that serves; one that does not finds it in its database.
fn tell(data_dir: &Path, request: &Request) -> Result<bool, Failure> {
    match ask(data_dir, request) {
        Ok(_) => Ok(true),
        Err(ControlError::NobodyServes(_)) => Ok(false),
        Err(error) => Err(Failure::Failed(error.into())),
    }
}

/// Arguments of `forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// The device
    device: DeviceId,
    /// Delete it for good; without this, what would go is listed
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    data: DataArguments,
}

/// Deletes a device, and lists the teachers that used its data.
pub(crate) fn forget(arguments: &ForgetArguments) -> Result<(), Failure> {
    let mut store = arguments.data.store()?;
    let device = &arguments.device;
    store.device(device).map_err(failed)?;
    let teachers = store.teachers_of(device).map_err(failed)?;
    let models = store.models(device).map_err(failed)?.len();
    let learned = match teachers.as_slice() {
        [] => "no teacher has used its data".to_owned(),
        jobs => format!("its data is in the teachers of jobs {}, and in students taught by them", listed(jobs)),
    };
    if !arguments.purge {
        return Err(Failure::Usage(format!(
            "forget deletes the twin of {device} with its images and {models} models for good; {learned}. Say --purge to do it"
        )));
    }
    store.revoke(device).map_err(failed)?;
    if tell(&arguments.data.directory()?, &Request::Release { device: device.clone() })? {
        // The host closes the device's link within half a second of the change; nothing of it is written after that.
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    store.purge(device).map_err(failed)?;
    print(&format!("{device} is forgotten; {learned}\n"))
}

fn listed(jobs: &[JobId]) -> String {
    jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// The folder to write; it holds every key and every image, so keep it as safe as the host
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    data: DataArguments,
}

/// Copies the data directory.
pub(crate) fn backup(arguments: &BackupArguments) -> Result<(), Failure> {
    let files = arguments.data.store()?.back_up(&arguments.out).map_err(anyhow::Error::from)?;
    print(&format!("{}: {files} files\n", arguments.out.display()))
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The folder that `backup` wrote
    backup: PathBuf,
    #[command(flatten)]
    data: DataArguments,
}

/// Puts a copy back.
pub(crate) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let data_dir = arguments.data.directory()?;
    let files = store::restore(&arguments.backup, &data_dir).map_err(anyhow::Error::from)?;
    print(&format!("{}: {files} files are back and every blob is what its name says\n", data_dir.display()))
}
