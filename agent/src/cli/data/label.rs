//! `twin-agent data label`: shows each waiting picture in the terminal, in blocks of colour, and asks for its class.

use std::io::{self, BufRead, Write};

use clap::Args;
use twin_data::classes::spelling;
use twin_data::folder::Folder;
use twin_data::{Image, picture};
use twin_infer::{Answer, Network};

use super::{Owned, Place};
use crate::models::Models;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let owned = Owned::open(&options.place)?;
    let (input, output) = (io::stdin().lock(), io::stdout().lock());
    let adviser = Adviser::of(&owned);
    let labelled = ask(&owned, &adviser, input, output)?;
    let left = owned.folder.waiting()?.len();
    if labelled > 0 {
        owned.folder.update()?;
    }
    writeln!(io::stdout(), "{labelled} labelled, {left} waiting")?;
    Ok(())
}

/// What the active model takes a picture for; a board without one has no opinion.
struct Adviser(Option<(Network, Vec<String>)>);

impl Adviser {
    fn of(owned: &Owned) -> Self {
        let models = Models::at(&owned.config.data_dir);
        let bundle = models.active().ok().and_then(|(version, _)| models.read(&version).ok());
        Self(bundle.and_then(|bundle| Some((Network::new(&bundle).ok()?, bundle.about.classes))))
    }

    fn opinion(&self, image: &Image) -> Option<&str> {
        let (network, classes) = self.0.as_ref()?;
        let logits = network.logits(&[image]).ok()?;
        classes.get(Answer::ranked(logits.first()?).first()?.class).map(String::as_str)
    }
}

/// Asks for each waiting picture until they are through, or `q` or the end of the input. Returns how many got a label.
fn ask(owned: &Owned, adviser: &Adviser, mut input: impl BufRead, mut output: impl Write) -> anyhow::Result<usize> {
    let mut labelled = 0;
    for name in owned.folder.waiting()? {
        let image = match picture::read(&owned.folder.path(twin_data::classes::INCOMING, &name)) {
            Ok(image) => image,
            Err(fault) => {
                writeln!(output, "{name}: {fault}")?;
                continue;
            }
        };
        output.write_all(picture::to_blocks(&image).as_bytes())?;
        let opinion = adviser.opinion(&image);
        loop {
            match opinion {
                Some(opinion) => write!(output, "{name}: class (Enter: {opinion}; s: skip; q: stop)? ")?,
                None => write!(output, "{name}: class (s: skip; q: stop)? ")?,
            }
            output.flush()?;
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Ok(labelled);
            }
            let class = match (line.trim(), opinion) {
                ("q", _) => return Ok(labelled),
                ("s", _) => break,
                ("", Some(opinion)) => opinion,
                ("", None) => continue,
                (class, _) => class,
            };
            match owned.require_class(class).and_then(|()| require_one_spelling(&owned.folder, class)) {
                Ok(()) => {
                    owned.folder.label(&name, class)?;
                    labelled += 1;
                    break;
                }
                Err(fault) => writeln!(output, "{fault}")?,
            }
        }
    }
    Ok(labelled)
}

/// Nothing, if the folder has no class of another spelling.
fn require_one_spelling(folder: &Folder, class: &str) -> anyhow::Result<()> {
    let found = folder.found()?;
    match found.iter().find(|found| found.class != class && spelling(&found.class) == spelling(class)) {
        Some(other) => anyhow::bail!("the class is spelled {:?} here", other.class),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use twin_data::{ClassList, IMAGE_BYTES};

    fn owned(waiting: u8) -> (tempfile::TempDir, Owned) {
        let directory = tempfile::tempdir().expect("a folder");
        let incoming = directory.path().join("incoming");
        std::fs::create_dir_all(&incoming).expect("made");
        for grey in 0..waiting {
            let png = picture::to_png(&[grey; IMAGE_BYTES]).expect("a picture");
            std::fs::write(incoming.join(format!("{grey}.png")), png).expect("written");
        }
        let config = Config::parse("").expect("the defaults");
        let folder = Folder::new(directory.path());
        (directory, Owned { config, folder, classes: None })
    }

    fn answered(owned: &Owned, answers: &str) -> (usize, String) {
        let mut output = Vec::new();
        let labelled = ask(owned, &Adviser(None), answers.as_bytes(), &mut output).expect("asked");
        (labelled, String::from_utf8(output).expect("text"))
    }

    #[test]
    fn every_waiting_picture_is_shown_and_moves_to_its_class() {
        let (_directory, mut owned) = owned(4);
        let (labelled, shown) = answered(&owned, "cat\ns\nCat\ncat\n");
        assert_eq!(labelled, 2);
        assert!(shown.contains("▀") && shown.contains("spelled \"cat\" here"), "{shown}");
        assert_eq!(owned.folder.waiting().expect("listed").len(), 2);
        owned.classes = Some(ClassList::new(1, vec!["cat".into()]).expect("names"));
        let (labelled, shown) = answered(&owned, "zebra\nq\n");
        assert_eq!(labelled, 0);
        assert!(shown.contains("\"zebra\" is not in the host's list"), "{shown}");
    }
}
