//! `twin-agent predict`: what the active model takes pictures for.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use twin_data::picture::{self, PictureError};
use twin_data::{ClassList, Image};
use twin_infer::{Answer, Network, personal};

use super::data::Place;
use super::{Format, print};
use crate::config::Config;
use crate::models::Models;

/// Classes that are printed for people.
const SHOWN: usize = 3;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// A picture, a folder of pictures, or - for one picture on standard input
    #[arg(value_name = "IMAGE|DIR|-")]
    what: PathBuf,
    /// Expect the classes as often as this board has seen them
    #[arg(long)]
    personal: bool,
    #[command(flatten)]
    place: Place,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Serialize)]
struct Predicted {
    model: String,
    personal: bool,
    predictions: Vec<Prediction>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Prediction {
    Answered {
        file: String,
        class: String,
        probability: f32,
        /// Before the personal adjustment, by the model's classes in order.
        logits: Vec<f32>,
        #[serde(skip)]
        best: Vec<(String, f32)>,
    },
    Failed {
        file: String,
        error: String,
    },
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let config = Config::load(&options.place.config)?;
    let models = Models::at(&config.data_dir);
    let (version, _) = models.active()?;
    let bundle = models.read(&version)?;
    let network = Network::new(&bundle)?;
    let classes = ClassList::new(0, bundle.about.classes.clone())?;
    let counts = options.personal.then_some(bundle.about.label_counts.as_slice());
    let mut predictions = Vec::new();
    for (file, image) in pictures(&options.what)? {
        let prediction = match image {
            Err(error) => Prediction::Failed { file, error: error.to_string() },
            Ok(image) => answer(&network, &classes, file, &image, counts)?,
        };
        if options.format == Format::Table {
            print(&line(&prediction))?;
        }
        predictions.push(prediction);
    }
    let failed = predictions.iter().filter(|prediction| matches!(prediction, Prediction::Failed { .. })).count();
    let all = predictions.len();
    if options.format == Format::Json {
        let predicted = Predicted { model: version.to_string(), personal: options.personal, predictions };
        print(&format!("{}\n", serde_json::to_string(&predicted)?))?;
    }
    anyhow::ensure!(failed == 0, "{failed} of {all} pictures have no answer");
    Ok(())
}

fn answer(
    network: &Network,
    classes: &ClassList,
    file: String,
    image: &Image,
    counts: Option<&[u32]>,
) -> anyhow::Result<Prediction> {
    let logits = network.logits(&[image])?.pop().context("one image has one answer")?;
    let mut adjusted = logits.clone();
    if let Some(counts) = counts {
        personal(&mut adjusted, counts);
    }
    let named = |answer: &Answer| (classes.names()[answer.class].clone(), answer.probability);
    let best: Vec<(String, f32)> = Answer::ranked(&adjusted).iter().take(SHOWN).map(named).collect();
    let (class, probability) = best.first().cloned().context("a model has classes")?;
    Ok(Prediction::Answered { file, class, probability, logits, best })
}

/// A picture's name, and what became of decoding it.
type Decoded = (String, Result<Box<Image>, PictureError>);

/// The pictures in order of their names, decoded one at a time as they are asked for.
fn pictures(what: &Path) -> anyhow::Result<Box<dyn Iterator<Item = Decoded>>> {
    if what == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().take(picture::MAX_FILE + 1).read_to_end(&mut bytes).context("standard input")?;
        return Ok(Box::new(std::iter::once(("-".to_owned(), picture::decode(&bytes)))));
    }
    let mut files = vec![what.to_owned()];
    if fs::metadata(what).with_context(|| what.display().to_string())?.is_dir() {
        files.clear();
        for entry in fs::read_dir(what).with_context(|| what.display().to_string())? {
            let path = entry?.path();
            if path.is_file() && picture::is_named_so(&path) {
                files.push(path);
            }
        }
        files.sort_unstable();
        anyhow::ensure!(!files.is_empty(), "{} has no pictures", what.display());
    }
    Ok(Box::new(files.into_iter().map(|file| (file.display().to_string(), picture::read(&file)))))
}

fn line(prediction: &Prediction) -> String {
    match prediction {
        Prediction::Failed { file, error } => format!("{file}: error: {error}\n"),
        Prediction::Answered { file, best, .. } => {
            let answers = best.iter().map(|(class, probability)| format!("{class} {:.1} %", probability * 100.0));
            format!("{file}: {}\n", answers.collect::<Vec<_>>().join(", "))
        }
    }
}
