use super::*;
use crate::Part;
use crate::image_set::IMAGE_BYTES;

/// A folder with plain pictures, each of another grey: `(class, file, grey)`.
fn folder(pictures: &[(&str, &str, u8)]) -> (tempfile::TempDir, Folder) {
    let directory = tempfile::tempdir().unwrap();
    let folder = Folder::new(directory.path());
    for (class, file, grey) in pictures {
        draw(&folder, class, file, *grey);
    }
    (directory, folder)
}

fn draw(folder: &Folder, class: &str, file: &str, grey: u8) {
    fs::create_dir_all(folder.root().join(class)).unwrap();
    fs::write(folder.path(class, file), picture::to_png(&[grey; IMAGE_BYTES]).unwrap()).unwrap();
}

fn classes(names: &[&str]) -> ClassList {
    ClassList::new(1, names.iter().map(|&name| name.to_owned()).collect()).unwrap()
}

#[test]
fn a_folder_becomes_an_image_set_by_the_hosts_indices() {
    let (_directory, folder) = folder(&[("dog", "a.png", 1), ("cat", "b.png", 2), ("cat", "c.PNG", 3)]);
    fs::write(folder.path("cat", "notes.txt"), "no picture").unwrap();
    draw(&folder, "incoming", "later.png", 9);
    let (manifest, change) = folder.update().unwrap();
    assert_eq!(change, Change { added: 3, deleted: 0, relabelled: 0 });
    let set = folder.image_set(&manifest, &classes(&["axolotl", "cat", "dog"]), None).unwrap();
    assert_eq!(set.label_counts(), [0, 2, 1]);
    assert!(crate::manifest::Manifest::of(&set).is_canonical());
    assert_eq!(folder.waiting().unwrap(), ["later.png"]);
    let (alone, names) = read(folder.root()).unwrap();
    assert_eq!((alone.len(), names), (3, vec!["cat".to_owned(), "dog".to_owned()]));
}

#[test]
fn only_what_is_new_is_decoded_again() {
    let (_directory, folder) = folder(&[("cat", "a.png", 1), ("cat", "b.png", 2)]);
    let (manifest, _) = folder.update().unwrap();
    let list = classes(&["cat", "dog"]);
    let first = folder.image_set(&manifest, &list, None).unwrap();
    // Damaged, and yet of the same length and time: a file that is not opened cannot be found out.
    let path = folder.path("cat", "a.png");
    let (length, time) = (fs::metadata(&path).unwrap().len(), fs::metadata(&path).unwrap().modified().unwrap());
    fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    draw(&folder, "dog", "c.png", 3);
    let (manifest, change) = folder.update().unwrap();
    assert_eq!(change, Change { added: 1, deleted: 0, relabelled: 0 });
    let second = folder.image_set(&manifest, &list, Some(&first)).unwrap();
    assert_eq!(second.label_counts(), [2, 1]);
    assert!(matches!(folder.image_set(&manifest, &list, None), Err(FolderError::Picture { .. })));
}

#[test]
fn deletions_and_relabels_count_once_they_are_noted() {
    let (_directory, folder) = folder(&[("cat", "a.png", 1), ("cat", "b.png", 2), ("dog", "c.png", 3)]);
    let (manifest, _) = folder.update().unwrap();
    fs::remove_file(folder.path("cat", "a.png")).unwrap();
    fs::rename(folder.path("cat", "b.png"), folder.path("dog", "b.png")).unwrap();
    let said = folder.require_all(&manifest).unwrap_err().to_string();
    assert!(said.contains("names 2 pictures that are not there, cat/a.png first"), "{said}");
    let (manifest, change) = folder.update().unwrap();
    assert_eq!(change, Change { added: 0, deleted: 1, relabelled: 1 });
    folder.require_all(&manifest).unwrap();
}

#[test]
fn every_fault_has_its_line_and_the_manifest_stays() {
    let (_directory, folder) = folder(&[("cat", "a.png", 1)]);
    let (before, _) = folder.update().unwrap();
    fs::write(folder.path("cat", "empty.jpg"), "").unwrap();
    fs::write(folder.path("cat", "text.png"), "no picture at all").unwrap();
    draw(&folder, "dog", "same.png", 1);
    let said = folder.update().unwrap_err().to_string();
    assert_eq!(said.lines().count(), 3, "{said}");
    for part in ["empty.jpg: the file is empty", "text.png: neither a JPEG nor a PNG", "same picture under two classes"]
    {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(folder.manifest().unwrap(), Some(before));
}

#[test]
fn two_spellings_unknown_classes_and_foreign_manifests_are_refused() {
    let (_directory, folder) = folder(&[("cat", "a.png", 1), ("Cat", "b.png", 2)]);
    let said = folder.update().unwrap_err().to_string();
    assert!(said.contains("two spellings of one class"), "{said}");
    fs::remove_dir_all(folder.root().join("Cat")).unwrap();
    let (manifest, _) = folder.update().unwrap();
    let said = folder.image_set(&manifest, &classes(&["dog"]), None).unwrap_err().to_string();
    assert!(said.contains("\"cat\" is not in the host's list"), "{said}");
    let text = fs::read_to_string(folder.root().join(MANIFEST)).unwrap();
    for (from, to) in [("\"a.png\"", "\"../a.png\""), ("\"version\": 1", "\"version\": 2"), ("\"cat\"", "\"../x\"")] {
        fs::write(folder.root().join(MANIFEST), text.replace(from, to)).unwrap();
        assert!(matches!(folder.manifest(), Err(FolderError::Manifest { .. })), "{to}");
    }
}

#[test]
fn a_label_moves_a_waiting_picture() {
    let (_directory, folder) = folder(&[("cat", "a.png", 1), ("incoming", "x.png", 2)]);
    folder.label("x.png", "dog").unwrap();
    assert!(folder.waiting().unwrap().is_empty());
    let found = folder.found().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].class, "dog");
    assert!(folder.label("x.png", "dog").is_err());
}

#[test]
fn the_parts_of_an_image_follow_from_it_alone() {
    let hashes: Vec<SampleHash> = (0..20_000u32)
        .map(|n| {
            let mut image = [0; IMAGE_BYTES];
            image[..4].copy_from_slice(&n.to_le_bytes());
            SampleHash::of(&image)
        })
        .collect();
    let count = |part| hashes.iter().filter(|hash| hash.belongs(part)).count();
    assert_eq!(count(Part::Train) + count(Part::Held), hashes.len());
    assert_eq!(count(Part::Validation) + count(Part::Test), count(Part::Held));
    // Four standard deviations of a binomial(20000, 1/20) are 123.
    for part in [Part::Validation, Part::Test] {
        assert!(count(part).abs_diff(1000) < 123, "{part:?} {}", count(part));
    }
}
