//! What boards of a test play: how fast their link is, how much they carry, and who trains.

use std::path::PathBuf;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use twin_data::{IMAGE_BYTES, Image, ImageSet, Normalisation};

/// What boards of a test play.
#[derive(Debug, Clone)]
pub struct Play {
    /// The program that trains, on boards and host.
    pub trainer: PathBuf,
    /// Bits a second of each board's link, both ways.
    pub rate: f64,
    /// Images of a board's dataset, of noise, 3 KiB each; 0 is 24 digits.
    pub images: usize,
    /// Samples of a mini-batch.
    pub batch: usize,
    /// Bytes of a student state, where the stand-in trains.
    pub state: usize,
    /// Bytes of an epoch's labels, where the stand-in trains.
    pub labels: usize,
    /// Seconds between two samples of telemetry.
    pub period_s: u32,
    /// Whether boards and host speak TLS, each with a certificate, rather than plain TCP.
    pub tls: bool,
    /// More lines of the job's `[student]`.
    pub student: String,
}

impl Play {
    /// Boards that really train, on a link of 100 Mbit/s.
    #[must_use]
    pub const fn trained(trainer: PathBuf) -> Self {
        Self {
            trainer,
            rate: 1e8,
            images: 0,
            batch: 8,
            state: 0,
            labels: 0,
            period_s: 1,
            tls: false,
            student: String::new(),
        }
    }

    /// Boards that carry random states of so many bytes, as fast as they can.
    #[must_use]
    pub fn carried(stand_in: PathBuf, state: usize) -> Self {
        Self { rate: 1e11, state, labels: 1024, ..Self::trained(stand_in) }
    }

    /// Bandwidth for what the boards play, at no price.
    pub(crate) fn scheduler(&self) -> String {
        if self.state == 0 {
            return String::new();
        }
        "bandwidth_hz = 1e11\n[scheduler.weights]\nbandwidth = 0.0\n".to_owned()
    }

    /// The host's listener on this port, as its configuration has it.
    pub(crate) fn listener(&self, port: u16) -> String {
        let (plain, tls) = if self.tls {
            (String::new(), format!("127.0.0.1:{port}"))
        } else {
            (format!("127.0.0.1:{port}"), String::new())
        };
        format!("plain = \"{plain}\"\ntls = \"{tls}\"\n")
    }

    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("STAND_IN_STATE", self.state.to_string()), ("STAND_IN_LABELS", self.labels.to_string())]
    }
}

/// Images of noise, of this class and the next.
pub(crate) fn noise(images: usize, class: u16) -> ImageSet {
    let normalisation = Normalisation { mean: [0.5; 3], deviation: [0.25; 3] };
    let mut set = ImageSet::new(10, normalisation).expect("ten classes");
    let mut draw = ChaCha8Rng::seed_from_u64(u64::from(class));
    for k in 0..images {
        let mut image: Image = [0; IMAGE_BYTES];
        draw.fill_bytes(&mut image);
        set.push(class + u16::from(k % 2 == 1), &image).expect("a class of ten");
    }
    set
}
