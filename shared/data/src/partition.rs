//! How a dataset is spread over devices.

use std::str::FromStr;

use crate::draw::Draw;
use crate::error::DataError;

/// A way to spread samples over devices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Partition {
    /// Every class evenly.
    Iid,
    /// A number of classes a device; `None` is as few as cover every class.
    ByClass {
        /// Classes a device.
        classes_per_device: Option<u16>,
    },
    /// Shares of each class drawn from a symmetric Dirichlet distribution.
    Dirichlet {
        /// Its concentration: small is uneven.
        alpha: f64,
    },
}

impl FromStr for Partition {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let unknown =
            || DataError::Split(format!("`{text}` is no split; known: iid, noniid, noniid:CLASSES, dirichlet:ALPHA"));
        match text.split_once(':') {
            None if text == "iid" => Ok(Self::Iid),
            None if text == "noniid" => Ok(Self::ByClass { classes_per_device: None }),
            Some(("noniid", classes)) => {
                let classes = classes.parse().ok().filter(|&c| c > 0).ok_or_else(unknown)?;
                Ok(Self::ByClass { classes_per_device: Some(classes) })
            }
            Some(("dirichlet", alpha)) => {
                let alpha = alpha.parse().ok().filter(|a: &f64| a.is_finite() && *a > 0.0).ok_or_else(unknown)?;
                Ok(Self::Dirichlet { alpha })
            }
            None | Some(_) => Err(unknown()),
        }
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::ByClass { classes_per_device: None } => f.write_str("noniid"),
            Self::ByClass { classes_per_device: Some(classes) } => write!(f, "noniid:{classes}"),
            Self::Dirichlet { alpha } => write!(f, "dirichlet:{alpha}"),
        }
    }
}

impl Partition {
    /// Indices of every device's samples, ascending; each sample goes to exactly one device.
    ///
    /// By class, classes are shuffled and dealt out in turn, a window of them a device; a class that several devices
    /// hold is divided evenly between them.
    ///
    /// # Errors
    /// When there are no devices, classes are left over or not enough, or a device would have no samples.
    pub fn split(self, labels: &[u16], classes: u16, devices: usize, seed: u64) -> Result<Vec<Vec<u32>>, DataError> {
        if devices == 0 || classes == 0 {
            return Err(DataError::Split("a split needs devices and classes".into()));
        }
        let draw = Draw::new("twinstill partition v1", &[seed]);
        let mut pools: Vec<Vec<u32>> = vec![Vec::new(); classes.into()];
        for (index, &label) in labels.iter().enumerate() {
            let pool = pools.get_mut(usize::from(label)).ok_or(DataError::LabelOutOfRange {
                index,
                label: label.into(),
                classes: classes.into(),
            })?;
            pool.push(u32::try_from(index).expect("fewer than 2^32 samples"));
        }
        for (class, pool) in pools.iter_mut().enumerate() {
            draw.stream(class as u64 + 1).shuffle(pool);
        }
        let mut shares = match self {
            Self::Iid => {
                let weights = vec![vec![1.0; devices]; pools.len()];
                deal(&pools, &weights, devices)
            }
            Self::ByClass { classes_per_device } => {
                let weights = holders(classes, devices, classes_per_device, draw.stream(0))?;
                deal(&pools, &weights, devices)
            }
            Self::Dirichlet { alpha } => {
                let mut gamma = draw.stream(0);
                let weights: Vec<Vec<f64>> =
                    pools.iter().map(|_| (0..devices).map(|_| gamma_draw(alpha, &mut gamma)).collect()).collect();
                deal(&pools, &weights, devices)
            }
        };
        for (device, share) in shares.iter_mut().enumerate() {
            if share.is_empty() {
                return Err(DataError::Empty(format!("device {device} of the split {self} (seed {seed})")));
            }
            share.sort_unstable();
        }
        Ok(shares)
    }
}

/// Cuts every class's pool between devices in proportion to `weights[class][device]`.
fn deal(pools: &[Vec<u32>], weights: &[Vec<f64>], devices: usize) -> Vec<Vec<u32>> {
    let mut shares = vec![Vec::new(); devices];
    for (class, (pool, weights)) in pools.iter().zip(weights).enumerate() {
        let total: f64 = weights.iter().sum();
        let (mut sum, mut start) = (0.0, 0);
        // Begin with another device for every class, so that remainders do not all go to the same one.
        for turn in 0..devices {
            let device = (turn + class) % devices;
            sum += weights[device];
            let end = if turn + 1 == devices {
                pool.len()
            } else {
                (((sum / total) * pool.len() as f64).round() as usize).clamp(start, pool.len())
            };
            shares[device].extend_from_slice(&pool[start..end]);
            start = end;
        }
    }
    shares
}

