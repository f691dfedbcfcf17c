//! `twin-agent probe`: one sample, for people or programs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};
use twin_shared::units::{BitsPerSecond, Gigahertz};
use twin_shared::wire::telemetry::quantity::{
    CentiCelsius, Dbm, Fraction, Kibibytes, KilobitsPerSecond, Mebibytes, Megahertz,
};
use twin_shared::wire::telemetry::{CoreFrequencies, Link, Reading, Source, Telemetry};

use super::{Format, Usage, print};
use crate::config::Config;
use crate::sampler::{LinuxSampler, Root, Sampler};

/// The first reading of a load only starts it.
const BETWEEN_READINGS: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Read a recorded board: DIR stands in for /
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let sample = match &options.root {
        Some(root) if !root.is_dir() => return Err(Usage(format!("--root: {} is not a folder", root.display())).into()),
        Some(root) => LinuxSampler::new(Root::Recorded(root.clone()), None).sample(Instant::now()),
        None => {
            let data_dir = Config::parse("")?.data_dir;
            let mut sampler = LinuxSampler::new(Root::Live { data_dir }, None);
            sampler.sample(Instant::now());
            thread::sleep(BETWEEN_READINGS);
            sampler.sample(Instant::now())
        }
    };
    match options.format {
        Format::Table => print(&table(&sample)),
        Format::Json => print(&format!("{:#}\n", as_json(&sample))),
    }
}

/// One figure as it is shown.
struct Figure {
    group: &'static str,
    name: &'static str,
    unit: Option<&'static str>,
    value: Value,
    text: String,
    source: Option<Source>,
    age_s: Option<u32>,
}

/// A value in the unit that it is shown in.
struct Shown {
    unit: Option<&'static str>,
    value: Value,
    text: String,
}

impl Shown {
    fn count(value: impl Into<Value>) -> Self {
        let value = value.into();
        Self { unit: None, text: value.to_string(), value }
    }

    fn truth(value: bool) -> Self {
        Self { unit: None, value: value.into(), text: if value { "yes" } else { "no" }.to_owned() }
    }

    fn frequencies(cores: CoreFrequencies) -> Self {
        let gigahertz: Vec<f64> = cores.into_iter().map(|core: Megahertz| Gigahertz::from(core).0).collect();
        let text: Vec<String> = gigahertz.iter().map(f64::to_string).collect();
        Self { unit: Some("GHz"), value: gigahertz.into(), text: format!("{} GHz", text.join(" ")) }
    }

    fn share(share: Fraction) -> Self {
        Self { unit: None, value: share.value().into(), text: format!("{:.1} %", share.value() * 100.0) }
    }

    fn temperature(celsius: CentiCelsius) -> Self {
        Self { unit: Some("°C"), value: celsius.degrees().into(), text: format!("{:.1} °C", celsius.degrees()) }
    }

    fn bytes(bytes: u64) -> Self {
        let (size, unit) = if bytes < 10 << 20 { (bytes >> 10, "KiB") } else { (bytes >> 20, "MiB") };
        Self { unit: Some("B"), value: bytes.into(), text: format!("{size} {unit}") }
    }

    fn power(power: Dbm) -> Self {
        Self { unit: Some("dBm"), value: power.0.into(), text: format!("{} dBm", power.0) }
    }

    fn rate(rate: KilobitsPerSecond) -> Self {
        let rate = BitsPerSecond::from(rate).0;
        Self { unit: Some("bit/s"), value: rate.into(), text: format!("{} Mbit/s", rate / 1e6) }
    }

    fn megahertz(width: u16) -> Self {
        Self { unit: Some("MHz"), value: width.into(), text: format!("{width} MHz") }
    }
}

fn figure<T>(group: &'static str, name: &'static str, reading: Reading<T>, show: impl FnOnce(T) -> Shown) -> Figure {
    match reading {
        Reading::Unknown => {
            Figure { group, name, unit: None, value: Value::Null, text: "-".to_owned(), source: None, age_s: None }
        }
        Reading::Known { value, source, age } => {
            let Shown { unit, value, text } = show(value);
            Figure { group, name, unit, value, text, source: Some(source), age_s: Some(age.seconds()) }
        }
    }
}

