//! `twin-agent data add`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use twin_data::SampleHash;
use twin_data::classes::{INCOMING, check_names, spelling};
use twin_data::picture;

use super::super::{Format, Usage, print};
use super::{Owned, Place};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folders with a sub-folder a class, folders named like a class, or pictures
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// All these pictures are of this class
    #[arg(long, value_name = "NAME", conflicts_with = "incoming")]
    class: Option<String>,
    /// Nobody knows yet what these pictures show: `twin-agent data label` asks
    #[arg(long)]
    incoming: bool,
    #[command(flatten)]
    place: Place,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// A picture to be taken in.
struct Wanted {
    file: PathBuf,
    class: String,
    sample: SampleHash,
}

#[derive(Serialize)]
struct Added {
    added: usize,
    deleted: usize,
    relabelled: usize,
    /// Pictures that were there already.
    known: usize,
    /// Pictures that wait for a label.
    waiting: usize,
    /// Pictures of the dataset.
    pictures: usize,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let owned = Owned::open(&options.place)?;
    let mut plan = Vec::new();
    for path in &options.paths {
        collect(path, options, &mut plan)?;
    }
    let wanted = examine(&owned, plan)?;
    fs::create_dir_all(owned.folder.root())
        .with_context(|| format!("cannot make {}", owned.folder.root().display()))?;
    // What lies there must be in order before anything is added to it.
    let before = owned.state()?.1;
    require_one_label(&before, &wanted)?;
    let mut known = 0;
    for Wanted { file, class, sample } in &wanted {
        let there = before.pictures.iter().any(|entry| entry.sample == *sample);
        if there || !owned.folder.put(class, *sample, file)? {
            known += 1;
        }
    }
    let (manifest, change) = owned.folder.update()?;
    let added = Added {
        added: change.added,
        deleted: change.deleted,
        relabelled: change.relabelled,
        known,
        waiting: owned.folder.waiting()?.len(),
        pictures: manifest.pictures.len(),
    };
    match options.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string(&added)?)),
        Format::Table => print(&format!(
            "{} added, {} deleted, {} relabelled, {known} there already: {} pictures, {} waiting for a label\n",
            added.added, added.deleted, added.relabelled, added.pictures, added.waiting
        )),
    }
}

/// Files and their classes, of one PATH.
fn collect(path: &Path, options: &Options, plan: &mut Vec<(PathBuf, String)>) -> anyhow::Result<()> {
    let label = if options.incoming { Some(INCOMING.to_owned()) } else { options.class.clone() };
    let data = fs::metadata(path).with_context(|| path.display().to_string())?;
    if data.is_file() {
        let Some(label) = label else {
            return Err(Usage(format!(
                "{}: of which class? Give --class NAME, or --incoming to be asked later",
                path.display()
            ))
            .into());
        };
        plan.push((path.to_owned(), label));
        return Ok(());
    }
    let (folders, files) = listed(path)?;
    if let Some(label) = label {
        if !folders.is_empty() {
            return Err(Usage(format!(
                "{} has sub-folders, which are classes: leave out --class and --incoming",
                path.display()
            ))
            .into());
        }
        plan.extend(files.into_iter().map(|file| (file, label.clone())));
        return Ok(());
    }
    if folders.is_empty() {
        let name = name_of(&std::path::absolute(path)?);
        plan.extend(files.into_iter().map(|file| (file, name.clone())));
        return Ok(());
    }
    if let Some(file) = files.first() {
        return Err(Usage(format!(
            "{} lies beside class folders: of which class is it? Add it with --class NAME",
            file.display()
        ))
        .into());
    }
    for folder in folders {
        let name = name_of(&folder);
        let name = if spelling(&name) == INCOMING { INCOMING.to_owned() } else { name };
        plan.extend(listed(&folder)?.1.into_iter().map(|file| (file, name.clone())));
    }
    Ok(())
}

/// Sub-folders and pictures of a folder, by name; hidden ones and other files are left out.
fn listed(folder: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if name_of(&path).starts_with('.') {
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else if picture::is_named_so(&path) {
            files.push(path);
        }
    }
    folders.sort_unstable();
    files.sort_unstable();
    Ok((folders, files))
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Decodes every picture; every fault is a line.
fn examine(owned: &Owned, plan: Vec<(PathBuf, String)>) -> anyhow::Result<Vec<Wanted>> {
    let mut faults: Vec<String> = Vec::new();
    let names: std::collections::BTreeSet<&str> = plan.iter().map(|(_, class)| class.as_str()).collect();
    let classes: Vec<&str> = names.into_iter().filter(|&name| name != INCOMING).collect();
    faults.extend(check_names(classes.iter().copied()).err().map(|fault| fault.to_string()));
    for class in &classes {
        faults.extend(owned.require_class(class).err().map(|fault| fault.to_string()));
    }
    let mut wanted = Vec::new();
    for (file, class) in plan {
        match picture::read(&file) {
            Ok(image) => wanted.push(Wanted { sample: SampleHash::of(&image), file, class }),
            Err(fault) => faults.push(format!("{}: {fault}", file.display())),
        }
    }
    faults.dedup();
    if faults.is_empty() { Ok(wanted) } else { anyhow::bail!("nothing was added:\n{}", faults.join("\n")) }
}

/// Nothing, if no picture comes under two classes, or under another than it has.
fn require_one_label(before: &twin_data::folder::FolderManifest, wanted: &[Wanted]) -> anyhow::Result<()> {
    let mut labels: std::collections::BTreeMap<SampleHash, (String, String)> = before
        .pictures
        .iter()
        .map(|entry| (entry.sample, (entry.class.clone(), format!("{}/{}", entry.class, entry.file))))
        .collect();
    let mut faults = Vec::new();
    for Wanted { file, class, sample } in wanted.iter().filter(|wanted| wanted.class != INCOMING) {
        let here = file.display().to_string();
        match labels.get(sample) {
            Some((other, first)) if other != class => {
                faults.push(format!("{here} ({class}) is the same picture as {first}: keep one label"));
            }
            Some(_) => {}
            None => {
                labels.insert(*sample, (class.clone(), here));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { anyhow::bail!("nothing was added:\n{}", faults.join("\n")) }
}
