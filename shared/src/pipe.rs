//! The frames between a resident program (agent or host) and its `twin-trainer` process.
//!
//! The resident program submits jobs and grants them steps; the trainer runs one granted step at a time and says
//! what it took. So whoever owns the processor decides who trains next and how fast: on the host weighted fair
//! queueing between devices, on a board the duty cycle, the thermal guard and the owner's pauses, all by the same
//! means, and a trainer that is granted nothing stands still without losing its place.
//!
//! A frame is a length (`u32`, little endian) and that many bytes of postcard. Large things stay in files; frames
//! name their paths.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::id::BlobHash;

mod job;
mod outcome;

pub use crate::plan::{Augmentation, Compression, EpochPlan, LabelKind, LabelPrecision, Method, Recipe};
pub use job::{
    CalibrateJob, CompressPlan, CountJob, EpochJob, EvaluateJob, FedAvgJob, InitStudentJob, Job, LabelSource,
    LabelsJob, Normalisation, Part, TeacherBatch, TeacherJob,
};
pub use outcome::{DeviceScores, Evaluation, Outcome, Score};

/// Version of these frames; the trainer states its own in [`Event::Ready`].
pub const PIPE_VERSION: u16 = 2;

/// Longest frame, in bytes. Everything larger is a file.
pub const MAX_FRAME: usize = 1 << 20;

/// Names a job for as long as it runs in one trainer process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u32);

/// From the resident program to the trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Prepare this job; answered by [`Event::Accepted`] or [`Event::Failed`].
    Submit {
        /// The job's name from here on; must not be in use.
        ticket: Ticket,
        /// What to do.
        job: Box<Job>,
    },
    /// Run that many more steps of the job. Grants of several jobs are served in the order of arrival.
    Grant {
        /// The job.
        ticket: Ticket,
        /// How many steps.
        steps: u32,
    },
    /// Forget the job; nothing of it is written any more.
    Cancel {
        /// The job.
        ticket: Ticket,
    },
    /// End the process after the step in progress.
    Shutdown,
    /// Write the job's checkpoint now, between two steps; answered by [`Event::Saved`] or [`Event::Failed`]. A job
    /// that keeps none has nothing to write.
    Save {
        /// The job.
        ticket: Ticket,
    },
}

/// From the trainer to the resident program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// First frame of every process.
    Ready {
        /// [`PIPE_VERSION`] of the trainer.
        version: u16,
        /// LibTorch's version.
        libtorch: String,
        /// Where it trains: `cpu` or `cuda:0`; with the reason where that is not what was asked for.
        device: String,
        /// Threads of a step.
        threads: u32,
        /// Number format of convolutions, `f32` or `bf16`; like the threads it decides the bits of a result.
        precision: String,
    },
    /// The job is prepared and takes this many steps.
    Accepted {
        /// The job.
        ticket: Ticket,
        /// Steps until it is done, from its beginning or from its checkpoint.
        steps: u32,
    },
    /// A granted step is done.
    Stepped {
        /// The job.
        ticket: Ticket,
        /// Steps done so far.
        step: u32,
        /// Wall time of this step, seconds.
        seconds: f64,
        /// The training loss of this step, where the job has one.
        loss: Option<f32>,
    },
    /// A block of labels is complete on disk (jobs of [`Job::Labels`]).
    Block {
        /// The job.
        ticket: Ticket,
        /// The block.
        block: LabelBlock,
    },
    /// The job is done; its ticket is free again.
    Done {
        /// The job.
        ticket: Ticket,
        /// What came out.
        outcome: Outcome,
    },
    /// The job failed; its ticket is free again and its output was not written.
    Failed {
        /// The job.
        ticket: Ticket,
        /// One line: what is wrong, with names and values.
        message: String,
    },
    /// The job's checkpoint is on disk for good: submitted again, it goes on from here.
    Saved {
        /// The job.
        ticket: Ticket,
    },
}

