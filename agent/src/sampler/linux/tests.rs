//! Boards made of files.

use std::fs;

use super::*;

/// A folder with these files, and the tree that it is.
pub(super) fn board(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let file = folder.path().join(path);
        fs::create_dir_all(file.parent().expect("a file below a folder")).expect("created");
        fs::write(file, text).expect("written");
    }
    let tree = Tree::new(folder.path().to_owned());
    (folder, tree)
}

#[test]
fn an_empty_folder_is_a_board_that_knows_nothing() {
    let (folder, _tree) = board(&[]);
    let mut sampler = LinuxSampler::new(Root::Recorded(folder.path().to_owned()), None);
    assert_eq!(sampler.sample(Instant::now()), Telemetry::default());
}

#[test]
fn the_configured_interface_is_the_link() {
    let (folder, _tree) = board(&[("sys/class/net/eth7/type", "1\n"), ("sys/class/net/eth7/carrier", "1\n")]);
    let mut sampler = LinuxSampler::new(Root::Recorded(folder.path().to_owned()), Some("eth7".to_owned()));
    assert!(matches!(sampler.sample(Instant::now()).link, Link::Wired(_)));
}
