//! `twin-agent data`: pictures in, and what is wrong with them.

mod add;
mod label;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use twin_data::folder::{Folder, FolderError, FolderManifest};
use twin_data::{ClassList, Part};

use super::{Format, Usage, print};
use crate::config::{Config, DatasetFormat};
use crate::dataset;

#[derive(Debug, Subcommand)]
pub(super) enum DataCommand {
    /// Take pictures in: folders of pictures a class, or single pictures with --class or --incoming. Without a PATH:
    /// take note of what was added to or removed from the dataset's folder by hand. All or nothing
    Add(add::Options),
    /// Look whether everything is in order: one line a fault, exit status 1 if there is any
    Check(Options),
    /// Count the pictures of each class and part
    Stats(Options),
    /// Show each waiting picture in the terminal and ask for its class
    Label(label::Options),
}

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

// Where the board's configuration is. No doc comment: it would become the help of every command that has it.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/twin-agent/agent.toml")]
    pub(super) config: PathBuf,
}

pub(super) fn run(command: &DataCommand) -> anyhow::Result<()> {
    match command {
        DataCommand::Add(options) => add::run(options),
        DataCommand::Check(options) => check(options),
        DataCommand::Stats(options) => stats(options),
        DataCommand::Label(options) => label::run(options),
    }
}

/// The dataset's folder, and the host's classes where they have come.
struct Owned {
    config: Config,
    folder: Folder,
    classes: Option<ClassList>,
}

impl Owned {
    fn open(place: &Place) -> anyhow::Result<Self> {
        let config = Config::load(&place.config)?;
        let dataset = config.dataset.as_ref().filter(|dataset| dataset.format == DatasetFormat::Folder);
        let Some(dataset) = dataset else {
            return Err(Usage(format!(
                "{}: pictures need [dataset] path = \"FOLDER\" and format = \"folder\"",
                place.config.display()
            ))
            .into());
        };
        let folder = Folder::new(&dataset.path);
        let classes = dataset::classes(&config.data_dir)?;
        Ok(Self { config, folder, classes })
    }

    /// Nothing, if the class is the host's or the host's list has not come yet.
    fn require_class(&self, name: &str) -> anyhow::Result<()> {
        match &self.classes {
            Some(classes) => Ok(classes.index(name).map(drop)?),
            None => Ok(twin_data::classes::check_name(name)?),
        }
    }

    /// What lies in the folder, and how far the manifest is behind.
    fn state(&self) -> Result<(Option<FolderManifest>, FolderManifest), FolderError> {
        let before = self.folder.manifest()?;
        let after = self.folder.manifest_of(&self.folder.found()?, before.as_ref())?;
        Ok((before, after))
    }
}

#[derive(Serialize)]
struct Checked {
    pictures: usize,
    waiting: usize,
    faults: Vec<String>,
}

fn check(options: &Options) -> anyhow::Result<()> {
    let owned = Owned::open(&options.place)?;
    let mut faults = Vec::new();
    let pictures = match owned.state() {
        Ok((before, after)) => {
            if let Some(before) = before {
                faults.extend(owned.folder.require_all(&before).err().map(|fault| fault.to_string()));
                let change = before.change_to(&after);
                if change.added > 0 || change.relabelled > 0 {
                    faults.push(format!(
                        "{} pictures were added and {} moved by hand: take note with `twin-agent data add`",
                        change.added, change.relabelled
                    ));
                }
            }
            if let Some(classes) = &owned.classes {
                faults.extend(after.labels(classes).err().map(|fault| fault.to_string()));
            }
            after.pictures.len()
        }
        Err(fault) => {
            faults.extend(fault.to_string().lines().map(str::to_owned));
            0
        }
    };
    let waiting = owned.folder.waiting().unwrap_or_default().len();
    let count = faults.len();
    match options.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string(&Checked { pictures, waiting, faults })?))?,
        Format::Table => {
            faults.iter().try_for_each(|fault| print(&format!("{fault}\n")))?;
            if count == 0 {
                print(&format!("{pictures} pictures in order, {waiting} waiting for a label\n"))?;
            }
        }
    }
    match count {
        0 => Ok(()),
        1 => anyhow::bail!("one fault in {}", owned.folder.root().display()),
        _ => anyhow::bail!("{count} faults in {}", owned.folder.root().display()),
    }
}

#[derive(Serialize)]
struct Stats {
    pictures: usize,
    waiting: usize,
    /// The host's list that the classes were held against.
    classes_version: Option<u32>,
    classes: BTreeMap<String, Counts>,
    /// Fractions of 1, a channel.
    mean: [f32; 3],
    deviation: [f32; 3],
}

#[derive(Serialize, Default, Clone, Copy)]
struct Counts {
    train: usize,
    validation: usize,
    test: usize,
    /// Share of the training pictures: what the personal answer goes by.
    frequency: f64,
}

fn stats(options: &Options) -> anyhow::Result<()> {
    let owned = Owned::open(&options.place)?;
    let manifest = match owned.folder.manifest()? {
        Some(manifest) => manifest,
        None => owned.state()?.1,
    };
    let names: std::collections::BTreeSet<String> = manifest.pictures.iter().map(|entry| entry.class.clone()).collect();
    let own = ClassList::new(0, names.into_iter().collect())?;
    let set = owned.folder.image_set(&manifest, &own, None)?;
    let mut counts = vec![Counts::default(); own.names().len()];
    for index in 0..set.len() {
        let (count, hash) = (&mut counts[usize::from(set.label(index))], set.hash(index));
        let slot = match hash {
            hash if hash.belongs(Part::Validation) => &mut count.validation,
            hash if hash.belongs(Part::Test) => &mut count.test,
            _ => &mut count.train,
        };
        *slot += 1;
    }
    let train: usize = counts.iter().map(|count| count.train).sum();
    for count in &mut counts {
        count.frequency = count.train as f64 / train.max(1) as f64;
    }
    let normalisation = set.normalisation();
    let stats = Stats {
        pictures: set.len(),
        waiting: owned.folder.waiting()?.len(),
        classes_version: owned.classes.as_ref().map(ClassList::version),
        classes: own.names().iter().cloned().zip(counts).collect(),
        mean: normalisation.mean,
        deviation: normalisation.deviation,
    };
    match options.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string(&stats)?)),
        Format::Table => print(&table(&stats)),
    }
}

fn table(stats: &Stats) -> String {
    let width = stats.classes.keys().map(|name| name.chars().count()).max().unwrap_or(0).max("class".len());
    let mut text = format!("{:width$}  train  validation  test  frequency\n", "class");
    for (name, counts) in &stats.classes {
        let Counts { train, validation, test, frequency } = counts;
        text.push_str(&format!("{name:width$}  {train:5}  {validation:10}  {test:4}  {frequency:9.3}\n"));
    }
    text.push_str(&format!("{} pictures, {} waiting for a label\n", stats.pictures, stats.waiting));
    text
}