/// `[class][device]`: 1 where the device holds the class, else 0.
fn holders(classes: u16, devices: usize, per_device: Option<u16>, mut draw: Draw) -> Result<Vec<Vec<f64>>, DataError> {
    let count = usize::from(classes);
    let each = per_device.map_or_else(|| count.div_ceil(devices), usize::from);
    if each > count || each * devices < count {
        return Err(DataError::Split(format!(
            "{each} classes for each of {devices} devices cannot cover {count} classes once"
        )));
    }
    let mut names: Vec<usize> = (0..count).collect();
    draw.shuffle(&mut names);
    let mut weights = vec![vec![0.0; devices]; count];
    for (device, offset) in (0..devices).flat_map(|device| (0..each).map(move |offset| (device, offset))) {
        let first = device * count / devices;
        weights[names[(first + offset) % count]][device] = 1.0;
    }
    Ok(weights)
}

/// A gamma variate of shape `alpha` and scale 1 (Marsaglia and Tsang; below 1 by the boost of shape + 1).
fn gamma_draw(alpha: f64, draw: &mut Draw) -> f64 {
    if alpha < 1.0 {
        let boost = draw.unit().powf(1.0 / alpha);
        // A weight of exactly zero for all devices would leave a class to nobody.
        return (gamma_draw(alpha + 1.0, draw) * boost).max(f64::MIN_POSITIVE);
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let normal = (-2.0 * draw.unit().ln()).sqrt() * (std::f64::consts::TAU * draw.unit()).cos();
        let v = (1.0 + c * normal).powi(3);
        if v > 0.0 && draw.unit().ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(per_class: usize, classes: u16) -> Vec<u16> {
        (0..per_class).flat_map(|_| 0..classes).collect()
    }

    fn held(share: &[u32], labels: &[u16]) -> std::collections::BTreeSet<u16> {
        share.iter().map(|&i| labels[i as usize]).collect()
    }

    #[test]
    fn texts_read_back() {
        for text in ["iid", "noniid", "noniid:5", "dirichlet:0.3"] {
            assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
        }
        for bad in ["", "noniid:0", "dirichlet", "dirichlet:-1", "dirichlet:nan", "IID"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn twenty_classes_on_four_devices_are_five_each() {
        let labels = labels(30, 20);
        let shares = "noniid".parse::<Partition>().unwrap().split(&labels, 20, 4, 9).unwrap();
        let mut all: Vec<_> = shares.iter().flat_map(|s| held(s, &labels)).collect();
        assert!(shares.iter().all(|s| s.len() == 150 && held(s, &labels).len() == 5));
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn overlapping_classes_are_shared() {
        let labels = labels(40, 10);
        let split = Partition::ByClass { classes_per_device: Some(5) };
        let shares = split.split(&labels, 10, 4, 1).unwrap();
        assert!(shares.iter().all(|s| held(s, &labels).len() == 5));
        assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 400);
        assert!(Partition::ByClass { classes_per_device: Some(2) }.split(&labels, 10, 4, 1).is_err());
    }

    #[test]
    fn gamma_variates_have_their_mean_and_variance() {
        for alpha in [0.3, 1.0, 4.0] {
            let mut draw = Draw::new("test gamma", &[1]);
            let values: Vec<f64> = (0..20_000).map(|_| gamma_draw(alpha, &mut draw)).collect();
            let mean = values.iter().sum::<f64>() / 20_000.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 20_000.0;
            assert!((mean / alpha - 1.0).abs() < 0.06, "{alpha}: mean {mean}");
            assert!((variance / alpha - 1.0).abs() < 0.2, "{alpha}: variance {variance}");
        }
    }

    proptest! {
        #[test]
        fn every_sample_goes_to_one_device(
            per_class in 5usize..40, classes in 1u16..12, devices in 1usize..6, seed: u64, kind in 0..3,
        ) {
            let labels = labels(per_class, classes);
            let partition = match kind {
                0 => Partition::Iid,
                1 => Partition::ByClass { classes_per_device: None },
                _ => Partition::Dirichlet { alpha: 0.5 },
            };
            if let Ok(shares) = partition.split(&labels, classes, devices, seed) {
                let mut all: Vec<u32> = shares.concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..labels.len() as u32).collect::<Vec<_>>());
                if partition == Partition::Iid {
                    for share in shares {
                        prop_assert!(share.len().abs_diff(labels.len() / devices) <= usize::from(classes));
                    }
                }
            }
        }
    }
}
