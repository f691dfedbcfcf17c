//! One block of labels as bytes.

use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};
use twin_shared::plan::{EpochPlan, LabelKind, LabelPrecision};

use crate::error::LearnError;

const MAGIC: &[u8; 8] = b"TWLABEL\0";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 84;
const HASH_BYTES: usize = 32;
/// Most bytes of a block that is read.
const MAX_BYTES: u64 = 1 << 30;

/// Where block `index` lies in a directory of blocks.
#[must_use]
pub fn block_path(directory: &Path, index: u32) -> PathBuf {
    directory.join(format!("{index:05}.labels"))
}

/// What a block says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Form of the labels.
    pub kind: LabelKind,
    /// Number format.
    pub precision: LabelPrecision,
    /// Order and augmentation they belong to.
    pub plan: EpochPlan,
    /// First batch.
    pub first_batch: u32,
    /// Number of batches.
    pub batches: u32,
    /// Number of samples.
    pub samples: u32,
    /// Channels or classes.
    pub channels: u32,
    /// Side of a map, else 1.
    pub side: u32,
    /// Of the samples' indices and the first augmented image.
    pub digest: [u8; 32],
}

/// A block of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// What it is.
    pub header: Header,
    /// A row a sample: `channels` · `side`² numbers.
    values: Vec<f32>,
}

impl Header {
    fn width(&self) -> usize {
        self.channels as usize * (self.side as usize).pow(2)
    }

    fn row_bytes(&self) -> u64 {
        let width = self.width() as u64;
        match self.precision {
            LabelPrecision::F32 => 4 * width,
            LabelPrecision::Bf16 => 2 * width,
            LabelPrecision::Int8 => 8 + width,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(match self.kind {
            LabelKind::Map => 0,
            LabelKind::Vector => 1,
            LabelKind::Logits => 2,
        });
        bytes.push(match self.precision {
            LabelPrecision::F32 => 0,
            LabelPrecision::Bf16 => 1,
            LabelPrecision::Int8 => 2,
        });
        bytes.extend_from_slice(&self.plan.seed.to_le_bytes());
        bytes.extend_from_slice(&self.plan.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.plan.batch.to_le_bytes());
        let augmentation = self.plan.augmentation;
        bytes.extend_from_slice(&[augmentation.crop_padding, augmentation.flip.into(), 0, 0]);
        for number in [self.first_batch, self.batches, self.samples, self.channels, self.side] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.digest);
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        if &bytes[..8] != MAGIC {
            return Err("they begin otherwise".into());
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(format!("version {version}, this program reads {VERSION}"));
        }
        let header = Self {
            kind: match bytes[10] {
                0 => LabelKind::Map,
                1 => LabelKind::Vector,
                2 => LabelKind::Logits,
                other => return Err(format!("unknown kind {other}")),
            },
            precision: match bytes[11] {
                0 => LabelPrecision::F32,
                1 => LabelPrecision::Bf16,
                2 => LabelPrecision::Int8,
                other => return Err(format!("unknown precision {other}")),
            },
            plan: EpochPlan {
                seed: u64::from_le_bytes(bytes[12..20].try_into().expect("eight bytes")),
                epoch: u32_at(20),
                batch: u32_at(24),
                augmentation: twin_shared::plan::Augmentation { crop_padding: bytes[28], flip: bytes[29] == 1 },
            },
            first_batch: u32_at(32),
            batches: u32_at(36),
            samples: u32_at(40),
            channels: u32_at(44),
            side: u32_at(48),
            digest: bytes[52..84].try_into().expect("32 bytes"),
        };
        if header.channels == 0 || header.channels > 65_536 || header.side == 0 || header.side > 64 {
            return Err(format!("impossible shape {} by {}²", header.channels, header.side));
        }
        Ok(header)
    }
}

impl Block {
    /// Of labels `[n, c, s, s]` or `[n, c]`, already on their way to bytes: values are what the reader will see.
    ///
    /// # Errors
    /// When LibTorch refuses, or a label is no number.
    pub fn new(header: Header, labels: &Tensor) -> Result<Self, LearnError> {
        let flat = labels.f_to_device(Device::Cpu)?.f_contiguous()?;
        let count = flat.numel();
        let mut values = vec![0f32; count];
        flat.f_copy_data(&mut values, count)?;
        if count != header.samples as usize * header.width() || values.iter().any(|v| !v.is_finite()) {
            return Err(LearnError::Job(format!(
                "the teacher gave {count} numbers for {} samples, or some that are none",
                header.samples
            )));
        }
        Ok(Self { header, values })
    }

