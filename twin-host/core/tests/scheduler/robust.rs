//! Arbitrary scenarios: refused with a name, or answered by every policy without panic or NaN.

use proptest::prelude::*;
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::policy::PolicyKind;
use twin_core::scheduler::{RawScenario, Scenario};

fn magnitude() -> BoxedStrategy<f64> {
    prop_oneof![8 => (-4.0..4.0f64).prop_map(|e| 10f64.powf(e)), 1 => (-30.0..30.0f64).prop_map(|e| 10f64.powf(e))]
        .boxed()
}

/// Any number a file can hold.
fn any_number() -> BoxedStrategy<f64> {
    prop_oneof![magnitude(), Just(0.0), Just(-1.0), Just(1e-30), Just(1e30), Just(1e300), Just(f64::MAX)].boxed()
}

fn weight() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), magnitude()]
}

fn model(index: usize, number: BoxedStrategy<f64>) -> impl Strategy<Value = serde_json::Value> {
    (prop::collection::vec(number, 2), 0.0..=1.0f64, 0.0..=1.0f64).prop_map(move |(numbers, own, avg)| {
        serde_json::json!({
            "name": format!("m{index}"), "work_ghz_s": numbers[0], "parameter_bits": numbers[1],
            "accuracy_own": own, "accuracy_avg": avg,
        })
    })
}

fn device(index: usize, models: usize, number: BoxedStrategy<f64>) -> impl Strategy<Value = serde_json::Value> {
    let numbers = prop::collection::vec(number.clone(), 3);
    (numbers, any::<bool>(), 0..models, 0..4u8, prop::option::of(number)).prop_map(
        move |(numbers, can_train, only, kind, cap)| {
            let mut device = serde_json::json!({
                "id": format!("d{index}"), "frequency_ghz": numbers[0], "spectral_efficiency": numbers[1],
                "data_scale": numbers[2], "can_train": can_train,
            });
            if kind == 0 {
                device["models"] = serde_json::json!([format!("m{only}")]);
            }
            if kind == 1 {
                device["seconds"] =
                    serde_json::json!({ format!("m{only}"): { "local": numbers[0], "host": numbers[1] } });
                device["accuracy"] = serde_json::json!({ format!("m{only}"): { "own": 0.5, "avg": 0.25 } });
            }
            if kind == 2 {
                device["rate_cap_bps"] = serde_json::json!(cap);
                device["bandwidth_group"] = serde_json::json!("wire");
            }
            device
        },
    )
}

fn scenario(number: BoxedStrategy<f64>) -> impl Strategy<Value = serde_json::Value> {
    (1usize..5, 1usize..4).prop_flat_map(move |(devices, models)| {
        let models_of: Vec<_> = (0..models).map(|index| model(index, number.clone())).collect();
        let devices_of: Vec<_> = (0..devices).map(|index| device(index, models, number.clone())).collect();
        let shared = prop::collection::vec(number.clone(), 6);
        (shared, prop::collection::vec(weight(), 4), models_of, devices_of).prop_map(|(n, w, models, devices)| {
            serde_json::json!({
                "server": { "frequency_ghz": n[0], "bandwidth_hz": n[1] },
                "weights": {
                    "delay": n[2], "compute": w[0], "bandwidth": w[1], "accuracy_own": w[2], "accuracy_avg": w[3],
                },
                "teacher": { "work_ghz_s": n[3], "label_bits": n[4] },
                "bandwidth_groups": [{ "name": "wire", "bandwidth_hz": n[5] }],
                "models": models, "devices": devices,
            })
        })
    })
}

fn read(json: serde_json::Value) -> Result<Scenario, twin_core::scheduler::ScenarioError> {
    Scenario::try_from(serde_json::from_value::<RawScenario>(json).expect("every key has the right type"))
}