/// A block of teacher labels as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelBlock {
    /// Its number within the epoch, from 0.
    pub index: u32,
    /// First batch it covers.
    pub first_batch: u32,
    /// Batches it covers.
    pub batches: u32,
    /// The file.
    pub path: String,
    /// BLAKE3 of the file.
    pub hash: BlobHash,
    /// Length of the file, bytes.
    pub bytes: u64,
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// The other side has closed the pipe between two frames.
    #[error("the other side has closed the pipe")]
    Closed,
    /// The pipe broke, in the middle of a frame perhaps.
    #[error("pipe: {0}")]
    Io(#[from] io::Error),
    /// A length beyond [`MAX_FRAME`].
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// Bytes that are no such message.
    #[error("not a frame of this version: {0}")]
    Malformed(postcard::Error),
}

/// Writes one frame and flushes.
///
/// # Errors
/// When the message is too long or the pipe is broken.
pub fn write_frame<W: Write, T: Serialize>(pipe: &mut W, message: &T) -> Result<(), PipeError> {
    pipe.write_all(&encode_frame(message)?)?;
    pipe.flush()?;
    Ok(())
}

/// One frame as bytes, for writers of another kind.
///
/// # Errors
/// When the message is too long.
pub fn encode_frame<T: Serialize>(message: &T) -> Result<Vec<u8>, PipeError> {
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(PipeError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(PipeError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| PipeError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// Reads one frame; blocks until it is whole.
///
/// # Errors
/// When the pipe is closed or broken, or the bytes are no such message.
pub fn read_frame<R: Read, T: DeserializeOwned>(pipe: &mut R) -> Result<T, PipeError> {
    let mut prefix = [0; 4];
    match pipe.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PipeError::Closed),
        Err(error) => return Err(error.into()),
    }
    let mut body = room_for_body(prefix)?;
    pipe.read_exact(&mut body)?;
    decode_body(&body)
}

/// Reads one frame; waits until it is whole. Cancelled before its end it loses what it has read, so whoever waits for
/// several things at once gives it a task of its own.
///
/// # Errors
/// As [`read_frame`].
#[cfg(feature = "tokio")]
pub async fn receive_frame<R, T>(pipe: &mut R) -> Result<T, PipeError>
where
    R: tokio::io::AsyncRead + Unpin,
    T: DeserializeOwned,
{
    use tokio::io::AsyncReadExt;
    let mut prefix = [0; 4];
    match pipe.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PipeError::Closed),
        Err(error) => return Err(error.into()),
    }
    let mut body = room_for_body(prefix)?;
    pipe.read_exact(&mut body).await?;
    decode_body(&body)
}

/// Memory for a body of the length that its prefix states, unless that is beyond [`MAX_FRAME`].
fn room_for_body(prefix: [u8; 4]) -> Result<Vec<u8>, PipeError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME { Err(PipeError::TooLong(length)) } else { Ok(vec![0; length]) }
}

/// A frame's body, without its length, as a message.
fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, PipeError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(PipeError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(PipeError::Malformed(postcard::Error::DeserializeBadEncoding)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other() {
        let sent =
            [Request::Grant { ticket: Ticket(3), steps: 2 }, Request::Cancel { ticket: Ticket(3) }, Request::Shutdown];
        let mut pipe = Vec::new();
        for request in &sent {
            write_frame(&mut pipe, request).expect("a vector takes all");
        }
        let mut reader = pipe.as_slice();
        for request in sent {
            assert_eq!(read_frame::<_, Request>(&mut reader).expect("whole frames"), request);
        }
        assert!(matches!(read_frame::<_, Request>(&mut reader), Err(PipeError::Closed)));
    }

    #[test]
    fn a_foreign_length_is_refused_before_memory_is_taken() {
        let mut reader: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(matches!(read_frame::<_, Event>(&mut reader), Err(PipeError::TooLong(0xffff_ffff))));
    }

    #[test]
    fn cut_and_trailing_bytes_are_refused() {
        let frame = encode_frame(&Request::Shutdown).expect("short");
        assert!(read_frame::<_, Request>(&mut &frame[..frame.len() - 1]).is_err());
        let mut body = frame[4..].to_vec();
        body.push(0);
        assert!(decode_body::<Request>(&body).is_err());
    }
}
