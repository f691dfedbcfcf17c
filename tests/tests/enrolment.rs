//! Who may connect, with the programs as they are deployed: enrolment, revocation, renewal, rotation, over TLS.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use twin_tests::{Fleet, Running, mosquitto_or_skip, programs_or_skip};

/// Longer than anything here takes on the slowest machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

const CONNECTED: &str = "connected to the host";
const LOST: &str = "no connection to the broker";

/// Waits until something is so.
fn until(what: &str, within: Duration, so: impl Fn() -> bool) {
    let end = Instant::now() + within;
    while !so() {
        assert!(Instant::now() < end, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How often a text stands in a log.
fn count(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

fn connected(fleet: &Fleet, board: &str, times: usize) {
    until(&format!("{board} is connected {times} times"), PATIENCE, || {
        count(&fleet.agent_log(board), CONNECTED) >= times
    });
}

fn done(fleet: &Fleet, arguments: &[&str]) -> String {
    let (done, said) = fleet.host(arguments);
    assert!(done, "{arguments:?}: {said}");
    said
}

/// Boards whose certificate is not of the authority that signs.
fn waiting(fleet: &Fleet) -> Vec<String> {
    let shown = done(fleet, &["authority", "show", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let names = shown["waiting"].as_array().expect("a list");
    names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[test]
fn a_revoked_board_is_cut_within_five_seconds_and_a_new_one_taken_in_meanwhile() {
    let fleet = Fleet::new(programs_or_skip!(), &["left", "right"], "all-host");
    let mut host = fleet.serve_idle(&[]);
    let _agents = [fleet.agent("left"), fleet.agent("right")];
    connected(&fleet, "left", 1);
    connected(&fleet, "right", 1);
    done(&fleet, &["revoke", "left"]);
    until("left is cut", Duration::from_secs(5), || fleet.agent_log("left").contains(LOST));
    until("left is kept out", PATIENCE, || fleet.agent_log("left").contains("refuses this board"));
    fleet.enroll("late", &[]);
    fleet.equip("late", "late", 2);
    let _late = fleet.agent("late");
    connected(&fleet, "late", 1);
    assert_eq!(count(&fleet.agent_log("right"), LOST), 0, "{}", fleet.agent_log("right"));
    assert_eq!(count(&fleet.agent_log("left"), CONNECTED), 1, "{}", fleet.agent_log("left"));
    assert!(host.terminate(), "{}", fleet.host_log());
}

#[test]
fn a_killed_agent_is_missed_within_five_seconds_and_comes_back_as_itself() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-host");
    let _host = fleet.serve_idle(&[]);
    let mut agent = fleet.agent("left");
    connected(&fleet, "left", 1);
    agent.kill();
    until("the host misses it", Duration::from_secs(5), || count(&fleet.host_log(), "offline") == 1);
    let _again = fleet.agent("left");
    until("it is back", PATIENCE, || count(&fleet.host_log(), " online") == 2);
    connected(&fleet, "left", 1);
    assert!(fleet.host_log().lines().filter(|line| line.contains(" online")).all(|line| line.contains("left")));
}

#[test]
fn keys_are_renewed_without_a_restart_and_the_former_ones_are_worth_nothing() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-host");
    let _host = fleet.serve_idle(&[]);
    let mut agent = fleet.agent("left");
    connected(&fleet, "left", 1);
    done(&fleet, &["renew", "left"]);
    connected(&fleet, "left", 2);
    assert!(agent.is_running(), "{}", fleet.agent_log("left"));
    assert_eq!(count(&fleet.agent_log("left"), "the keys are renewed"), 1);
    until("the host has changed over", PATIENCE, || fleet.host_log().contains("has changed over to its new keys"));
    let keys = Path::new(&fleet.path("left")).join("data/keys");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&keys).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    // The enrolment's folder alone, on another card: its keys are the former ones.
    fleet.copy_enrolment("left", "thief");
    let _thief = fleet.agent("thief");
    until("the thief is refused", PATIENCE, || fleet.agent_log("thief").contains("refuses this board"));
    // The board goes on from what it has on its own disk.
    agent.kill();
    let _again = fleet.agent("left");
    connected(&fleet, "left", 1);
    assert_eq!(count(&fleet.agent_log("thief"), CONNECTED), 0);
}

#[test]
fn an_authority_is_rotated_and_retired_under_connected_boards() {
    let fleet = Fleet::new(programs_or_skip!(), &["left", "right"], "all-host");
    let mut host = fleet.serve_idle(&[]);
    let mut agents = [fleet.agent("left"), fleet.agent("right")];
    connected(&fleet, "left", 1);
    connected(&fleet, "right", 1);
    // A board that sleeps through it.
    fleet.enroll("asleep", &[]);
    done(&fleet, &["authority", "rotate"]);
    until("both have changed over", PATIENCE, || waiting(&fleet) == ["asleep"]);
    let (retired, why) = fleet.host(&["authority", "retire"]);
    assert!(!retired && why.contains("asleep would be locked out"), "{why}");
    done(&fleet, &["authority", "retire", "--force"]);
    assert!(host.terminate(), "{}", fleet.host_log());
    let _host = fleet.serve_idle(&[]);
    // Connected anew, to a host that trusts and shows the new authority only.
    connected(&fleet, "left", 3);
    connected(&fleet, "right", 3);
    assert!(agents.iter_mut().all(Running::is_running));
    fleet.equip("asleep", "asleep", 2);
    let mut slept = fleet.agent("asleep");
    until("who slept is not served", PATIENCE, || fleet.agent_log("asleep").contains(LOST));
    slept.kill();
    let folder = fleet.path("awake");
    done(&fleet, &["enroll", "asleep", "--renew", "--out", &folder]);
    fleet.equip("awake", "asleep", 2);
    let _awake = fleet.agent("awake");
    connected(&fleet, "awake", 1);
}

#[test]
fn boards_on_the_hosts_machine_may_go_without_tls_and_renew_their_keys_too() {
    let fleet = Fleet::plain(programs_or_skip!(), &["left"], "all-host");
    let _host = fleet.serve_idle(&[]);
    let _agent = fleet.agent("left");
    connected(&fleet, "left", 1);
    done(&fleet, &["renew", "--all"]);
    connected(&fleet, "left", 2);
    until("the host has changed over", PATIENCE, || fleet.host_log().contains("has changed over to its new keys"));
}

#[test]
fn without_tls_beyond_this_machine_nothing_is_served_unless_asked_by_its_name() {
    let fleet = Fleet::new(programs_or_skip!(), &[], "all-host");
    let config = fs::read_to_string(fleet.path("host.toml")).expect("readable");
    let config = config.replace("plain = \"\"", "plain = \"0.0.0.0:0\"");
    fs::write(fleet.path("host.toml"), &config).expect("written");
    let (served, why) = fleet.host(&["serve"]);
    assert!(!served && why.contains("broker.dangerously_plain_beyond_loopback"), "{why}");
    let config = config.replace("[broker]\n", "[broker]\ndangerously_plain_beyond_loopback = true\n");
    fs::write(fleet.path("host.toml"), config).expect("written");
    let mut host = fleet.serve_idle(&[]);
    until("it serves", PATIENCE, || fleet.host_log().contains("boards connect here"));
    assert!(host.terminate(), "{}", fleet.host_log());
}

#[test]
fn no_secret_is_in_any_log() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-host");
    let _host = fleet.serve_idle_loudly();
    let mut agent = fleet.agent_loudly("left");
    connected(&fleet, "left", 1);
    done(&fleet, &["renew", "left"]);
    connected(&fleet, "left", 2);
    agent.kill();
    let mut secrets = vec![fs::read_to_string(fleet.path("left/sealing.key")).expect("readable")];
    for file in ["left/device.key", "host/authority/0001.pem"] {
        let pem = fs::read_to_string(fleet.path(file)).expect("readable");
        let key = pem.split("-----END PRIVATE").next().unwrap_or_default();
        secrets.extend(key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
    }
    assert!(secrets.len() >= 5, "the keys were read");
    let logs = [fleet.agent_log("left"), fleet.host_log()];
    assert!(logs.iter().all(|log| log.lines().count() > 20), "the logs are loud");
    for secret in secrets {
        // As text, and as the bytes that Debug prints of it.
        let bytes: Vec<String> = secret.as_bytes().chunks(2).take(4).filter_map(hexadecimal).collect();
        let listed = bytes.join(", ");
        for log in &logs {
            assert!(!log.contains(&secret), "a key is in a log");
            assert!(bytes.len() < 4 || !log.contains(&listed), "a key's bytes are in a log");
        }
    }
}

/// Two hexadecimal digits as the number that they write.
fn hexadecimal(digits: &[u8]) -> Option<String> {
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok().map(|byte| byte.to_string())
}

#[test]
fn an_external_broker_serves_with_the_folder_that_acl_writes_and_an_open_one_is_refused() {
    let programs = programs_or_skip!();
    let mosquitto = mosquitto_or_skip!();
    let fleet = Fleet::new(programs, &[], "all-host");
    let port = twin_tests::free_port();
    let folder = fleet.path("broker");
    done(&fleet, &["acl", "mosquitto", "--out", &folder, "--name", "localhost", "--port", &port.to_string()]);
    let config = fs::read_to_string(Path::new(&folder).join("twin.conf")).expect("it was written");
    let address = format!("mqtts://localhost:{port}");
    {
        let open = config.replace(&format!("acl_file {folder}/twin.acl\n"), "");
        assert_ne!(open, config);
        let _broker = fleet.mosquitto(mosquitto, &open, port);
        let (served, why) = fleet.host(&["serve", "--broker", &address]);
        assert!(!served && why.contains("does not keep devices apart"), "{why}");
    }
    let mut broker = fleet.mosquitto(mosquitto, &config, port);
    fleet.enroll("left", &["--host", "localhost", "--port", &port.to_string()]);
    fleet.equip("left", "left", 0);
    let mut host = fleet.serve_idle(&["--broker", &address]);
    let mut agent = fleet.agent("left");
    connected(&fleet, "left", 1);
    done(&fleet, &["renew", "left"]);
    connected(&fleet, "left", 2);
    broker.kill();
    until("the board notices", PATIENCE, || fleet.agent_log("left").contains(LOST));
    let _broker = fleet.mosquitto(mosquitto, &config, port);
    connected(&fleet, "left", 3);
    assert!(agent.is_running() && host.is_running());
    assert!(host.terminate(), "{}", fleet.host_log());
}

#[test]
fn rules_are_printed_for_each_product_and_others_are_named() {
    let folder = programs_or_skip!();
    for product in ["mosquitto", "emqx", "hivemq"] {
        let said = Command::new(folder.join("twin-host")).args(["acl", product]).stderr(Stdio::null()).output();
        let said = said.expect("twin-host starts");
        assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("up/telemetry"), "{product}");
    }
    let said = Command::new(folder.join("twin-host")).args(["acl", "rabbitmq"]).output().expect("twin-host starts");
    assert_eq!(said.status.code(), Some(2));
}
