//! A field test as CSV: what was done, the epochs, the decisions, the samples. Times are seconds after the start.

use std::path::Path;

use anyhow::Context;

use super::look::Run;
use crate::recording::Figure;

pub(super) fn write(run: &Run, out: &Path) -> anyhow::Result<()> {
    let file = |name: &str, header: &[&str], rows: Vec<Vec<String>>| -> anyhow::Result<()> {
        let path = out.join(name);
        let mut writer = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
        writer.write_record(header)?;
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        writer.flush().with_context(|| path.display().to_string())
    };
    file("steps.csv", &["planned_s", "at_s", "target", "change", "failure"], steps(run))?;
    file("epochs.csv", &["at_s", "device", "round", "network", "site", "seconds", "loss"], epochs(run))?;
    let header =
        ["at_s", "job", "decision", "policy", "objective", "average_delay_s", "device", "model", "site", "delay_s"];
    file("decisions.csv", &header, decisions(run))?;
    let header = [
        "at_s",
        "device",
        "activity",
        "load",
        "clock_ghz",
        "temperature_c",
        "throttled",
        "link",
        "link_bits_per_second",
        "round_trip_p50_s",
        "round_trip_p95_s",
        "goodput_up_bits_per_second",
        "goodput_down_bits_per_second",
    ];
    file("telemetry.csv", &header, telemetry(run))?;
    let header = ["policy", "job", "decision", "holds_s", "objective", "average_delay_s", "device", "model", "site"];
    file("replays.csv", &header, replays(run))
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

fn steps(run: &Run) -> Vec<Vec<String>> {
    let row = |done: &super::look::Done| {
        vec![
            done.planned.map_or_else(String::new, |planned| seconds(planned.as_secs_f64())),
            seconds(done.at.as_secs_f64()),
            done.target.to_string(),
            done.what.clone(),
            done.failure.clone().unwrap_or_default(),
        ]
    };
    run.done.iter().map(row).collect()
}

fn epochs(run: &Run) -> Vec<Vec<String>> {
    let row = |epoch: super::look::Epoch| {
        let (round, loss) = (epoch.round.to_string(), epoch.loss.to_string());
        let (at, took) = (seconds(epoch.at_s), seconds(epoch.seconds));
        vec![at, epoch.device.to_string(), round, epoch.network, epoch.site, took, loss]
    };
    run.epochs().into_iter().map(row).collect()
}

fn decisions(run: &Run) -> Vec<Vec<String>> {
    let rows = run.recording.moments.iter().flat_map(|moment| {
        let answered = &moment.answered;
        answered.devices.iter().map(move |got| {
            vec![
                seconds(run.since(moment.at)),
                moment.job.to_string(),
                moment.number.to_string(),
                answered.policy.clone(),
                answered.objective.to_string(),
                answered.average_delay_s.to_string(),
                got.id.clone(),
                got.model.clone(),
                got.site.to_string(),
                got.delay_s.to_string(),
            ]
        })
    });
    rows.collect()
}

fn telemetry(run: &Run) -> Vec<Vec<String>> {
    fn known<T: ToString>(figure: Option<&Figure<T>>) -> String {
        figure.map_or_else(String::new, |figure| figure.value.to_string())
    }
    let rows = run.recording.samples.iter().map(|sample| {
        vec![
            seconds(run.since(sample.at)),
            sample.device.to_string(),
            sample.activity.clone(),
            known(sample.load.as_ref()),
            known(sample.clock_ghz.as_ref()),
            known(sample.temperature_c.as_ref()),
            known(sample.throttled.as_ref()),
            sample.link.clone(),
            known(sample.link_bits_per_second.as_ref()),
            known(sample.round_trip_p50_s.as_ref()),
            known(sample.round_trip_p95_s.as_ref()),
            known(sample.goodput_up_bits_per_second.as_ref()),
            known(sample.goodput_down_bits_per_second.as_ref()),
        ]
    });
    rows.collect()
}

fn replays(run: &Run) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for replay in &run.replays {
        for turn in &replay.turns {
            for (device, model, site) in &turn.given {
                rows.push(vec![
                    replay.policy.to_owned(),
                    turn.job.to_string(),
                    turn.number.to_string(),
                    seconds(turn.holds_s),
                    turn.objective.to_string(),
                    turn.average_delay_s.to_string(),
                    device.clone(),
                    model.clone(),
                    site.to_string(),
                ]);
            }
        }
    }
    rows
}
