//! How much of the best constant answer's regret a learned table closes on draws it has not seen, against episodes,
//! bins and levels.

use super::report::Mean;
use anyhow::Context;
use std::path::Path;
use tabled::settings::Style;
use twin_core::scheduler::Scenario;
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::learning::{QConfig, best_constant_of, train};
use twin_core::scheduler::mdp::Bins;
use twin_core::scheduler::policy::{BestConstant, Exact, Policy};

/// What to try.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    pub(crate) episodes: Vec<u64>,
    pub(crate) levels: Vec<u8>,
    pub(crate) trials: u64,
    pub(crate) seed: u64,
}

/// One table's result.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct LearnedRow {
    form: &'static str,
    bins: String,
    levels: u8,
    episodes: u64,
    /// Mean over held-out draws of Eq. (6) per device, above the optimum's.
    regret: f64,
    regret_half_width: f64,
    /// Part of the fixed best constant answer's regret that is gone.
    closed: f64,
    /// The same against the constant answer chosen afresh for each draw.
    closed_of_each: f64,
    states: usize,
    /// Actions tried, of those of the states met.
    tried: f64,
    /// Decisions of held-out draws made in a state that training had met.
    known: f64,
}

/// Objectives per device on the held-out draws.
struct Baselines {
    draws: Vec<Scenario>,
    best: Vec<f64>,
    constant_regret: f64,
    each_regret: f64,
}

impl Sweep {
    /// Trains and judges every combination: three grids of bins and the joint form for every number of episodes, and
    /// every number of levels at the most episodes.
    pub(crate) fn run(&self, family: &Family, progress: &mut dyn FnMut(f64)) -> anyhow::Result<Vec<LearnedRow>> {
        let baselines = self.baselines(family)?;
        let own = QConfig::sequential().bins;
        let coarse = Bins { frequency: 5, efficiency: 3, data_scale: 3, compute_sum: 3, channel_sum: 2, ..own };
        let fine = Bins { frequency: 15, efficiency: 8, data_scale: 12, compute_sum: 6, channel_sum: 4, ..own };
        let mut configs = Vec::new();
        for &episodes in &self.episodes {
            for bins in [coarse, own, fine] {
                configs.push(QConfig { bins, episodes, ..QConfig::sequential() });
            }
            configs.push(QConfig { episodes, ..QConfig::joint() });
        }
        let most = self.episodes.iter().copied().max().unwrap_or(1);
        configs.extend(self.levels.iter().map(|&levels| QConfig { episodes: most, ..QConfig::only(levels) }));
        let count = configs.len() as f64;
        let mut rows = Vec::with_capacity(configs.len());
        for (index, config) in configs.into_iter().enumerate() {
            let total = config.episodes as f64;
            let mut at = |done: u64| progress((index as f64 + done as f64 / total) / count);
            rows.push(self.row(family, &config.suited_to(family), &baselines, &mut at)?);
        }
        Ok(rows)
    }

    fn baselines(&self, family: &Family) -> anyhow::Result<Baselines> {
        let draws = |seed: u64| -> anyhow::Result<Vec<Scenario>> {
            let drawn = (0..self.trials).map(|draw| family.draw(&mut generator(seed, draw)));
            drawn.collect::<Result<_, _>>().context("the draws cannot be made")
        };
        let constant = best_constant_of(&draws(self.seed)?);
        let held_out = draws(self.seed.wrapping_add(1))?;
        let devices = family.devices() as f64;
        let rng = &mut generator(self.seed, u64::MAX - 1);
        let mut baselines = Baselines { draws: held_out, best: Vec::new(), constant_regret: 0.0, each_regret: 0.0 };
        let share = 1.0 / (devices * baselines.draws.len() as f64);
        for scenario in &baselines.draws {
            let best = Exact::default().decide(scenario, rng)?.objective;
            baselines.constant_regret += (BestConstant::with(scenario, constant).objective - best) * share;
            baselines.each_regret += (BestConstant.decide(scenario, rng)?.objective - best) * share;
            baselines.best.push(best / devices);
        }
        Ok(baselines)
    }

    fn row(
        &self,
        family: &Family,
        config: &QConfig,
        baselines: &Baselines,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<LearnedRow> {
        let table = train(family, Ok, config, &mut generator(self.seed, u64::MAX), progress)?.table;
        let devices = family.devices() as f64;
        let (mut regrets, mut known) = (Vec::new(), 0.0);
        for (scenario, best) in baselines.draws.iter().zip(&baselines.best) {
            let (decision, met) = table.decide_counting(scenario, "q-learning")?;
            regrets.push(decision.objective / devices - best);
            known += met / baselines.draws.len() as f64;
        }
        let regret = Mean::of(regrets.iter().copied());
        let b = config.bins;
        let bins = [b.frequency, b.efficiency, b.data_scale, b.compute_sum, b.channel_sum].map(|n| n.to_string());
        Ok(LearnedRow {
            form: if config.joint { "joint" } else { "sequential" },
            bins: bins.join("×"),
            levels: config.levels,
            episodes: config.episodes,
            regret: regret.mean,
            regret_half_width: regret.half_width,
            closed: 1.0 - regret.mean / baselines.constant_regret,
            closed_of_each: 1.0 - regret.mean / baselines.each_regret,
            states: table.states(),
            tried: table.tried_fraction(),
            known,
        })
    }
}

/// Writes `learning.csv` and `learning.md`; the table.
pub(crate) fn write(rows: &[LearnedRow], folder: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("learning.csv");
    let mut csv = csv::Writer::from_path(&path).with_context(|| format!("cannot write {}", path.display()))?;
    for row in rows {
        csv.serialize(row)?;
    }
    csv.flush()?;
    let mut table = tabled::builder::Builder::default();
    table.push_record([
        "form",
        "bins f×e×data×Σ√A×Σ√B",
        "levels",
        "episodes",
        "regret per device",
        "closed (%)",
        "of each draw's (%)",
        "states",
        "actions tried (%)",
        "known states (%)",
    ]);
    for row in rows {
        table.push_record([
            row.form.to_owned(),
            row.bins.clone(),
            row.levels.to_string(),
            row.episodes.to_string(),
            format!("{:.4} ± {:.4}", row.regret, row.regret_half_width),
            format!("{:.1}", row.closed * 100.0),
            format!("{:.1}", row.closed_of_each * 100.0),
            row.states.to_string(),
            format!("{:.1}", row.tried * 100.0),
            format!("{:.1}", row.known * 100.0),
        ]);
    }
    let text = format!("{}\n", table.build().with(Style::markdown()));
    let path = folder.join("learning.md");
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(text)
}
