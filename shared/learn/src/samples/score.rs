//! How many answers a network gets right on a twin's samples.

use tch::{Kind, Tensor};
use twin_data::Part;
use twin_shared::pipe::{DeviceScores, Evaluation, Score};

use super::TwinSamples;
use crate::error::LearnError;
use crate::model::Model;
use crate::zoo::{classify, pooled};

/// Samples that are scored at a time.
const BATCH: usize = 250;

impl TwinSamples {
    /// Scores a network on a part: on every sample, and for every device (by its label counts) on the samples of its
    /// own classes, plain and personal, and on the rest. A SimKD student answers through its teacher's classifier.
    ///
    /// The personal answer of device d adds the logarithm of its own label frequencies to the logits:
    /// z'_c = z_c + log(n_c / n), and no answer at all where n_c = 0. By Bayes' rule this turns the posterior of a
    /// network trained on evenly frequent classes, as a distilled student is through its teacher, into the one
    /// under the device's frequencies. Every method gets the same formula.
    ///
    /// # Errors
    /// When the part is empty, or network, teacher and samples do not fit together.
    pub fn score(
        &self,
        network: &Model,
        teacher: Option<&Model>,
        part: Part,
        devices: &[Vec<u32>],
    ) -> Result<Evaluation, LearnError> {
        let classifier = match network.classifier() {
            Ok(own) => own,
            Err(none) => match teacher {
                Some(teacher) => teacher.classifier()?,
                None => return Err(none),
            },
        };
        self.require_outputs(classifier.0.size()[0])?;
        let outputs = classifier.0.size()[0] as usize;
        let adjustments = devices
            .iter()
            .map(|counts| Adjustment::of(counts, outputs, usize::from(self.classes())))
            .collect::<Result<Vec<_>, _>>()?;
        let indices = self.indices(part);
        if indices.is_empty() {
            return Err(LearnError::Job(format!("part {part:?} of the dataset has no samples to score")));
        }
        let normalisation = network.normalisation.unwrap_or(self.normalisation());
        let mut total = Evaluation { devices: vec![DeviceScores::default(); devices.len()], ..Evaluation::default() };
        for chunk in indices.chunks(BATCH) {
            let images = self.images(chunk, None, normalisation)?;
            let outputs = network.evaluate(&images)?;
            let logits = tch::no_grad(|| match network.classifier() {
                Ok(_) => Ok(outputs.head),
                Err(_) => classify(&pooled(&outputs.head)?, classifier.0, classifier.1),
            })?;
            let batch = Answers::of(&logits, &adjustments)?;
            for (row, &index) in chunk.iter().enumerate() {
                self.count(&mut total, &batch, row, self.set.label(index as usize), &adjustments);
            }
        }
        Ok(total)
    }

    fn count(&self, total: &mut Evaluation, answers: &Answers, row: usize, label: u16, devices: &[Adjustment]) {
        let label = usize::from(label);
        let rank = answers.rank(row, label);
        add(&mut total.full_top1, rank < 1);
        add(&mut total.full_top5, rank < 5);
        for (device, (scores, adjustment)) in total.devices.iter_mut().zip(devices).enumerate() {
            if adjustment.log_frequency[label].is_finite() {
                add(&mut scores.private_top1, rank < 1);
                add(&mut scores.private_top5, rank < 5);
                add(&mut scores.private_personal, answers.personal[device][row] == label);
            } else {
                add(&mut scores.unseen_top1, rank < 1);
            }
        }
    }
}

fn add(score: &mut Score, correct: bool) {
    score.total += 1;
    score.correct += u32::from(correct);
}

/// log(n_c / n), minus infinity for a class the device holds none of.
struct Adjustment {
    log_frequency: Vec<f32>,
}

impl Adjustment {
    fn of(counts: &[u32], outputs: usize, classes: usize) -> Result<Self, LearnError> {
        let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        if counts.len() != classes || total == 0 {
            return Err(LearnError::Job(format!(
                "a device's label counts must be {classes} numbers, not all zero; these are {} with sum {total}",
                counts.len()
            )));
        }
        let mut log_frequency = vec![f32::NEG_INFINITY; outputs];
        for (slot, &count) in log_frequency.iter_mut().zip(counts) {
            *slot = (f64::from(count) / total as f64).ln() as f32;
        }
        Ok(Self { log_frequency })
    }
}

/// The answers to a batch.
struct Answers {
    logits: Vec<f32>,
    outputs: usize,
    /// The best personal answer, `[device][row]`.
    personal: Vec<Vec<usize>>,
}

impl Answers {
    fn of(logits: &Tensor, devices: &[Adjustment]) -> Result<Self, LearnError> {
        let (rows, outputs) = logits.size2()?;
        let (rows, outputs) = (rows as usize, outputs as usize);
        let flat = logits.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut values = vec![0f32; rows * outputs];
        flat.f_copy_data(&mut values, rows * outputs)?;
        let personal = devices
            .iter()
            .map(|device| {
                values
                    .chunks_exact(outputs)
                    .map(|row| {
                        let adjusted = row.iter().zip(&device.log_frequency).map(|(z, log)| z + log);
                        adjusted
                            .enumerate()
                            .fold((0, f32::NEG_INFINITY), |best, (c, z)| if z > best.1 { (c, z) } else { best })
                            .0
                    })
                    .collect()
            })
            .collect();
        Ok(Self { logits: values, outputs, personal })
    }

    /// How many answers come before this one; ties go to the lower class, and what is no number comes last.
    fn rank(&self, row: usize, label: usize) -> usize {
        let row = &self.logits[row * self.outputs..(row + 1) * self.outputs];
        let own = row[label];
        if own.is_nan() {
            return self.outputs;
        }
        row.iter().enumerate().filter(|&(class, &z)| z > own || (z == own && class < label)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_personal_answer_follows_the_devices_frequencies() {
        let logits = Tensor::from_slice(&[1.0f32, 0.9, 0.8, 3.0]).reshape([1, 4]);
        let answer = |counts: &[u32]| {
            let device = Adjustment::of(counts, 4, 4).unwrap();
            Answers::of(&logits, &[device]).unwrap().personal[0][0]
        };
        assert_eq!(answer(&[1, 1, 1, 1]), 3);
        assert_eq!(answer(&[1, 1, 1, 0]), 0);
        // log 2 outweighs a difference of 0.1 in the logits.
        assert_eq!(answer(&[1, 2, 1, 0]), 1);
        assert!(Adjustment::of(&[0, 0], 4, 2).is_err());
        assert!(Adjustment::of(&[1], 4, 2).is_err());
    }

    #[test]
    fn ranks_count_what_is_better() {
        let logits = Tensor::from_slice(&[1.0f32, 3.0, 3.0, f32::NAN]).reshape([1, 4]);
        let answers = Answers::of(&logits, &[]).unwrap();
        let ranks: Vec<_> = (0..4).map(|label| answers.rank(0, label)).collect();
        assert_eq!(ranks, [2, 0, 1, 4]);
    }
}
