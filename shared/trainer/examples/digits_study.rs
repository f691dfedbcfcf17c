//! study
use std::path::Path;
use std::time::Instant;
use tch::Device;
use twin_data::digits;
use twin_learn::Run;
use twin_learn::epoch::EpochRun;
use twin_learn::evaluate::EvaluateRun;
use twin_learn::fedavg::FedAvgRun;
use twin_learn::fedsgd::TeacherRun;
use twin_learn::init::InitRun;
use twin_shared::model::Architecture as A;
use twin_shared::pipe::*;
use twin_shared::plan::*;
fn go(mut r: impl Run) -> Outcome {
    loop {
        if let Some(o) = r.step().unwrap().outcome {
            return o;
        }
    }
}
fn arg<T: std::str::FromStr>(n: &str, d: T) -> T {
    std::env::args().find_map(|a| a.strip_prefix(&format!("{n}=")).and_then(|v| v.parse().ok())).unwrap_or(d)
}
fn pc(s: Score) -> f64 {
    100.0 * s.fraction().unwrap_or(0.0)
}
fn main() {
    tch::set_num_threads(arg("threads", 2));
    let per_class: usize = arg("per", 10);
    let te: u32 = arg("te", 30);
    let tb: u32 = arg("tb", 16);
    let tlr: f64 = arg("tlr", 0.05);
    let se: u32 = arg("se", 30);
    let sb: u32 = arg("sb", 16);
    let slr: f64 = arg("slr", 0.05);
    let alr: f64 = arg("alr", 0.05);
    let pad: u8 = arg("pad", 2);
    let tarch: A = arg("tarch", A::Resnet8x4);
    let part = if arg("test", 0) == 1 { Part::Train } else { Part::Held };
    let students = [arg("s0", A::Vgg8), arg("s1", A::Resnet8x4), arg("s2", A::Resnet14x4), arg("s3", A::Resnet8x4)];
    let wd: f64 = arg("wd", 7.5e-4);
    let ar: u32 = arg("fedavg", 0);
    let boards: Vec<Vec<u16>> =
        vec![vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9], vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]];
    let from: u64 = arg("from", 1);
    for seed in from..from + arg("seeds", 1u64) {
        let dir = std::env::temp_dir().join(format!("study-{}-{seed}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let p = |n: &str| dir.join(n).to_string_lossy().into_owned();
        let all = digits::read(Path::new("data/digits/digits.csv.gz")).unwrap();
        let split = digits::split(&all, &boards, per_class, seed).unwrap();
        for (i, s) in split.boards.iter().enumerate() {
            s.write(&dir.join(format!("b{i}"))).unwrap();
        }
        split.test.write(&dir.join("test")).unwrap();
        let aug = Augmentation { crop_padding: pad, flip: arg("flip", 0) == 1 };
        let t0 = Instant::now();
        let job = TeacherJob {
            architecture: tarch,
            classes: 10,
            twins: (0..4).map(|i| p(&format!("b{i}"))).collect(),
            recipe: Recipe { learning_rate: tlr, momentum: 0.9, weight_decay: wd, epochs: te },
            batch: TeacherBatch::PerTwin(tb),
            augmentation: aug,
            seed,
            checkpoint: None,
            out: p("teacher"),
        };
        let keep: String = arg("keep", String::new());
        let saved = format!("{keep}/teacher");
        let (steps, o) = if !keep.is_empty() && Path::new(&saved).exists() {
            std::fs::copy(&saved, p("teacher")).unwrap();
            (0, "kept".to_string())
        } else {
            let run = TeacherRun::new(job, Device::Cpu).unwrap();
            let steps = run.steps();
            let o = format!("{:?}", go(run));
            if !keep.is_empty() {
                std::fs::create_dir_all(&keep).unwrap();
                std::fs::copy(p("teacher"), &saved).unwrap();
            }
            (steps, o)
        };
        let counts: Vec<Vec<u32>> = split.boards.iter().map(|b| b.label_counts()).collect();
        let eval = |w: &str, t: Option<String>| {
            let Outcome::Evaluation(e) = go(EvaluateRun::new(
                EvaluateJob { weights: p(w), teacher: t, dataset: p("test"), part, devices: counts.clone() },
                Device::Cpu,
            )
            .unwrap()) else {
                panic!()
            };
            e
        };
        let tt = t0.elapsed().as_secs_f64();
        let e = eval("teacher", None);
        println!(
            "seed {seed} teacher {steps} steps {tt:.1}s {o:?} full {:.1} of {}",
            pc(e.full_top1),
            e.full_top1.total
        );
        println!(
            "   teacher personal {:?}",
            e.devices.iter().map(|d| format!("{:.1}", pc(d.private_personal))).collect::<Vec<_>>()
        );
        if ar > 0 {
            let t = Instant::now();
            go(FedAvgRun::new(
                FedAvgJob {
                    architecture: arg("farch", A::Resnet8x4),
                    classes: 10,
                    twins: (0..4).map(|i| p(&format!("b{i}"))).collect(),
                    rounds: ar,
                    local_epochs: arg("fle", 1),
                    recipe: Recipe { learning_rate: arg("flr", 0.05), momentum: 0.9, weight_decay: wd, epochs: ar },
                    normalisation: if arg("group", 0) == 1 { Normalisation::Group } else { Normalisation::Batch },
                    batch: sb,
                    augmentation: aug,
                    fine_tune_epochs: 0,
                    seed,
                    checkpoint: None,
                    out: p("fedavg"),
                },
                Device::Cpu,
            )
            .unwrap());
            let secs = t.elapsed().as_secs_f64();
            let e = eval("fedavg", None);
            println!(
                "   fedavg {secs:.1}s full {:.1} personal {:?}",
                pc(e.full_top1),
                e.devices
                    .iter()
                    .map(|d| format!("{:.1}/{:.1}", pc(d.private_top1), pc(d.private_personal)))
                    .collect::<Vec<_>>()
            );
        }
        if arg("students", 1) == 0 {
            continue;
        }
        for (i, &a) in students.iter().enumerate() {
            if !arg("boards", "0123".to_string()).contains(&i.to_string()) {
                continue;
            }
            let mut line = format!("   board {i} {a}");
            for (name, method) in [("kd", Method::SimKd), ("alone", Method::CrossEntropy)] {
                if !arg("methods", "kd,alone".to_string()).contains(name) {
                    continue;
                }
                let mut last = 0.0;
                let t = Instant::now();
                let s = p(&format!("{name}{i}"));
                let m = p(&format!("{name}{i}.m"));
                go(InitRun::new(InitStudentJob {
                    architecture: a,
                    method,
                    teacher: p("teacher"),
                    classes: 10,
                    seed: seed * 100 + i as u64,
                    out: s.clone(),
                })
                .unwrap());
                for epoch in 0..se {
                    let labels = if name == "kd" {
                        LabelSource::Teacher {
                            weights: p("teacher"),
                            kind: if arg("map", 0) == 1 { LabelKind::Map } else { LabelKind::Vector },
                        }
                    } else {
                        LabelSource::None
                    };
                    let lr = if name == "kd" { slr } else { alr };
                    if let Outcome::Student { loss, .. } = go(EpochRun::new(
                        EpochJob {
                            architecture: a,
                            method,
                            state: s.clone(),
                            momentum: (epoch > 0).then(|| m.clone()),
                            dataset: p(&format!("b{i}")),
                            plan: EpochPlan { seed, epoch, batch: sb, augmentation: aug },
                            recipe: Recipe { learning_rate: lr, momentum: 0.9, weight_decay: wd, epochs: se },
                            labels,
                            state_out: s.clone(),
                            momentum_out: Some(m.clone()),
                        },
                        Device::Cpu,
                    )
                    .unwrap())
                    {
                        last = loss;
                    }
                }
                let secs = t.elapsed().as_secs_f64();
                let e = eval(&format!("{name}{i}"), (name == "kd").then(|| p("teacher")));
                let d = &e.devices[i];
                line += &format!(
                    " | {name} {secs:.1}s loss {last:.4} full {:.1} own {:.1} personal {:.1} unseen {:.1} ({})",
                    pc(e.full_top1),
                    pc(d.private_top1),
                    pc(d.private_personal),
                    pc(d.unseen_top1),
                    d.private_top1.total
                );
            }
            println!("{line}");
        }
        let _ = std::fs::remove_dir_all(&dir);
    }
}
