//! Where tensors live.

use tch::Device;

use crate::error::LearnError;

/// A device and how it came to be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Where to compute.
    pub device: Device,
    /// `cpu` or `cuda:0`; with the reason where that is not what was asked for.
    pub told: String,
}

/// Resolves `auto`, `cpu` or `cuda:N`. A GPU that is not there falls back to the CPU, and says so.
///
/// # Errors
/// When the text is none of these.
pub fn choose(asked: &str) -> Result<Choice, LearnError> {
    let cpu = |told: String| Choice { device: Device::Cpu, told };
    let cards = tch::Cuda::device_count().max(0) as usize;
    match asked {
        "cpu" => Ok(cpu("cpu".into())),
        "auto" if cards == 0 => Ok(cpu("cpu".into())),
        "auto" => Ok(Choice { device: Device::Cuda(0), told: "cuda:0".into() }),
        other => {
            let number = other.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
            match number {
                Some(n) if n < cards => Ok(Choice { device: Device::Cuda(n), told: format!("cuda:{n}") }),
                Some(n) => Ok(cpu(format!("cpu (cuda:{n} was asked for, but LibTorch sees {cards} GPUs)"))),
                None => Err(LearnError::Job(format!("unknown device `{other}`; known: auto, cpu, cuda:N"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_falls_back_and_says_so() {
        assert_eq!(choose("cpu").unwrap().device, Device::Cpu);
        if tch::Cuda::device_count() == 0 {
            let choice = choose("cuda:0").unwrap();
            assert_eq!(choice.device, Device::Cpu);
            assert!(choice.told.contains("cuda:0"));
        }
        assert!(choose("tpu").is_err());
    }
}