    /// The block's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.to_bytes();
        for row in self.values.chunks_exact(self.header.width()) {
            match self.header.precision {
                LabelPrecision::F32 => bytes.extend(row.iter().flat_map(|v| v.to_le_bytes())),
                LabelPrecision::Bf16 => bytes.extend(row.iter().flat_map(|&v| bf16_bits(v).to_le_bytes())),
                LabelPrecision::Int8 => {
                    let least = row.iter().copied().fold(f32::INFINITY, f32::min);
                    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let step = (most - least) / 255.0;
                    bytes.extend_from_slice(&least.to_le_bytes());
                    bytes.extend_from_slice(&step.to_le_bytes());
                    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
                    // Saturating by the language's own rule for casts.
                    bytes.extend(row.iter().map(|v| ((v - least) * inverse).round() as u8));
                }
            }
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Reads a block's bytes.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or("shorter than their header")?;
        let header = Header::from_bytes(header)?;
        let expected = HEADER_BYTES as u64 + u64::from(header.samples) * header.row_bytes() + HASH_BYTES as u64;
        if bytes.len() as u64 != expected {
            return Err(format!("{} bytes where {expected} belong", bytes.len()));
        }
        let (content, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        if blake3::hash(content).as_bytes() != hash {
            return Err("their hash does not match".into());
        }
        let mut values = Vec::with_capacity(header.samples as usize * header.width());
        let f32_of = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        for row in content[HEADER_BYTES..].chunks_exact(header.row_bytes() as usize) {
            match header.precision {
                LabelPrecision::F32 => values.extend(row.chunks_exact(4).map(f32_of)),
                LabelPrecision::Bf16 => values.extend(
                    row.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
                ),
                LabelPrecision::Int8 => {
                    let (least, step) = (f32_of(&row[..4]), f32_of(&row[4..8]));
                    values.extend(row[8..].iter().map(|&q| least + f32::from(q) * step));
                }
            }
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err("a label is no number".into());
        }
        Ok(Self { header, values })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no whole block.
    pub fn read(path: &Path) -> Result<Self, LearnError> {
        let wrong = |problem: String| LearnError::Labels { path: path.to_owned(), problem };
        let length = fs::metadata(path).map_err(LearnError::io(path))?.len();
        if length > MAX_BYTES {
            return Err(wrong(format!("{length} bytes are over the limit of {MAX_BYTES}")));
        }
        Self::from_bytes(&fs::read(path).map_err(LearnError::io(path))?).map_err(wrong)
    }

    /// Rows `from..to` as a tensor `[n, c, s, s]` for maps, else `[n, c]`.
    ///
    /// # Errors
    /// When LibTorch refuses. Panics on rows beyond the block.
    pub fn rows(&self, from: usize, to: usize, device: Device) -> Result<Tensor, LearnError> {
        let width = self.header.width();
        let (channels, side) = (i64::from(self.header.channels), i64::from(self.header.side));
        let count = (to - from) as i64;
        let flat = Tensor::f_from_slice(&self.values[from * width..to * width])?;
        let shaped = match self.header.kind {
            LabelKind::Map => flat.f_reshape([count, channels, side, side])?,
            LabelKind::Vector | LabelKind::Logits => flat.f_reshape([count, channels * side * side])?,
        };
        Ok(shaped.f_to_device(device)?)
    }
}

/// The nearest bfloat16, ties to even. The value is finite.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    u16::try_from(rounded >> 16).expect("sixteen bits are left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::plan::Augmentation;

    fn block(precision: LabelPrecision, kind: LabelKind, side: u32) -> (Block, Tensor) {
        let (samples, channels) = (3u32, 5u32);
        let header = Header {
            kind,
            precision,
            plan: EpochPlan { seed: 9, epoch: 4, batch: 2, augmentation: Augmentation { crop_padding: 4, flip: true } },
            first_batch: 6,
            batches: 2,
            samples,
            channels,
            side,
            digest: [7; 32],
        };
        let count = i64::from(samples * channels * side * side);
        let values = (Tensor::arange(count, (tch::Kind::Float, Device::Cpu)) * 0.37 - 1.5).sin();
        let shape = if kind == LabelKind::Map { vec![3, 5, side.into(), side.into()] } else { vec![3, 5] };
        let labels = values.reshape(shape);
        (Block::new(header, &labels).unwrap(), labels)
    }

    #[test]
    fn every_precision_reads_back_within_its_error() {
        for (precision, error) in [
            (LabelPrecision::F32, 0.0),
            (LabelPrecision::Bf16, 1.0 / 256.0),
            (LabelPrecision::Int8, 2.0 / 255.0 / 2.0 + 1e-6),
        ] {
            for (kind, side) in [(LabelKind::Map, 4), (LabelKind::Vector, 1), (LabelKind::Logits, 1)] {
                let (written, labels) = block(precision, kind, side);
                let read = Block::from_bytes(&written.to_bytes()).unwrap();
                assert_eq!(read.header, written.header);
                let rows = read.rows(0, 3, Device::Cpu).unwrap();
                assert_eq!(rows.size(), labels.size());
                let worst = (rows - &labels).abs().max().double_value(&[]);
                assert!(worst <= error, "{precision:?}: {worst}");
            }
        }
    }

    #[test]
    fn a_constant_row_survives_eight_bits() {
        let (mut written, _) = block(LabelPrecision::Int8, LabelKind::Vector, 1);
        written.values = vec![0.75; 15];
        assert_eq!(Block::from_bytes(&written.to_bytes()).unwrap().values, written.values);
    }

    #[test]
    fn changed_and_cut_blocks_are_refused() {
        let bytes = block(LabelPrecision::F32, LabelKind::Vector, 1).0.to_bytes();
        for keep in [0, 50, bytes.len() - 1] {
            assert!(Block::from_bytes(&bytes[..keep]).is_err());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            assert!(Block::from_bytes(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn bfloat16_rounds_to_the_nearest_even() {
        for value in [0.0f32, -0.0, 1.0, 1.003_906_3, 1.011_718_8, 3.3e38, -2.5e-7, 0.1] {
            let expected = Tensor::from_slice(&[value]).to_kind(tch::Kind::BFloat16).to_kind(tch::Kind::Float);
            let ours = f32::from_bits(u32::from(bf16_bits(value)) << 16);
            assert_eq!(f64::from(ours), expected.double_value(&[0]), "{value}");
        }
    }
}
