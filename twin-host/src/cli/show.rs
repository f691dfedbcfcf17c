//! `show`: one device's twin, what was learnt of it, and why it got what it got.

use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;
use twin_shared::id::DeviceId;

use super::Failure;
use crate::store::Store;

/// What `show` adds to a device's summary: what was learnt of it, and the latest decision.
pub(crate) fn details(store: &Store, device: &DeviceId) -> Result<(Value, Value), Failure> {
    let failed = |error: crate::store::StoreError| Failure::Failed(error.into());
    let twin = store.twin(device).map_err(failed)?;
    let experience = &twin.experience;
    let learnt = json!({
        "missed_deadlines": experience.missed_deadlines,
        "taken_late": experience.taken_late,
        "calibration": experience.speeds.calibration(),
    });
    let decision = store.decision(device).map_err(failed)?.map(|decision| {
        json!({
            "job": decision.job.0,
            "number": decision.number,
            "decided_unix_s": decision.decided,
            "scenario": store.decision_file(&decision).display().to_string(),
            "of": decision.record["decision"],
            "device": decision.record["device"],
        })
    });
    Ok((learnt, json!(decision)))
}

/// The same for people.
pub(crate) fn text(shown: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    let short = |value: &Value| word(value).chars().take(12).collect::<String>();
    let mut lines = Builder::default();
    let mut line = |name: &str, text: String| lines.push_record([name.to_owned(), text]);
    let revoked = if shown["revoked"].as_bool() == Some(true) { ", locked out" } else { "" };
    line("device", format!("{}{revoked}", word(&shown["id"])));
    let dataset = &shown["dataset"];
    if !dataset.is_null() {
        let (train, held) = (word(&dataset["train"]), word(&dataset["held_out"]));
        line("dataset", format!("{}…, {train} images to train on, {held} held out", short(&dataset["version"])));
    }
    let student = &shown["student"];
    if !student.is_null() {
        let (network, epochs, site) = (word(&student["network"]), word(&student["epochs"]), word(&student["site"]));
        let job = word(&student["job"]);
        line("student", format!("{network}, {epochs} epochs of job {job}, the last one trained: {site}"));
    }
    let learnt = &shown["learnt"];
    let (missed, late) = (word(&learnt["missed_deadlines"]), word(&learnt["taken_late"]));
    line("deadlines", format!("{missed} missed, of these {late} came in time to be taken"));
    let decision = &shown["decision"];
    if decision.is_null() {
        line("decision", "none yet".to_owned());
        return format!("{}\n", lines.build().with(Style::blank()));
    }
    let (of, device) = (&decision["of"], &decision["device"]);
    line(
        "decision",
        format!("{} of job {}, by {}", word(&decision["number"]), word(&decision["job"]), word(&of["policy"])),
    );
    line("why", word(&device["why"]));
    let number = |value: &Value, digits: usize| {
        value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
    };
    let delay = &device["delay"];
    let terms = ["teacher_s", "label_s", "student_s", "model_s", "pipelined_s"].map(|key| number(&delay[key], 2));
    let [teacher, label, training, state, pipelined] = terms;
    line(
        "epoch",
        format!(
            "teacher {teacher} s, labels {label} s, training {training} s, state {state} s; overlapped {pipelined} s"
        ),
    );
    let terms = ["delay", "compute", "bandwidth", "accuracy", "objective"].map(|key| number(&device["terms"][key], 4));
    let [delay, compute, bandwidth, accuracy, objective] = terms;
    line(
        "Eq. (6)",
        format!("delay {delay} + compute {compute} + bandwidth {bandwidth} - accuracy {accuracy} = {objective}"),
    );
    let figures = &device["figures"];
    let mbit = figures["link_bits_per_second"].as_f64().unwrap_or(f64::NAN) / 1e6;
    let (ghz, source) = (number(&figures["frequency_ghz"], 3), word(&figures["frequency_source"]));
    line("board", format!("{ghz} GHz ({source}), link {mbit:.3} Mbit/s ({})", word(&figures["link_source"])));
    let host = &of["host"];
    let (ghz, source) = (number(&host["frequency_ghz"], 3), word(&host["frequency_source"]));
    line("host", format!("{ghz} GHz ({source}; {})", word(&host["measured_on"])));
    let scenario = word(&decision["scenario"]);
    line("replay", format!("twin-host schedule --scenario {scenario} --policy {}", word(&of["policy"])));
    let mut students = Builder::default();
    students.push_record(["student", "board (s)", "", "host (s)", "", "own", "avg", "", ""]);
    for (name, known) in figures["students"].as_object().into_iter().flatten() {
        let scored = known["all_samples"].as_u64().filter(|samples| *samples > 0);
        students.push_record([
            name.clone(),
            number(&known["local_s"], 3),
            word(&known["local_source"]),
            number(&known["host_s"], 3),
            word(&known["host_source"]),
            number(&known["accuracy_own"], 3),
            number(&known["accuracy_avg"], 3),
            scored.map_or_else(|| word(&known["accuracy_source"]), |samples| format!("{samples} held-out samples")),
            known["excluded"].as_str().unwrap_or("").to_owned(),
        ]);
    }
    format!("{}\n{}\n", lines.build().with(Style::blank()), students.build().with(Style::psql()))
}
