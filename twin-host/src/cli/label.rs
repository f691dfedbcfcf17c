//! `label DEVICE`: labels for pictures that a board's owner lets the host see.

use std::io::{BufRead, Write};

use anyhow::anyhow;
use clap::Args;
use twin_data::{ClassList, SampleHash, picture};
use twin_shared::id::DeviceId;

use super::Failure;
use super::devices::{DataArguments, failed};
use crate::control::{ControlError, Request, ask};
use crate::store::Store;

/// Arguments of `label`.
#[derive(Debug, Args)]
pub(crate) struct LabelArguments {
    /// The device
    device: DeviceId,
    #[command(flatten)]
    data: DataArguments,
}

/// Shows each picture of a device that waits, and asks for its class.
pub(crate) fn label(arguments: &LabelArguments) -> Result<(), Failure> {
    let (store, device) = (arguments.data.store()?, &arguments.device);
    let classes = store.classes().map_err(failed)?;
    if store.waiting(device).map_err(failed)?.is_empty() {
        return Err(Failure::Failed(anyhow!(
            "{device} shows no pictures that wait: its owner allows it by share_incoming = true in [dataset] of its agent.toml"
        )));
    }
    if classes.count() == 0 {
        return Err(Failure::Failed(anyhow!("there are no classes yet: twin-host classes add NAME")));
    }
    let labelled = ask_for_labels(&store, device, &classes, std::io::stdin().lock(), std::io::stdout().lock())?;
    if labelled == 0 {
        return Ok(());
    }
    match ask(&arguments.data.directory()?, &Request::Labelled { device: device.clone() }) {
        // Without a host that serves, the board hears of it when one does.
        Ok(_) | Err(ControlError::NobodyServes(_)) => Ok(()),
        Err(error) => Err(anyhow::Error::from(error).context("telling the board").into()),
    }
}

/// Asks until the pictures are through, or `q` or the end of the input; how many got a label.
fn ask_for_labels(
    store: &Store,
    device: &DeviceId,
    classes: &ClassList,
    mut input: impl BufRead,
    mut output: impl Write,
) -> Result<usize, Failure> {
    let given = store.waiting_labels(device).map_err(failed)?.0;
    let pictures = store.waiting(device).map_err(failed)?;
    let open = pictures.iter().map(|image| (image, SampleHash::of(image)));
    let open: Vec<_> = open.filter(|(_, sample)| !given.contains_key(sample)).collect();
    let mut labelled = 0;
    let told = |error: std::io::Error| Failure::Failed(anyhow::Error::from(error).context("the terminal"));
    'pictures: for (image, sample) in &open {
        output.write_all(picture::to_blocks(image).as_bytes()).map_err(told)?;
        loop {
            write!(output, "{:.8}: class (s: skip; q: stop)? ", sample.to_string()).map_err(told)?;
            output.flush().map_err(told)?;
            let mut line = String::new();
            if input.read_line(&mut line).map_err(told)? == 0 {
                break 'pictures;
            }
            match line.trim() {
                "q" => break 'pictures,
                "s" => break,
                "" => {}
                class => match classes.index(class) {
                    Ok(_) => {
                        store.label_waiting(device, *sample, class).map_err(failed)?;
                        labelled += 1;
                        break;
                    }
                    Err(fault) => writeln!(output, "{fault}").map_err(told)?,
                },
            }
        }
    }
    writeln!(output, "{labelled} labelled, {} waiting", open.len() - labelled).map_err(told)?;
    Ok(labelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_data::{IMAGE_BYTES, Image, waiting};
    use twin_shared::wire::seal::DeviceKey;

    #[test]
    fn each_picture_is_asked_for_until_it_has_a_class_of_the_list() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let device: DeviceId = "board1".parse().unwrap();
        store.enroll(&device, &DeviceKey::new([1; 32])).unwrap();
        let images: Vec<Image> = (0..4).map(|grey| [grey; IMAGE_BYTES]).collect();
        let blob = store.blobs(&device).unwrap().put(&waiting::to_bytes(&images)).unwrap();
        store.hold_waiting(&device, &blob).unwrap();
        let classes = ClassList::new(1, vec!["cat".into(), "dog".into()]).unwrap();
        let answered = |answers: &str| {
            let mut output = Vec::new();
            let labelled = ask_for_labels(&store, &device, &classes, answers.as_bytes(), &mut output).unwrap();
            (labelled, String::from_utf8(output).unwrap())
        };
        let (labelled, shown) = answered("zebra\ncat\n\ns\ndog\nq\n");
        assert!(shown.contains("\"zebra\" is not in the host's list") && shown.contains('▀'), "{shown}");
        assert!(labelled == 2 && shown.ends_with("2 labelled, 2 waiting\n"), "{shown}");
        let labels = store.waiting_labels(&device).unwrap().0;
        let class = |k: usize| labels.get(&SampleHash::of(&images[k])).map(String::as_str);
        assert_eq!([0, 1, 2, 3].map(class), [Some("cat"), None, Some("dog"), None]);
        // Those that have a label are not asked for again.
        let (labelled, shown) = answered("cat\n");
        assert!(labelled == 1 && shown.ends_with("1 labelled, 1 waiting\n"), "{shown}");
        assert!(store.waiting_labels(&device).unwrap().0.contains_key(&SampleHash::of(&images[1])));
    }
}
