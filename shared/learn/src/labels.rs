//! Blocks of teacher labels: a few mini-batches' worth in the order in which a board will train on them.
//!
//! | bytes | content (little endian) |
//! | --- | --- |
//! | 8 | `TWLABEL` and a zero |
//! | 2, 1, 1 | version (1), kind (0 map, 1 vector, 2 logits), precision (0 f32, 1 bf16, 2 8-bit) |
//! | 8, 4, 4 | the plan's seed, epoch, samples a batch |
//! | 1, 1, 2 | its crop padding, flip, zero |
//! | 4, 4, 4 | first batch, batches, samples |
//! | 4, 4 | channels (or classes), side (1 unless maps) |
//! | 32 | digest of the samples' indices and the first augmented image |
//! | rows | f32 or bf16 numbers; 8-bit: least value and step (f32 each), then a byte a number |
//! | 32 | BLAKE3 of all before |

mod block;
mod run;

pub use block::{Block, Header, block_path};
pub use run::LabelsRun;
