//! Recorded boards against what they are expected to say, in `tests/fixtures/boards/*/expected.json`.

use std::fs;
use std::path::Path;

use super::*;

fn boards() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/boards");
    let entries = fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("readable").path());
    let mut boards: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    boards.sort();
    boards
}

fn sample(root: &Path) -> Telemetry {
    LinuxSampler::new(Root::Recorded(root.to_owned()), None).sample(Instant::now())
}

#[test]
fn every_recorded_board_says_what_is_expected_of_it() {
    let boards = boards();
    assert!(boards.len() >= 6, "{boards:?}");
    for board in boards {
        let expected = fs::read_to_string(board.join("expected.json")).expect("an expectation");
        let said = format!("{:#}\n", as_json(&sample(&board)));
        assert_eq!(said, expected, "{}", board.display());
    }
}

#[test]
fn a_table_has_a_line_a_figure() {
    for board in boards() {
        let sample = sample(&board);
        let text = table(&sample);
        assert_eq!(text.lines().count(), figures(sample).len() + 2, "{text}");
        assert!(!text.lines().any(|line| line.ends_with(' ')), "{text}");
    }
}

/// Proportions of the heap and of time are measured on a live board; this is the size that the network sees.
#[test]
fn a_sealed_sample_of_each_recorded_board_is_at_most_256_bytes() {
    use twin_shared::id::BootId;
    use twin_shared::wire::seal::{DeviceKey, Sealer};
    use twin_shared::wire::{Channel, Direction, Topic};

    let key = DeviceKey::new([7; 32]);
    let mut sealer = Sealer::new(&key, Direction::Up, BootId([9; 16]));
    let topic = Topic { device: "board-1".parse().expect("a name"), channel: Channel::UpTelemetry };
    for board in boards() {
        let mut buffer = [0; 256];
        let sealed = sealer.seal(&topic, 1_800_000_000_000, &sample(&board), &mut buffer).expect("fits").len();
        println!("{}: {sealed} bytes", board.file_name().expect("a name").display());
        assert!(sealed <= 256);
    }
}
