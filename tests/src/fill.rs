//! Numbers that both sides of a comparison with PyTorch make from a tensor's name, so that no fixture stores them.

/// The fixtures' generator's `fill`: splitmix64 of FNV-1a(name) + i, its upper 24 bits spread over low..high.
#[must_use]
pub fn fill(name: &str, count: usize, low: f64, high: f64) -> Vec<f32> {
    let key =
        name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |key, byte| (key ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    (0..count as u64)
        .map(|i| {
            let mut z = i.wrapping_add(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            let unit = (z >> 40) as f64 / f64::from(1u32 << 24);
            (low + unit * (high - low)) as f32
        })
        .collect()
}

/// The generator's `weight`: values of a network's tensor by its name and shape.
#[must_use]
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if name.ends_with("running_var") {
        fill(name, count, 0.5, 1.5)
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        fill(name, count, -0.1, 0.1)
    } else if shape.len() == 1 {
        fill(name, count, 0.8, 1.2)
    } else {
        let bound = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        fill(name, count, -bound, bound)
    }
}