/// Every policy's answer must be made of numbers, permitted, and within the budgets.
fn check(scenario: &Scenario) -> Result<(), TestCaseError> {
    let family = Family::around(scenario.clone());
    for kind in PolicyKind::ALL {
        let config = kind.training().map(|config| config.suited_to(&family).within(800, scenario.devices().len()));
        let rng = &mut generator(1, 0);
        // A perturbed device can fall out of range at the very edge; that is an error, not a panic.
        let Ok((policy, _)) = kind.prepare(&family, config.as_ref(), rng, &mut |_| {}) else { continue };
        let Ok(decision) = policy.decide(scenario, rng) else { continue };
        prop_assert!(decision.objective.is_finite(), "{kind}: {decision:?}");
        if let Some(certificate) = decision.certificate {
            prop_assert!(certificate.lower_bound.is_finite() && certificate.gap.is_finite(), "{kind}: {certificate:?}");
            prop_assert!(certificate.lower_bound <= decision.objective && certificate.gap >= 0.0);
        }
        let mut bandwidths = vec![0.0; scenario.bandwidths().len()];
        let mut frequency = 0.0;
        for (index, device) in decision.devices.iter().enumerate() {
            prop_assert!(scenario.permits(index, device.choice), "{kind}");
            let delay = device.delay;
            let all = [delay.teacher, delay.label, delay.student, delay.model].map(|term| term.0);
            prop_assert!(all.iter().all(|term| term.is_finite() && *term >= 0.0), "{kind}: {delay:?}");
            bandwidths[scenario.devices()[index].group()] += device.bandwidth.0;
            frequency += device.frequency.0;
        }
        prop_assert!(frequency <= scenario.frequency().0 * (1.0 + 1e-9), "{kind}");
        for (used, budget) in bandwidths.iter().zip(scenario.bandwidths()) {
            prop_assert!(*used <= budget.0 * (1.0 + 1e-9), "{kind}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sound_scenarios_are_answered_by_every_policy(json in scenario(magnitude())) {
        match read(json) {
            Ok(scenario) => check(&scenario)?,
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn unsound_scenarios_are_refused_by_name_or_answered(json in scenario(any_number())) {
        match read(json) {
            Ok(scenario) => check(&scenario)?,
            Err(error) => prop_assert!(error.to_string().contains('`'), "{error}"),
        }
    }

    #[test]
    fn a_scenario_reads_back_from_its_file(json in scenario(magnitude())) {
        if let Ok(scenario) = read(json) {
            let text = serde_json::to_string(&RawScenario::from(&scenario)).expect("it has only numbers and names");
            let again = read(serde_json::from_str(&text).expect("it was just written")).expect("it was sound");
            prop_assert_eq!(scenario, again);
        }
    }
}

#[test]
fn errors_name_the_key_and_the_device() {
    let sound = || {
        serde_json::json!({
            "server": { "frequency_ghz": 1.0, "bandwidth_hz": 1e6 },
            "weights": { "delay": 1.0, "compute": 0.0, "bandwidth": 0.0, "accuracy_own": 0.0, "accuracy_avg": 0.0 },
            "teacher": { "work_ghz_s": 1.0, "label_bits": 1e6 },
            "models": [{ "name": "m", "work_ghz_s": 1.0, "parameter_bits": 1e6, "accuracy_own": 0.5, "accuracy_avg": 0.5 }],
            "devices": [{ "id": "a", "frequency_ghz": 1.0, "spectral_efficiency": 4.0 }],
        })
    };
    assert!(read(sound()).is_ok());
    let cases: [(&str, serde_json::Value, &[&str]); 9] = [
        ("/devices/0/frequency_ghz", serde_json::json!(-1.0), &["device a", "`frequency_ghz`"]),
        ("/devices/0/spectral_efficiency", serde_json::Value::Null, &["device a", "spectral_efficiency"]),
        ("/devices/0/models", serde_json::json!([]), &["device a", "`models`"]),
        ("/devices/0/models", serde_json::json!(["x"]), &["device a", "`models`", "\"x\""]),
        ("/devices/0/frequencyghz", serde_json::json!(1.0), &["device a", "`frequencyghz`", "`frequency_ghz`"]),
        ("/devices", serde_json::json!([]), &["`devices`"]),
        ("/models", serde_json::json!([]), &["`models`"]),
        ("/weights/delay", serde_json::json!(0.0), &["[weights]", "`delay`"]),
        ("/teacher/label_bits", serde_json::Value::Null, &["[teacher]", "`label_bits`"]),
    ];
    for (path, value, wanted) in cases {
        let mut json = sound();
        let (parent, key) = path.rsplit_once('/').expect("a path has a parent");
        json.pointer_mut(parent).expect("the parent is there")[key] = value;
        let error = read(json).expect_err(path).to_string();
        assert!(wanted.iter().all(|word| error.contains(word)) && error.lines().count() == 1, "{path}: {error}");
    }
}
