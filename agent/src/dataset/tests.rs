use super::*;
use twin_data::IMAGE_BYTES;
use twin_data::picture::to_png;

struct Board {
    folder: tempfile::TempDir,
    source: Source,
    blobs: Blobs,
}

fn board() -> Board {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(folder.path().join("blobs")).expect("made");
    let dataset =
        Dataset { path: folder.path().join("pictures"), format: DatasetFormat::Folder, share_incoming: false };
    let source = Source::open(dataset, folder.path(), blobs.clone()).expect("opened");
    Board { folder, source, blobs }
}

impl Board {
    fn draw(&self, class: &str, grey: u8) {
        let folder = self.folder.path().join("pictures").join(class);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join(format!("{grey}.png")), to_png(&[grey; IMAGE_BYTES]).expect("a picture"))
            .expect("written");
    }

    fn classes(&self, version: u32, names: &[&str]) -> Result<bool, DatasetError> {
        let list = ClassList::new(version, names.iter().map(|&name| name.to_owned()).collect()).expect("names");
        let blob = self.blobs.put(&list.to_json()).expect("put");
        follow_classes(self.folder.path(), &self.blobs, &blob)
    }

    fn update(&self) {
        Folder::new(&self.folder.path().join("pictures")).update().expect("in order");
    }

    fn set(&self, ready: &Ready) -> ImageSet {
        ImageSet::read(&self.blobs.path(&ready.blob)).expect("a set")
    }
}

#[test]
fn a_folder_waits_for_the_hosts_classes_and_then_follows_them() {
    let board = board();
    board.draw("dog", 1);
    board.draw("cat", 2);
    assert!(matches!(board.source.load(), Err(DatasetError::NoClasses)));
    assert!(board.classes(2, &["cat", "dog"]).expect("taken"));
    assert!(!board.classes(2, &["cat", "dog"]).expect("known"));
    assert!(!board.classes(1, &["cat"]).expect("older"));
    let first = board.source.load().expect("made");
    assert_eq!(board.set(&first).label_counts(), [1, 1]);
    assert_eq!(board.source.load().expect("found"), first);
    // A longer list is another version of the same pictures.
    assert!(board.classes(3, &["cat", "dog", "owl"]).expect("taken"));
    let second = board.source.load().expect("made");
    assert_eq!(board.set(&second).classes(), 3);
    assert_eq!(second.earlier, [first.offer.version]);
}

#[test]
fn the_twin_gets_what_changed_and_holds_the_same_version() {
    let board = board();
    board.classes(1, &["cat", "dog"]).expect("taken");
    (0..40).for_each(|grey| board.draw("cat", grey));
    let first = board.source.load().expect("made");
    board.draw("dog", 200);
    board.update();
    let second = board.source.load().expect("made");
    let (from, to) = (first.offer.version, second.offer.version);
    let delta = board.source.delta(from, to).expect("made").expect("remembered");
    assert!(board.blobs.size(&delta).expect("there") < 2 * IMAGE_BYTES as u64);
    let bytes = fs::read(board.blobs.path(&delta)).expect("there");
    let made = Delta::from_bytes(&bytes).expect("a delta").apply(&board.set(&first)).expect("applied");
    assert_eq!(DatasetVersion::of(&made.to_bytes()), to);
    assert_eq!(board.source.delta(DatasetVersion([9; 32]), to).expect("asked"), None);
}

#[test]
fn an_unknown_class_and_a_missing_picture_leave_the_version_before() {
    let board = board();
    board.classes(1, &["cat"]).expect("taken");
    board.draw("cat", 1);
    board.draw("cat", 2);
    let first = board.source.load().expect("made");
    board.draw("zebra", 3);
    board.update();
    let said = board.source.load().expect_err("unknown").to_string();
    assert!(said.contains("\"zebra\" is not in the host's list"), "{said}");
    fs::remove_dir_all(board.folder.path().join("pictures/zebra")).expect("removed");
    board.update();
    fs::remove_file(board.folder.path().join("pictures/cat/1.png")).expect("removed");
    let said = board.source.load().expect_err("missing").to_string();
    assert!(said.contains("not there, cat/1.png first"), "{said}");
    assert_eq!(board.source.newest().expect("asked"), Some(first));
}
