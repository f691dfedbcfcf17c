//! The demo's boards: their datasets, their folders as enrolment makes them, and their processes.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::process::{Child, Command};
use twin_core::coordinator::RoundRecord;
use twin_data::ImageSet;
use twin_data::digits::{BoardSplit, split};
use twin_shared::units::Gigahertz;

use super::Scored;
use super::scenario::{Board, Scenario};

/// Where the demo keeps what it makes.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// All of it.
    pub(crate) out: PathBuf,
}

impl Layout {
    pub(crate) fn host(&self) -> PathBuf {
        self.out.join("host")
    }

    pub(crate) fn board(&self, board: &Board) -> PathBuf {
        self.out.join("boards").join(board.device.as_str())
    }

    /// Where the state after an epoch is kept for the comparison: the host keeps the newest only.
    pub(crate) fn state(&self, round: &RoundRecord) -> PathBuf {
        self.out.join("states").join(format!("{}.{:06}", round.device, round.round.0))
    }

    pub(crate) fn test_set(&self) -> PathBuf {
        self.out.join("test.twinset")
    }
}

/// Splits the digits over the boards and what is scored on, and writes each board's own file into its folder. Of what
/// no board holds, the first `test_per_class` images of each class are the test set, the next as many for validation.
pub(crate) fn distribute(
    digits: &Path,
    scenario: &Scenario,
    scored: Scored,
    layout: &Layout,
) -> anyhow::Result<ImageSet> {
    let all = twin_data::digits::read(digits)?;
    let classes: Vec<Vec<u16>> = scenario.boards.iter().map(|board| board.classes.clone()).collect();
    let BoardSplit { boards: sets, test } = split(&all, &classes, scenario.per_class, scenario.seed)?;
    for (board, set) in scenario.boards.iter().zip(&sets) {
        let folder = layout.board(board);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        set.write(&folder.join("dataset.twinset"))?;
    }
    let per_class = scenario.test_per_class;
    let unseen = match scored {
        Scored::Test => window(&test, 0..per_class),
        Scored::Validation => window(&test, per_class..2 * per_class),
    };
    unseen.require_every_class().context("what is scored on")?;
    unseen.write(&layout.test_set())?;
    Ok(unseen)
}

/// Of each class the images whose place among its images is in the range.
fn window(set: &ImageSet, places: Range<usize>) -> ImageSet {
    let mut next = vec![0; usize::from(set.classes())];
    let chosen = (0..set.len()).filter(|&index| {
        let place = &mut next[usize::from(set.label(index))];
        *place += 1;
        places.contains(&(*place - 1))
    });
    let chosen: Vec<u32> = chosen.filter_map(|index| u32::try_from(index).ok()).collect();
    set.select(&chosen)
}

/// The programs that a board runs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// twin-agent.
    pub(crate) agent: PathBuf,
    /// twin-trainer.
    pub(crate) trainer: PathBuf,
}

/// What makes an agent play its part: its share of one of this machine's cores, its link, and where things lie.
fn part(programs: &Programs, board: &Board, core: Gigahertz) -> String {
    format!(
        "\n[dataset]\npath = \"dataset.twinset\"\nformat = \"twinset\"\n\n\
         [trainer]\nprogram = {trainer:?}\nthreads = 1\n\n\
         [telemetry]\nperiod_s = 2\n\n\
         [emulate]\nfrequency_ghz = {frequency:?}\nduty = {duty:.4}\n\
         uplink_bits_per_second = {link:?}\ndownlink_bits_per_second = {link:?}\n",
        trainer = programs.trainer.display().to_string(),
        frequency = board.frequency.0,
        duty = board.frequency / core,
        link = board.link.0,
    )
}

/// A board's agent process; killed when dropped.
pub(crate) struct Agent {
    process: Child,
}

impl Agent {
    /// Starts the agent of an enrolled board; its configuration is enrolment's, and what makes it play its part. Its
    /// log goes to a file in its folder.
    pub(crate) fn start(programs: &Programs, board: &Board, layout: &Layout, core: Gigahertz) -> anyhow::Result<Self> {
        let folder = layout.board(board);
        let configuration = folder.join("agent.toml");
        let enrolled = fs::read_to_string(&configuration).with_context(|| configuration.display().to_string())?;
        let played = folder.join("played.toml");
        let enrolled = enrolled.replace("[device]\n", "[device]\ndata_dir = \"data\"\n");
        fs::write(&played, enrolled + &part(programs, board, core)).with_context(|| played.display().to_string())?;
        let log = fs::File::create(folder.join("agent.log")).context("the board's log")?;
        let process = Command::new(&programs.agent)
            .arg("run")
            .arg("--config")
            .arg(&played)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", programs.agent.display()))?;
        Ok(Self { process })
    }

    /// Ends the agent as a service manager would, and waits for it.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        if let Some(id) = self.process.id() {
            // The agent ends its trainer and says goodbye on SIGTERM.
            let _ = Command::new("kill").arg(id.to_string()).status().await;
        }
        match tokio::time::timeout(std::time::Duration::from_secs(10), self.process.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => self.process.kill().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_data::Normalisation;

    #[test]
    fn test_and_validation_share_no_image() {
        let unit = Normalisation { mean: [0.0; 3], deviation: [1.0; 3] };
        let mut set = ImageSet::new(2, unit).expect("two classes");
        for shade in 0..10u8 {
            set.push((shade % 2).into(), &[shade; twin_data::IMAGE_BYTES]).expect("a label of two classes");
        }
        let shades = |set: &ImageSet| (0..set.len()).map(|index| set.image(index)[0]).collect::<Vec<_>>();
        assert_eq!(shades(&window(&set, 0..2)), [0, 1, 2, 3]);
        assert_eq!(shades(&window(&set, 2..4)), [4, 5, 6, 7]);
        assert_eq!(shades(&window(&set, 4..6)), [8, 9]);
    }
}