/// Every figure that a board can tell on its own; round trips and goodput take a host.
fn figures(sample: Telemetry) -> Vec<Figure> {
    let Telemetry { cpu, health, room, link, path: _, activity: _ } = sample;
    let mut figures = vec![
        figure("cpu", "cores", cpu.cores, Shown::count),
        figure("cpu", "current", cpu.current, Shown::frequencies),
        figure("cpu", "maximum", cpu.maximum, Shown::frequencies),
        figure("cpu", "load", cpu.load, Shown::share),
        figure("health", "temperature", health.temperature, Shown::temperature),
        figure("health", "throttled", health.throttled, Shown::truth),
        figure("health", "under_voltage", health.under_voltage, Shown::truth),
        figure("room", "memory_total", room.memory_total.map(Kibibytes::bytes), Shown::bytes),
        figure("room", "memory_available", room.memory_available.map(Kibibytes::bytes), Shown::bytes),
        figure("room", "disk_free", room.disk_free.map(Mebibytes::bytes), Shown::bytes),
    ];
    match link {
        Link::Unknown => {}
        Link::Wifi(wifi) => figures.extend([
            figure("link", "signal", wifi.signal, Shown::power),
            figure("link", "noise", wifi.noise, Shown::power),
            figure("link", "sent_rate", wifi.sent_rate, Shown::rate),
            figure("link", "received_rate", wifi.received_rate, Shown::rate),
            figure("link", "sent_frames", wifi.sent, Shown::count),
            figure("link", "retries", wifi.retries, Shown::count),
            figure("link", "failures", wifi.failures, Shown::count),
            figure("link", "channel_width", wifi.channel_width, Shown::megahertz),
        ]),
        Link::Wired(wired) => figures.extend([
            figure("link", "speed", wired.speed, Shown::rate),
            figure("link", "carrier", wired.carrier, Shown::truth),
            figure("link", "sent", wired.sent_bytes, Shown::bytes),
            figure("link", "received", wired.received_bytes, Shown::bytes),
        ]),
        Link::Emulated(emulated) => figures.extend([
            figure("link", "up", emulated.up, Shown::rate),
            figure("link", "down", emulated.down, Shown::rate),
        ]),
    }
    figures
}

const fn kind(link: &Link) -> &'static str {
    match link {
        Link::Unknown => "unknown",
        Link::Wifi(_) => "wifi",
        Link::Wired(_) => "wired",
        Link::Emulated(_) => "emulated",
    }
}

fn source_name(source: Option<Source>) -> &'static str {
    source.map_or("unknown", Source::name)
}

fn as_json(sample: &Telemetry) -> Value {
    let mut groups = Map::new();
    groups.insert("link".to_owned(), json!({ "kind": kind(&sample.link) }));
    for figure in figures(sample.clone()) {
        let mut entry = json!({ "value": figure.value, "source": source_name(figure.source) });
        if let Some(unit) = figure.unit {
            entry["unit"] = unit.into();
        }
        if let Some(age) = figure.age_s {
            entry["age_s"] = age.into();
        }
        let group = groups.entry(figure.group).or_insert_with(|| Map::new().into());
        group[figure.name] = entry;
    }
    groups.into()
}

fn table(sample: &Telemetry) -> String {
    let figures = figures(sample.clone());
    let width = figures.iter().map(|figure| figure.text.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:<24}  {:<width$}  {:<9}  {}\n", "figure", "value", "source", "age");
    for Figure { group, name, text: value, source, age_s, .. } in figures {
        let age = age_s.map_or_else(String::new, |age| format!("{age} s"));
        let figure = format!("{group} {}", name.replace('_', " "));
        let line = format!("{figure:<24}  {value:<width$}  {:<9}  {age}", source_name(source));
        writeln!(text, "{}", line.trim_end()).expect("a string takes all");
    }
    writeln!(text, "{:<24}  {}", "link kind", kind(&sample.link)).expect("a string takes all");
    text
}

#[cfg(test)]
mod tests;
