//! What the board says of itself when it connects.

use twin_shared::id::BlobHash;
use twin_shared::model::Architecture;
use twin_shared::wire::telemetry::{Reading, Telemetry};
use twin_shared::wire::{Capabilities, DatasetOffer};

use crate::config::{Config, Emulate};
use crate::session::About;

/// What the configuration and a first sample of the machine say.
pub(super) fn of(config: &Config, sample: &Telemetry, dataset: Option<(DatasetOffer, BlobHash)>) -> About {
    let memory_mib = match &sample.room.memory_total {
        Reading::Known { value, .. } => value.0 >> 10,
        Reading::Unknown => 0,
    };
    let capabilities = Capabilities {
        can_train: config.trainer.program.is_file(),
        emulated: config.emulate.is_some(),
        models: Architecture::STUDENTS.into_iter().filter(|student| fits(*student, memory_mib)).collect(),
        memory_mib,
        cores: sample.cpu.cores.value().copied().unwrap_or(1),
    };
    let agent = heapless::String::try_from(env!("CARGO_PKG_VERSION")).unwrap_or_default();
    let duty = config.emulate.map_or(1.0, |board: Emulate| board.duty);
    About { agent, capabilities, dataset, duty, stall: config.trainer.stall }
}

/// Whether a student's training is worth a try in this much memory, MiB; 0 is unknown, and all are. Assumed: the
/// trainer's libraries take 300 MiB, and parameters, gradients, momentum and the activations of a batch of 64 some
/// 100 bytes a parameter. A student that does not fit after all is told to the host when its trainer dies.
fn fits(student: Architecture, memory_mib: u32) -> bool {
    let needed = 300 + ((student.backbone_parameters() * 100) >> 20);
    memory_mib == 0 || needed <= memory_mib as usize
}
