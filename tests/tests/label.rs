//! Pictures without a label, labelled at the host with the owner's consent, and kept from it without.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use twin_data::picture::to_png;
use twin_data::{IMAGE_BYTES, SampleHash};
use twin_tests::{Fleet, Play, programs_or_skip};

/// Longer than anything here takes on the slowest machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, fleet: &Fleet, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        let logs = || ["shows/agent.log", "hides/agent.log", "host.log"].map(|name| fleet.log(name)).join("\n");
        assert!(began.elapsed() < PATIENCE, "{what}: not so:\n{}", logs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn configure(fleet: &Fleet, board: &str, share: bool) {
    let dataset = "[dataset]\npath = \"pictures\"\nformat = \"folder\"\n";
    fleet.configure_board(board, board, &format!("{dataset}share_incoming = {share}\n"));
}

#[test]
fn waiting_pictures_are_labelled_at_the_host_where_the_owner_lets_it() {
    let programs = programs_or_skip!();
    let play = Play { tls: true, ..Play::trained(programs.join("twin-trainer")) };
    let fleet = Fleet::played(programs, &[], "all-host", play);
    fs::write(fleet.path("names.txt"), "cat\ndog\n").expect("written");
    assert!(fleet.host(&["classes", "import", "names.txt"]).0);
    for (board, share) in [("shows", true), ("hides", false)] {
        fleet.enroll(board, &[]);
        configure(&fleet, board, share);
        let incoming = PathBuf::from(fleet.path(board)).join("pictures/incoming");
        fs::create_dir_all(&incoming).expect("made");
        for grey in 1..=3u8 {
            let png = to_png(&[grey; IMAGE_BYTES]).expect("a picture");
            fs::write(incoming.join(format!("{grey}.png")), png).expect("written");
        }
    }
    let _host = fleet.serve_idle(&[]);
    let mut shows = fleet.agent("shows");
    let _hides = fleet.agent("hides");
    until("the pictures are shown", &fleet, || fleet.host_asked(&["label", "shows"], "q\n").0);
    let (done, said) = fleet.host(&["label", "hides"]);
    assert!(!done && said.lines().count() == 1 && said.contains("share_incoming"), "{said}");

    let (done, said) = fleet.host_asked(&["label", "shows"], "dog\ns\ncat\n");
    assert!(done && said.contains("2 labelled, 1 waiting"), "{said}");
    let pictures = PathBuf::from(fleet.path("shows/pictures"));
    let place = |class: &str, grey: u8| {
        let sample = SampleHash::of(&[grey; IMAGE_BYTES]);
        pictures.join(class).join(format!("{sample}.png"))
    };
    until("the board has made them its own", &fleet, || place("dog", 1).is_file() && place("cat", 3).is_file());
    // Its dataset follows, and what it shows.
    until("the dataset has both", &fleet, || fleet.agent_log("shows").contains("samples=2"));
    until("one is left", &fleet, || fleet.host_asked(&["label", "shows"], "").1.contains("0 labelled, 1 waiting"));
    assert!(pictures.join("incoming/2.png").is_file() && !pictures.join("incoming/1.png").exists());
    assert!(fs::exists(fleet.path("hides/pictures/incoming/1.png")).expect("asked"));
    let kept = || fs::read_dir(fleet.path("host/twins/hides/blobs")).map_or(0, Iterator::count);
    assert!(kept() <= 1, "more than the list of classes: a picture that was not shown");

    // The owner takes the permission back: what the host had is gone, on disk too.
    assert!(shows.terminate());
    configure(&fleet, "shows", false);
    let _shows = fleet.agent("shows");
    until("nothing is shown any more", &fleet, || fleet.host(&["label", "shows"]).1.contains("share_incoming"));
    let blobs = Path::new(&fleet.path("host/twins/shows/blobs")).read_dir().expect("a folder");
    let holds =
        |path: &Path| fs::read(path).expect("a blob").windows(IMAGE_BYTES).any(|image| image == [2; IMAGE_BYTES]);
    assert!(!blobs.map(|entry| entry.expect("an entry").path()).any(|path| holds(&path)), "a picture stays");
}
