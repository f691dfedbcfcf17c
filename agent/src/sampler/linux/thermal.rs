//! Heat and power supply.

use std::time::Instant;

use twin_shared::wire::telemetry::quantity::CentiCelsius;
use twin_shared::wire::telemetry::{Health, Reading, Source};

use super::super::age_of;
use super::firmware::Firmware;
use super::tree::Tree;

const THERMAL: &str = "sys/class/thermal";
const HWMON: &str = "sys/class/hwmon";
const FORMER_FIRMWARE_FILE: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

/// Beyond these a sensor is broken or absent: some report a constant 0, 100 or 255 degrees or worse.
const PLAUSIBLE: std::ops::RangeInclusive<i32> = -40_000..=125_000;

pub(super) fn read(tree: &Tree, firmware: &mut Firmware, now: Instant) -> Health {
    let temperature = zone_temperature(tree).or_else(|| hwmon_temperature(tree));
    let mut health = Health {
        temperature: Reading::measured_or_unknown(temperature),
        throttled: Reading::measured_or_unknown(cooling(tree)),
        under_voltage: Reading::measured_or_unknown(voltage_alarm(tree)),
    };
    let former = tree.text(FORMER_FIRMWARE_FILE).and_then(|text| super::firmware::Throttling::parse(&text));
    if let Some((bits, at)) = former.map(|bits| (bits, now)).or_else(|| firmware.throttling(now)) {
        let said = |value| Reading::Known { value, source: Source::Measured, age: age_of(now, at) };
        // The firmware throttles without telling the kernel's cooling devices. The kernel's own voltage alarm is
        // younger than an answer from half a minute ago.
        health.throttled = said(bits.throttled() || health.throttled.value() == Some(&true));
        if health.under_voltage == Reading::Unknown {
            health.under_voltage = said(bits.under_voltage());
        }
    }
    health
}

/// The warmest of the zones that are the processor's. Others stay out: a power chip's zone may say a constant 100 °C.
fn zone_temperature(tree: &Tree) -> Option<CentiCelsius> {
    let zones = tree.names(THERMAL, "thermal_zone");
    let of = |wanted: fn(&str) -> bool| {
        let readings = zones.iter().filter_map(|zone| {
            let kind = tree.text(&format!("{THERMAL}/{zone}/type"))?.to_ascii_lowercase();
            wanted(&kind).then(|| tree.number(&format!("{THERMAL}/{zone}/temp"))).flatten().and_then(celsius)
        });
        readings.max()
    };
    of(|kind| kind.contains("cpu") || kind.contains("core") || kind == "x86_pkg_temp")
        .or_else(|| of(|kind| kind.starts_with("soc")))
}

/// Sensors that sit on the processor, by their drivers' names.
const PROCESSOR_SENSORS: [&str; 6] = ["cpu_thermal", "soc_thermal", "coretemp", "k10temp", "zenpower", "scpi_sensors"];

fn hwmon_temperature(tree: &Tree) -> Option<CentiCelsius> {
    let sensors = tree.names(HWMON, "hwmon").into_iter().filter_map(|sensor| {
        let name = tree.text(&format!("{HWMON}/{sensor}/name"))?;
        let on_processor = PROCESSOR_SENSORS.contains(&name.as_str());
        on_processor.then(|| tree.number(&format!("{HWMON}/{sensor}/temp1_input"))).flatten().and_then(celsius)
    });
    sensors.max()
}

fn celsius(milli: i32) -> Option<CentiCelsius> {
    PLAUSIBLE.contains(&milli).then(|| CentiCelsius(i16::try_from(milli / 10).expect("at most 12500")))
}

/// Whether a cooling device holds the processor's frequency down; none if there is no such device.
fn cooling(tree: &Tree) -> Option<bool> {
    let states = tree.names(THERMAL, "cooling_device").into_iter().filter_map(|device| {
        let kind = tree.text(&format!("{THERMAL}/{device}/type"))?;
        let processors = kind.contains("cpufreq") || kind == "Processor";
        processors.then(|| tree.number::<u32>(&format!("{THERMAL}/{device}/cur_state"))).flatten()
    });
    states.map(|state| state > 0).reduce(|a, b| a || b)
}

/// The alarm of the Raspberry Pi's supply voltage.
fn voltage_alarm(tree: &Tree) -> Option<bool> {
    let sensor = tree
        .names(HWMON, "hwmon")
        .into_iter()
        .find(|sensor| tree.text(&format!("{HWMON}/{sensor}/name")).as_deref() == Some("rpi_volt"))?;
    tree.number::<u8>(&format!("{HWMON}/{sensor}/in0_lcrit_alarm")).map(|alarm| alarm != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::linux::tests::board;

    #[test]
    fn a_power_chip_is_not_the_processor() {
        let zones = [
            ("sys/class/thermal/thermal_zone0/type", "AO-therm\n"),
            ("sys/class/thermal/thermal_zone0/temp", "41000\n"),
            ("sys/class/thermal/thermal_zone1/type", "CPU-therm\n"),
            ("sys/class/thermal/thermal_zone1/temp", "38500\n"),
            ("sys/class/thermal/thermal_zone2/type", "PMIC-Die\n"),
            ("sys/class/thermal/thermal_zone2/temp", "100000\n"),
        ];
        assert_eq!(zone_temperature(&board(&zones).1), Some(CentiCelsius(3_850)));
    }

    #[test]
    fn a_broken_sensor_says_nothing() {
        for temperature in ["-273000", "255000", "", "n/a", "99999999999"] {
            let (_folder, tree) = board(&[
                ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
                ("sys/class/thermal/thermal_zone0/temp", temperature),
            ]);
            assert_eq!(zone_temperature(&tree), None, "{temperature}");
        }
    }

    #[test]
    fn the_firmware_s_bits_join_the_kernel_s() {
        let (folder, tree) = board(&[
            ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n"),
            ("firmware/get_throttled", "throttled=0x5\n"),
        ]);
        let health = read(&tree, &mut Firmware::recorded(folder.path()), Instant::now());
        assert_eq!(health.throttled, Reading::measured(true));
        assert_eq!(health.under_voltage, Reading::measured(false), "the kernel's alarm is the younger word");
    }
}
