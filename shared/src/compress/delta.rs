//! The delta file: made by the side that trained, read by the other.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::layout::{Layout, numbers};
use super::{CompressError, Compression};
use crate::id::BlobHash;

const MAGIC: &[u8; 8] = b"TWDELTA1";
const RESIDUAL: &[u8; 8] = b"TWRESID1";

/// Of zstd: more finds nothing more in numbers like these.
const LEVEL: i32 = 3;

/// Largest window that a delta may ask of a decoder, as a power of two: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// A state's file may be so much longer than its base's: what it says about itself may grow.
const GROWTH: usize = 64 << 10;

/// What a delta says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// How its coarse tensors are quantised.
    pub compression: Compression,
    /// The state that it is a difference to.
    pub base: BlobHash,
    /// The state that comes out, BLAKE3 of its file.
    pub state: BlobHash,
    /// Length of the state's file before its values, bytes.
    prefix: u32,
}

/// A state in transit, and what the sender keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What is sent.
    pub delta: Vec<u8>,
    /// The state that both sides adopt, as a safetensors file.
    pub state: Vec<u8>,
    /// What was left out; to be given to the next [`encode`] of the same network.
    pub residual: Vec<u8>,
}

/// Whether a file is a delta, by its first bytes. A whole state begins otherwise.
#[must_use]
pub fn is_delta(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl About {
    /// Reads what a delta says of itself, and where its body begins.
    ///
    /// # Errors
    /// When it is no delta.
    pub fn read(delta: &[u8]) -> Result<(Self, &[u8]), CompressError> {
        let rest = delta.strip_prefix(MAGIC).ok_or(CompressError::NotDelta("it begins otherwise"))?;
        postcard::take_from_bytes(rest).map_err(|_| CompressError::NotDelta("it does not say what it is"))
    }
}

/// Encodes `fresh`, a state's file, as a difference to `base`, another's of the same network. `residual` is what the
/// last encoding left out.
///
/// # Errors
/// When one of them is no state, their tensors differ, or a difference is not finite.
pub fn encode(
    compression: Compression,
    base: &[u8],
    fresh: &[u8],
    residual: Option<&[u8]>,
) -> Result<Encoded, CompressError> {
    let layout = whole(fresh, compression)?;
    let base_layout = whole(base, compression)?;
    if !layout.matches(&base_layout) {
        return Err(CompressError::OtherNetwork("the base"));
    }
    let left_out = residual.map(|residual| read_residual(residual, &layout)).transpose()?;
    let mut left_out = left_out.into_iter().flatten();
    let mut body = fresh[..layout.prefix].to_vec();
    planes(&layout, fresh, &mut body);
    let mut state = fresh.to_vec();
    let mut kept = RESIDUAL.to_vec();
    kept.extend(layout.digest());
    for (section, base_section) in layout.of_kind(true).zip(base_layout.of_kind(true)) {
        let before: Vec<f32> = numbers(&base[base_section.range.clone()]).collect();
        let wanted: Vec<f32> =
            numbers(&fresh[section.range.clone()]).map(|fresh| fresh + left_out.next().unwrap_or(0.0)).collect();
        let differences: Vec<f32> = wanted.iter().zip(&before).map(|(wanted, before)| wanted - before).collect();
        if !differences.iter().all(|difference| difference.is_finite()) {
            return Err(CompressError::NotFinite(section.name.clone()));
        }
        let start = body.len();
        compression.quantise(&differences, &mut body);
        let values = state[section.range.clone()].as_chunks_mut::<4>().0;
        compression.dequantise(&body[start..], differences.len(), |k, difference| {
            let adopted = before[k] + difference;
            values[k] = adopted.to_le_bytes();
            kept.extend((wanted[k] - adopted).to_le_bytes());
        });
    }
    let about = About {
        compression,
        base: BlobHash::of(base),
        state: BlobHash::of(&state),
        prefix: u32::try_from(layout.prefix).map_err(|_| CompressError::NotState("its header is too long".into()))?,
    };
    let failed = |_| CompressError::NotState("it cannot be compressed".into());
    let mut delta = MAGIC.to_vec();
    delta = postcard::to_extend(&about, delta).map_err(|_| CompressError::NotDelta("it cannot be described"))?;
    delta.extend(zstd::bulk::compress(&body, LEVEL).map_err(failed)?);
    Ok(Encoded { delta, state, residual: kept })
}

/// Decodes a delta over the file of its base: the adopted state's file. What comes from outside is bounded by the
/// base's length before memory is taken.
///
/// # Errors
/// When the delta is damaged, or is not a difference to this base.
pub fn decode(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, CompressError> {
    let (about, compressed) = About::read(delta)?;
    let base_layout = whole(base, about.compression)?;
    let limit = base.len() + GROWTH;
    let damaged = |_| CompressError::NotDelta("its body is damaged");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged)?;
    decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
    let mut body = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut body).map_err(damaged)?;
    let layout = Layout::of(&body, about.compression)?;
    if layout.prefix != about.prefix as usize || body.len() > limit || layout.file() > limit {
        return Err(CompressError::NotDelta("it claims more than its state can have"));
    }
    if !layout.matches(&base_layout) {
        return Err(CompressError::OtherNetwork("the base"));
    }
    let coded = |section: &super::layout::Section| about.compression.coded(section.range.len() / 4);
    let codes: usize = layout.of_kind(true).map(coded).sum();
    if body.len() != layout.prefix + 4 * layout.numbers(false) + codes {
        return Err(CompressError::NotDelta("its body has another length"));
    }
    let mut state = vec![0; layout.file()];
    state[..layout.prefix].copy_from_slice(&body[..layout.prefix]);
    let mut at = layout.prefix + unplane(&layout, &body[layout.prefix..], &mut state);
    for (section, base_section) in layout.of_kind(true).zip(base_layout.of_kind(true)) {
        let before = base[base_section.range.clone()].as_chunks::<4>().0;
        let values = state[section.range.clone()].as_chunks_mut::<4>().0;
        let length = coded(section);
        about.compression.dequantise(&body[at..at + length], before.len(), |k, difference| {
            values[k] = (f32::from_le_bytes(before[k]) + difference).to_le_bytes();
        });
        at += length;
    }
    let found = BlobHash::of(&state);
    if found != about.state {
        return Err(CompressError::OtherState { found, expected: about.state });
    }
    Ok(state)
}

