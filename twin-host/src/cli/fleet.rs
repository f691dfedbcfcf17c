//! `replace`, `forget`, `backup` and `restore`: a fleet's life.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use twin_shared::id::{DeviceId, JobId};

use super::devices::{DataArguments, failed};
use super::enrolment::{ReachArguments, refused, there};
use super::{Failure, print};
use crate::control::{ControlError, Request, ask};
use crate::store::Store;
use crate::{enroll, store};

/// A host that serves closes the link of a device whose keys count no more within half a second; nothing of it is heard
/// or written after that.
const CLOSED: Duration = Duration::from_secs(2);

/// Tells a host that serves; one that does not finds it in its database.
fn tell(data_dir: &Path, request: &Request) -> Result<bool, Failure> {
    match ask(data_dir, request) {
        Ok(_) => Ok(true),
        Err(ControlError::NobodyServes(_)) => Ok(false),
        Err(error) => Err(Failure::Failed(error.into())),
    }
}

/// Arguments of `replace`.
#[derive(Debug, Args)]
pub(crate) struct ReplaceArguments {
    /// The device
    device: DeviceId,
    /// The folder to write, for the new card
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    reach: ReachArguments,
    #[command(flatten)]
    data: DataArguments,
}

/// Lets another card take a device's place.
pub(crate) fn replace(arguments: &ReplaceArguments) -> Result<(), Failure> {
    let config = arguments.data.config()?;
    let store = Store::open(&config.data_dir).map_err(failed)?;
    let reach = arguments.reach.resolve(&config)?;
    let (device, out) = (&arguments.device, &arguments.out);
    let has_images = enroll::replace(&store, device, out, &reach, SystemTime::now()).map_err(refused)?;
    // The new card counts its connections anew. What the old one says while its link is being closed must not be taken
    // for the new one's.
    std::thread::sleep(CLOSED);
    tell(&config.data_dir, &Request::Replaced { device: device.clone() })?;
    let images = if has_images { "; it holds the images of the twin" } else { "" };
    print(&format!(
        "{device} has another card: copy {} to it{images}. It connects to {}. The old keys are worth nothing any more\n",
        out.display(),
        there(&reach)
    ))
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
        std::thread::sleep(CLOSED);
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
