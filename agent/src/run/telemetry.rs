//! Samples: for the host now or later, for the guard, and for the trainer's limit.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::Purpose;
use twin_shared::wire::telemetry::Telemetry;

use super::Agent;
use crate::backlog::{Backlog, Clocks, Flush};
use crate::config::Config;
use crate::guard::{Conditions, Permit};
use crate::outbox::Parcel;
use crate::sampler::{EmulatedSampler, LinuxSampler, Root, Sampler};
use crate::session::Input;
use crate::trainer::{self, Death};
use crate::{durable, off_loop};

/// Most bytes of samples in one blob; the host takes no longer ones.
const LONGEST_BATCH: usize = 256 << 10;

/// A host that refuses the backlog does not know it: it is asked again after so long.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// A clock before 2025 was never set.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_735_689_600);

impl Agent {
    /// One sample: for the host, the guard and the trainer's limit.
    pub(super) async fn sample(&mut self, now: Instant) {
        let Some(mut sampler) = self.sampler.take() else { return };
        let (sampler, mut sample) = off_loop(move || {
            let sample = sampler.sample(now);
            (sampler, sample)
        })
        .await;
        self.sampler = Some(sampler);
        sample.path = self.path.reading(now);
        sample.activity = self.session.activity();
        self.calibrator.look(&sample);
        let permit = self.guard.assess(now, &self.conditions(&sample));
        if self.permit != Some(permit) {
            if let Permit::Wait(cause) = permit {
                tracing::info!(%cause, "training waits");
            }
            self.permit = Some(permit);
            self.tell(Input::Permit(permit)).await;
        }
        if let (Some(allowed), Some(trainer)) = (self.config.trainer.memory_limit, &self.trainer)
            && let Some(held) = trainer.resident().filter(|held| *held > allowed)
        {
            self.on_trainer(trainer::News::Ended(Death::OverLimit { held, allowed })).await;
        }
        if self.session.is_served() {
            self.outbox.push(Parcel::Telemetry(Box::new(sample)));
        } else {
            self.backlog.push(self.started.elapsed(), &sample);
        }
        self.store_backlog(now).await;
        self.send_backlog(now).await;
    }

    fn clocks(&self) -> Clocks {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Clocks { elapsed: self.started.elapsed(), unix_ms }
    }

    async fn store_backlog(&mut self, now: Instant) {
        let Some(flush) = self.backlog.flush(now, self.clocks()) else { return };
        let file = backlog_file(&self.config.data_dir);
        let stored = off_loop(move || match flush {
            Flush::Replace(whole) => durable::replace(&file, &whole),
            Flush::Append(more) => durable::append(&file, &more),
        });
        if let Err(error) = stored.await {
            tracing::warn!(%error, "telemetry that waits cannot be stored");
            self.backlog.not_flushed();
        }
    }

    /// Offers the host what waits of the backlog, one batch at a time.
    async fn send_backlog(&mut self, now: Instant) {
        if !self.session.is_served() || self.flying.is_some() || now < self.next_batch {
            return;
        }
        let Some(batch) = self.backlog.batch(LONGEST_BATCH, self.clocks()) else { return };
        let (blobs, bytes) = (self.courier.blobs().clone(), batch.bytes.clone());
        let put = off_loop(move || blobs.put(&bytes)).await;
        let measured = self.path.reading(now).goodput_up.value().copied().map(BitsPerSecond::from);
        let rate = self.pace.chunk_rate(measured);
        let offered = put.and_then(|blob| self.courier.send(blob, Purpose::Telemetry, rate).map(|()| blob));
        match offered {
            Ok(blob) => self.flying = Some((blob, batch)),
            Err(error) => tracing::warn!(%error, "telemetry that waits cannot be sent"),
        }
    }

    /// The host holds the batch on its way; or will not take it, and is offered it again much later.
    pub(super) async fn backlog_left(&mut self, taken: bool) {
        let Some((blob, batch)) = self.flying.take() else { return };
        if taken {
            tracing::info!(samples = batch.len(), "the host has samples of the time without it");
            self.backlog.arrived(&batch);
        } else {
            self.next_batch = Instant::now() + REFUSED_FOR;
        }
        let blobs = self.courier.blobs().clone();
        if let Err(error) = off_loop(move || blobs.remove(&blob)).await {
            tracing::warn!(%error, "samples that were sent stay on disk for now");
        }
        let now = Instant::now();
        self.store_backlog(now).await;
        self.send_backlog(now).await;
    }

    fn conditions(&self, sample: &Telemetry) -> Conditions {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
        Conditions {
            temperature: sample.health.temperature.value().map(|celsius| celsius.degrees()),
            under_voltage: sample.health.under_voltage.value().copied(),
            inhibited: self.config.inhibit_file.as_deref().is_some_and(Path::exists),
            paused: false,
            unix_seconds: clock.filter(|now| *now >= CLOCK_IS_SET).map(|now| now.as_secs()),
        }
    }
}

/// The backlog of an earlier life, or a new one.
pub(super) fn waiting(config: &Config) -> anyhow::Result<Backlog> {
    let file = backlog_file(&config.data_dir);
    let stored = durable::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Backlog::restore(config.telemetry.backlog_bytes, rand::random(), &stored.unwrap_or_default()))
}

fn backlog_file(folder: &Path) -> PathBuf {
    folder.join("backlog")
}

pub(super) fn sampler(config: &Config) -> Box<dyn Sampler + Send> {
    let root = Root::Live { data_dir: config.data_dir.clone() };
    let machine = LinuxSampler::new(root, config.telemetry.interface.clone());
    match config.emulate {
        Some(board) => Box::new(EmulatedSampler::new(machine, board)),
        None => Box::new(machine),
    }
}
