//! Stands in for `twin-trainer` where transfers are tested or measured: it answers every job at once, by files of
//! random numbers of a given size, and needs no LibTorch.
//!
//! `STAND_IN_STATE` and `STAND_IN_LABELS` are the bytes of a student state and of an epoch's labels. `STAND_IN_FAULT` has it
//! fail in an epoch's first step: `crash`, `exit`, `stall`, or `memory`, which takes ever more of it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::{env, fs, io};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use twin_data::{ImageSet, Part};
use twin_shared::compress::encode;
use twin_shared::id::{BlobHash, ModelVersion};
use twin_shared::pipe::{
    EpochJob, Evaluation, Event, Job, LabelBlock, LabelsJob, Outcome, PIPE_VERSION, PipeError, Request, Ticket,
    read_frame, write_frame,
};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let version = PIPE_VERSION;
    say(&Event::Ready { version, libtorch: "none".into(), device: "cpu".into(), threads: 1, precision: "f32".into() })?;
    let mut jobs: BTreeMap<Ticket, Work> = BTreeMap::new();
    loop {
        match read_frame::<_, Request>(&mut input) {
            Ok(Request::Submit { ticket, job }) => {
                let work = Work::new(*job)?;
                say(&Event::Accepted { ticket, steps: work.steps })?;
                jobs.insert(ticket, work);
            }
            Ok(Request::Grant { ticket, steps }) => {
                for _ in 0..steps {
                    let Some(work) = jobs.get_mut(&ticket) else { break };
                    if let Some(outcome) = work.step(ticket)? {
                        jobs.remove(&ticket);
                        say(&Event::Done { ticket, outcome })?;
                    }
                }
            }
            // Nothing is kept of what it only seems to train.
            Ok(Request::Save { ticket }) => say(&Event::Saved { ticket })?,
            Ok(Request::Cancel { ticket }) => drop(jobs.remove(&ticket)),
            Ok(Request::Shutdown) | Err(PipeError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn say(event: &Event) -> Result<(), Failure> {
    Ok(write_frame(&mut io::stdout().lock(), event)?)
}

/// A job and how far it is.
struct Work {
    job: Job,
    steps: u32,
    done: u32,
}

impl Work {
    fn new(job: Job) -> Result<Self, Failure> {
        let batches = |dataset: &str, batch: u32| -> Result<u32, Failure> {
            let samples = ImageSet::read(Path::new(dataset))?.indices(Part::Train).len();
            Ok(u32::try_from(samples)?.div_ceil(batch.max(1)))
        };
        let steps = match &job {
            Job::Epoch(epoch) => batches(&epoch.dataset, epoch.plan.batch)?,
            Job::Labels(labels) => {
                batches(&labels.dataset, labels.plan.batch)?.div_ceil(labels.batches_per_block.max(1))
            }
            Job::Teacher(_)
            | Job::InitStudent(_)
            | Job::FedAvg(_)
            | Job::Evaluate(_)
            | Job::Count(_)
            | Job::Calibrate(_) => 1,
        };
        Ok(Self { job, steps, done: 0 })
    }

    fn step(&mut self, ticket: Ticket) -> Result<Option<Outcome>, Failure> {
        if let (Job::Epoch(_), Ok(fault)) = (&self.job, env::var("STAND_IN_FAULT")) {
            fail(&fault)?;
        }
        if let Job::Labels(labels) = &self.job {
            say(&Event::Block { ticket, block: block(labels, self.done, self.steps)? })?;
        }
        self.done += 1;
        say(&Event::Stepped { ticket, step: self.done, seconds: 1e-6, loss: Some(1.0) })?;
        if self.done < self.steps {
            return Ok(None);
        }
        Ok(Some(match &self.job {
            Job::Teacher(job) => {
                // A teacher takes longer than a board's first sample, by which it is decided.
                std::thread::sleep(std::time::Duration::from_secs(3));
                Outcome::Weights { hash: write(&job.out, &state(0))?, loss: 1.0 }
            }
            Job::FedAvg(job) => Outcome::Weights { hash: write(&job.out, &state(0))?, loss: 1.0 },
            Job::InitStudent(job) => student(write(&job.out, &state(0))?, 0, 0)?,
            Job::Epoch(job) => epoch(job, self.steps)?,
            Job::Labels(_) => Outcome::Labels { blocks: self.steps },
            Job::Evaluate(_) => Outcome::Evaluation(Evaluation::default()),
            Job::Count(job) => {
                let set = ImageSet::read(Path::new(&job.dataset))?;
                let count = |part| u32::try_from(set.indices(part).len());
                let labels = set.select(&set.indices(Part::Train)).label_counts();
                Outcome::Counts { train: count(Part::Train)?, held: count(Part::Held)?, labels }
            }
            Job::Calibrate(_) => Outcome::Calibration { seconds_per_step: 1e-3, peak_memory: None },
        }))
    }
}

/// Fails as trainers do.
fn fail(how: &str) -> Result<(), Failure> {
    match how {
        "crash" => std::process::abort(),
        "exit" => std::process::exit(3),
        "stall" => loop {
            std::thread::park();
        },
        "memory" => {
            let mut held = Vec::new();
            loop {
                // Written to: memory that is only promised is not taken.
                held.push(vec![1u8; 4 << 20]);
                std::thread::sleep(std::time::Duration::from_millis(20));
                std::hint::black_box(&held);
            }
        }
        other => Err(format!("no fault is called {other:?}").into()),
    }
}

fn student(hash: BlobHash, bytes: u64, samples: u32) -> Result<Outcome, Failure> {
    Ok(Outcome::Student { version: ModelVersion(hash.0), hash, bytes, loss: 1.0, samples })
}

/// Other random numbers after each epoch; small changes where they travel as differences.
fn epoch(job: &EpochJob, steps: u32) -> Result<Outcome, Failure> {
    let fresh = state(u64::from(job.plan.epoch) + 1);
    if let Some(out) = &job.momentum_out {
        fs::write(out, b"none")?;
    }
    let adopted = match &job.compression {
        None => fresh,
        Some(plan) => {
            let residual = plan.residual.as_ref().map(fs::read).transpose()?;
            let encoded = encode(plan.compression, &fs::read(&plan.base)?, &fresh, residual.as_deref())?;
            fs::write(&plan.residual_out, &encoded.residual)?;
            fs::write(&plan.delta_out, &encoded.delta)?;
            encoded.state
        }
    };
    student(write(&job.state_out, &adopted)?, adopted.len() as u64, steps)
}

fn block(job: &LabelsJob, index: u32, blocks: u32) -> Result<LabelBlock, Failure> {
    let length = size("STAND_IN_LABELS", 1 << 16) / blocks.max(1) as usize;
    let bytes = random(u64::from(job.plan.epoch) << 32 | u64::from(index), length.max(1));
    let path = format!("{}/{index:05}.labels", job.out);
    let hash = write(&path, &bytes)?;
    let batches = job.batches_per_block;
    Ok(LabelBlock { index, first_batch: index * batches, batches, path, hash, bytes: bytes.len() as u64 })
}

/// A safetensors file of one matrix of small numbers.
fn state(seed: u64) -> Vec<u8> {
    let rows = size("STAND_IN_STATE", 1 << 16).div_ceil(1024);
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{rows},256],"data_offsets":[0,{}]}}}}"#, rows * 1024);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let numbers = random(seed, rows * 1024);
    file.extend(numbers.as_chunks::<4>().0.iter().flat_map(|bits| {
        // Between 1 and 2: no bits make a number that is none.
        f32::from_bits(u32::from_le_bytes(*bits) >> 9 | 127 << 23).to_le_bytes()
    }));
    file
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn size(variable: &str, default: usize) -> usize {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn write(path: &str, bytes: &[u8]) -> Result<BlobHash, Failure> {
    fs::write(path, bytes)?;
    Ok(BlobHash::of(bytes))
}
