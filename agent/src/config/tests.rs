//! Empty, full and bad configuration files.

use super::*;

fn refusal(text: &str) -> String {
    Config::parse(text).expect_err("must be refused").to_string()
}

#[test]
fn the_documented_default_is_what_an_empty_file_means() {
    assert_eq!(from_toml::<Raw>(DEFAULT).expect("valid"), Raw::default());
    assert_eq!(Config::parse(DEFAULT), Config::parse(""));
}

#[test]
fn the_documented_default_names_every_key() {
    let documented: toml::Table = DEFAULT
        .replace("# [emulate]", "[emulate]")
        .replace("# frequency", "frequency")
        .replace("# duty", "duty")
        .replace("# uplink", "uplink")
        .replace("# downlink", "downlink")
        .parse()
        .expect("valid");
    let emulated = Config::parse(&documented.to_string()).expect("valid").emulate.expect("a section");
    assert_eq!(emulated.downlink, BitsPerSecond(8e6));
    for (section, keys) in [
        ("device", raw::Device::KEYS),
        ("broker", raw::Broker::KEYS),
        ("credentials", raw::Credentials::KEYS),
        ("dataset", raw::Dataset::KEYS),
        ("model", raw::Model::KEYS),
        ("trainer", raw::Trainer::KEYS),
        ("telemetry", raw::Telemetry::KEYS),
        ("guard", raw::Guard::KEYS),
    ] {
        let written = documented[section].as_table().expect("a section");
        for key in keys {
            assert!(written.contains_key(*key), "{section}.{key} is not documented");
        }
    }
}

#[test]
fn a_full_file_is_read() {
    let config = Config::parse(
        r#"
        [device]
        name = "kitchen"
        data_dir = "/data"
        [broker]
        host = "twin.lan"
        port = 1883
        security = "plain"
        dangerously_plain_beyond_loopback = true
        [credentials]
        folder = "/keys"
        sealing_key = "s"
        [dataset]
        path = "/images"
        format = "cifar100"
        [trainer]
        threads = 2
        memory_limit_mib = 700
        stall_s = 90
        [telemetry]
        interface = "wlan0"
        [guard]
        windows = [{ days = ["sat"], from = "22:00", to = "06:00" }]
        utc_offset = "-03:30"
        inhibit_file = ""
        [emulate]
        frequency_ghz = 1.5
        duty = 0.5
        uplink_bits_per_second = 1e6
        downlink_bits_per_second = 2e6
        "#,
    )
    .expect("valid");
    assert_eq!(config.device.as_str(), "kitchen");
    assert_eq!(config.broker, Broker { host: "twin.lan".into(), port: 1883, security: Security::Plain });
    assert_eq!(config.credentials.sealing_key, PathBuf::from("/keys/s"));
    assert_eq!(config.credentials.authority, PathBuf::from("/keys/ca.crt"));
    let images = Dataset { path: "/images".into(), format: DatasetFormat::Cifar100, share_incoming: false };
    assert_eq!(config.dataset, Some(images));
    assert_eq!(config.trainer.threads, Some(2));
    assert_eq!(config.trainer.memory_limit, Some(700 << 20));
    assert_eq!(config.trainer.stall, std::time::Duration::from_secs(90));
    assert_eq!(config.telemetry.interface.as_deref(), Some("wlan0"));
    assert_eq!(config.guard.windows.len(), 1);
    assert_eq!(config.guard.utc_offset_minutes, -210);
    assert_eq!(config.inhibit_file, None);
    assert_eq!(config.emulate.map(|e| e.frequency), Some(Gigahertz(1.5)));
}

#[test]
fn a_file_s_relative_paths_are_relative_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "[credentials]\nfolder = '.'\n[device]\ndata_dir = 'data'").expect("written");
    let config = Config::load(&file).expect("valid");
    assert_eq!(config.credentials.sealing_key, folder.path().join("./sealing.key"));
    assert_eq!(config.data_dir, folder.path().join("data"));
    assert_eq!(config.trainer, Config::parse("").expect("valid").trainer, "absolute paths stay");
    assert_eq!(config.dataset, None, "no dataset is still none");
}

#[test]
fn a_file_that_is_not_taken_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    let named = || Config::load(&file).expect_err("refused").to_string().contains("agent.toml");
    assert!(named());
    std::fs::write(&file, "[borker]").expect("written");
    assert!(named());
}

#[test]
fn a_bad_value_is_refused_by_the_name_of_its_key() {
    for (text, key) in [
        ("[device]\nname = 'A'", "`device.name`"),
        ("[device]\nname = 'a/b'", "`device.name`"),
        ("[device]\ndata_dir = ''", "`device.data_dir`"),
        ("[broker]\nhost = ''", "`broker.host`"),
        ("[broker]\nport = 0", "`broker.port`"),
        ("[broker]\nhost = '192.168.1.2'\nsecurity = 'plain'", "`broker.security`"),
        ("[dataset]\nformat = 'digits'\nshare_incoming = true", "`dataset.share_incoming`"),
        ("[trainer]\nniceness = 20", "`trainer.niceness`"),
        ("[telemetry]\nperiod_s = 0", "`telemetry.period_s`"),
        ("[telemetry]\ninterface = '../x'", "`telemetry.interface`"),
        ("[telemetry]\nbacklog_kib = 0", "`telemetry.backlog_kib`"),
        ("[guard]\npause_above_c = 60.0", "`guard.pause_above_c`"),
        ("[guard]\npause_above_c = nan", "`guard.pause_above_c`"),
        ("[guard]\ncpu_quota = 0.0", "`guard.cpu_quota`"),
        ("[guard]\ncpu_quota = nan", "`guard.cpu_quota`"),
        ("[guard]\nutc_offset = '2'", "`guard.utc_offset`"),
        ("[guard]\nutc_offset = '+15:00'", "`guard.utc_offset`"),
        ("[guard]\nwindows = [{ from = '25:00', to = '06:00' }]", "`guard.windows[0].from`"),
        ("[guard]\nwindows = [{ from = '05:00', to = '05:00' }]", "`guard.windows[0].to`"),
        ("[guard]\nwindows = [{ days = ['son'], from = '05:00', to = '06:00' }]", "`guard.windows[0].days`"),
        ("[emulate]\nfrequency_ghz = 1.0", "`emulate.duty`"),
        (
            "[emulate]\nfrequency_ghz = 0.0\nduty = 1.0\nuplink_bits_per_second = 1e6\ndownlink_bits_per_second = 1e6",
            "`emulate.frequency_ghz`",
        ),
        (
            "[emulate]\nfrequency_ghz = 1.0\nduty = 1.0\nuplink_bits_per_second = inf\ndownlink_bits_per_second = 1e6",
            "`emulate.uplink_bits_per_second`",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(key), "{text}: {refusal}");
    }
}

#[test]
fn plain_is_fine_on_this_machine() {
    for host in ["127.0.0.1", "localhost", "::1", "127.1.2.3"] {
        let config = Config::parse(&format!("[broker]\nhost = '{host}'\nsecurity = 'plain'")).expect(host);
        assert_eq!(config.broker.security, Security::Plain);
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    assert_eq!(
        refusal("[telemetry]\nperiod = 5"),
        "`telemetry.period` is not a known key: did you mean `telemetry.period_s`?"
    );
    assert_eq!(refusal("[gaurd]"), "`gaurd` is not a known key: did you mean `guard`?");
}
