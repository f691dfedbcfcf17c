//! From logits to an answer.

/// What a network answers to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The class's index.
    pub class: usize,
    /// How sure it is, softmax of the logits.
    pub probability: f32,
}

impl Answer {
    /// Every class, the likeliest first; of two alike the lower index.
    #[must_use]
    pub fn ranked(logits: &[f32]) -> Vec<Self> {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = logits.iter().map(|z| if z.is_finite() { (z - highest).exp() } else { 0.0 }).collect();
        let total: f32 = shares.iter().sum();
        let mut answers: Vec<Self> =
            shares.iter().enumerate().map(|(class, share)| Self { class, probability: share / total }).collect();
        answers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        answers
    }
}

/// The personal answer: adds the logarithm of the board's own label frequencies, z_c + log(n_c / n); a class that the
/// board has no samples of is not answered. Without any samples the logits stay as they are.
pub fn personal(logits: &mut [f32], label_counts: &[u32]) {
    let total: u64 = label_counts.iter().map(|&count| u64::from(count)).sum();
    if total > 0 {
        for (logit, &count) in logits.iter_mut().zip(label_counts) {
            *logit += (f64::from(count) / total as f64).ln() as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_is_first_and_shares_sum_to_one() {
        let answers = Answer::ranked(&[1.0, 3.0, f32::NEG_INFINITY, 3.0]);
        let order: Vec<usize> = answers.iter().map(|answer| answer.class).collect();
        assert_eq!(order, [1, 3, 0, 2]);
        let total: f32 = answers.iter().map(|answer| answer.probability).sum();
        assert!((total - 1.0).abs() < 1e-6);
        // e^0 / (2 e^0 + e^-2)
        assert!((answers[0].probability - 1.0 / (2.0 + (-2f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn the_personal_answer_follows_the_boards_frequencies() {
        let answer = |counts: &[u32]| {
            let mut logits = [1.0, 0.9, 0.8, 3.0];
            personal(&mut logits, counts);
            Answer::ranked(&logits)[0].class
        };
        assert_eq!(answer(&[1, 1, 1, 1]), 3);
        assert_eq!(answer(&[1, 1, 1, 0]), 0);
        // log 2 outweighs a difference of 0.1 in the logits.
        assert_eq!(answer(&[1, 2, 1, 0]), 1);
        assert_eq!(answer(&[0, 0, 0, 0]), 3);
    }
}