/// The layout of a file that is all there.
fn whole(bytes: &[u8], compression: Compression) -> Result<Layout, CompressError> {
    let layout = Layout::of(bytes, compression)?;
    if layout.file() == bytes.len() {
        Ok(layout)
    } else {
        Err(CompressError::NotState(format!("{} bytes where {} belong", bytes.len(), layout.file())))
    }
}

/// Appends the exact values byte by byte of their significance: the high bytes of all, then the next …
fn planes(layout: &Layout, state: &[u8], out: &mut Vec<u8>) {
    for significance in (0..4).rev() {
        for section in layout.of_kind(false) {
            out.extend(state[section.range.clone()].iter().skip(significance).step_by(4));
        }
    }
}

/// Puts the exact values back; the number of bytes read.
fn unplane(layout: &Layout, planes: &[u8], state: &mut [u8]) -> usize {
    let mut planes_read = planes.iter();
    for significance in (0..4).rev() {
        for section in layout.of_kind(false) {
            let places = state[section.range.clone()].iter_mut().skip(significance).step_by(4);
            places.zip(&mut planes_read).for_each(|(place, byte)| *place = *byte);
        }
    }
    planes.len() - planes_read.len()
}

fn read_residual<'r>(
    residual: &'r [u8],
    layout: &Layout,
) -> Result<impl Iterator<Item = f32> + use<'r>, CompressError> {
    let values = residual.strip_prefix(RESIDUAL).and_then(|rest| rest.strip_prefix(&layout.digest()));
    let values = values.filter(|values| values.len() == 4 * layout.numbers(true));
    values.map(numbers).ok_or(CompressError::OtherNetwork("the residual"))
}
