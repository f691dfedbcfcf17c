//! Differences as codes of few bits, and back.
//!
//! `int8`, `int4` and `int2` share one form: blocks of [`BLOCK`] numbers, each block with a step (bf16) and a whole
//! number of steps for each difference. The steps are multiplied and added in f32, in one fixed order, so every
//! machine gets the same bits out.

use half::bf16;

use super::Compression;

/// Numbers that share a step.
const BLOCK: usize = 256;

/// Steps in one deviation at which three levels lose least of a normal distribution (Max, 1960).
const TERNARY_STEP: f32 = 1.224;

impl Compression {
    /// Bits of a code; none where numbers are not cut into steps.
    const fn bits(self) -> Option<u32> {
        match self {
            Self::None | Self::Bf16 => None,
            Self::Int8 => Some(8),
            Self::Int4 => Some(4),
            Self::Int2 => Some(2),
        }
    }

    /// Bytes that `numbers` differences of one tensor take before zstd.
    pub(super) const fn coded(self, numbers: usize) -> usize {
        match self.bits() {
            None => 2 * numbers,
            Some(bits) => numbers.div_ceil(BLOCK) * 2 + (numbers * bits as usize).div_ceil(8),
        }
    }

    /// Appends the codes of one tensor's differences.
    pub(super) fn quantise(self, differences: &[f32], out: &mut Vec<u8>) {
        match self.bits() {
            None => {
                // All high bytes, then all low ones: the high ones are much alike.
                let halves: Vec<u16> = differences.iter().map(|&d| bf16::from_f32(d).to_bits()).collect();
                out.extend(halves.iter().map(|half| half.to_le_bytes()[1]));
                out.extend(halves.iter().map(|half| half.to_le_bytes()[0]));
            }
            Some(bits) => {
                let steps: Vec<bf16> = differences.chunks(BLOCK).map(|block| step(block, bits)).collect();
                out.extend(steps.iter().flat_map(|step| step.to_le_bytes()));
                let codes = differences.chunks(BLOCK).zip(&steps).flat_map(|(block, step)| {
                    let step = step.to_f32();
                    block.iter().map(move |&difference| code(difference, step, bits))
                });
                pack(codes, bits, out);
            }
        }
    }

    /// The differences that [`Self::coded`] bytes stand for; `each` hears them in order.
    pub(super) fn dequantise(self, coded: &[u8], numbers: usize, mut each: impl FnMut(usize, f32)) {
        match self.bits() {
            None => {
                let (high, low) = coded.split_at(numbers);
                for (k, (&high, &low)) in high.iter().zip(low).enumerate() {
                    each(k, bf16::from_le_bytes([low, high]).to_f32());
                }
            }
            Some(bits) => {
                let (steps, packed) = coded.split_at(numbers.div_ceil(BLOCK) * 2);
                let steps: Vec<f32> =
                    steps.as_chunks::<2>().0.iter().map(|step| bf16::from_le_bytes(*step).to_f32()).collect();
                let per_byte = 8 / bits as usize;
                for k in 0..numbers {
                    let shifted = packed[k / per_byte] << (8 - bits - bits * (k % per_byte) as u32);
                    // Shifted back with its sign.
                    let code = shifted.cast_signed() >> (8 - bits);
                    each(k, f32::from(code) * steps[k / BLOCK]);
                }
            }
        }
    }
}

/// Largest code: the codes are the same on both sides of zero.
const fn largest(bits: u32) -> i8 {
    ((1i16 << (bits - 1)) - 1) as i8
}

/// The step of a block: so that the largest difference has the largest code, or, of three levels, so that they lose
/// least. Zero of a block without differences.
fn step(block: &[f32], bits: u32) -> bf16 {
    let step = if bits == 2 {
        let squares: f64 = block.iter().map(|&d| f64::from(d) * f64::from(d)).sum();
        TERNARY_STEP * (squares / block.len() as f64).sqrt() as f32
    } else {
        block.iter().fold(0f32, |most, d| most.max(d.abs())) / f32::from(largest(bits))
    };
    // A difference near the end of f32's range must not become an infinite step.
    bf16::from_f32(step.min(bf16::MAX.to_f32() / 256.0))
}

fn code(difference: f32, step: f32, bits: u32) -> i8 {
    if step == 0.0 {
        return 0;
    }
    let most = f32::from(largest(bits));
    (difference / step).round().clamp(-most, most) as i8
}

/// Puts codes into bytes, the first one lowest.
fn pack(codes: impl Iterator<Item = i8>, bits: u32, out: &mut Vec<u8>) {
    let mask = (0xffu16 >> (8 - bits)) as u8;
    let (mut byte, mut filled) = (0u8, 0);
    for code in codes {
        byte |= (code.cast_unsigned() & mask) << filled;
        filled += bits;
        if filled == 8 {
            out.push(byte);
            (byte, filled) = (0, 0);
        }
    }
    if filled > 0 {
        out.push(byte);
    }
}
