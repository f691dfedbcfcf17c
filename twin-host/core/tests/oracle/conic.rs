//! Problem 3 by a general conic solver: the oracle for the closed form, never a part of the program.

use clarabel::algebra::CscMatrix;
use clarabel::solver::{
    DefaultSettings, DefaultSolver, IPSolver, NonnegativeConeT, SecondOrderConeT, SolverStatus, SupportedConeT,
};

/// Minimises Σ weight_i² / s_i + price Σ s_i over s > 0 with Σ s_i ≤ total and s_i ≤ caps_i (infinite for none);
/// the shares, or nothing if the solver gives up.
///
/// With t_i ≥ weight_i² / s_i written as ‖(2 weight_i, t_i - s_i)‖ ≤ t_i + s_i, it is a second-order cone program.
/// Shares are scaled by total / N before the solver sees them, costs by the largest weight.
pub(crate) fn shares(total: f64, price: f64, weights: &[f64], caps: &[f64]) -> Option<Vec<f64>> {
    let n = weights.len();
    let unit = total / n as f64;
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let scaled: Vec<f64> = weights.iter().map(|w| w / largest).collect();
    // Σ w² / s / unit + price unit Σ s, times unit / largest².
    let slope = price * unit * unit / (largest * largest);
    let (mut rows, mut columns, mut values, mut right) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut entry = |row: usize, column: usize, value: f64| {
        rows.push(row);
        columns.push(column);
        values.push(value);
    };
    let mut cones: Vec<SupportedConeT<f64>> = Vec::new();
    // Variables: s_0 … s_n-1, t_0 … t_n-1.
    (0..n).for_each(|i| entry(0, i, 1.0));
    right.push(n as f64);
    for (i, &cap) in caps.iter().enumerate().filter(|(_, cap)| cap.is_finite()) {
        entry(right.len(), i, 1.0);
        right.push(cap / unit);
    }
    cones.push(NonnegativeConeT(right.len()));
    for (i, weight) in scaled.iter().enumerate() {
        let row = right.len();
        entry(row, i, -1.0);
        entry(row, n + i, -1.0);
        entry(row + 2, i, 1.0);
        entry(row + 2, n + i, -1.0);
        right.extend([0.0, 2.0 * weight, 0.0]);
        cones.push(SecondOrderConeT(3));
    }
    let a = CscMatrix::new_from_triplets(right.len(), 2 * n, rows, columns, values);
    let p = CscMatrix::zeros((2 * n, 2 * n));
    let q: Vec<f64> = (0..2 * n).map(|i| if i < n { slope } else { 1.0 }).collect();
    let settings = DefaultSettings {
        verbose: false,
        tol_gap_abs: 1e-12,
        tol_gap_rel: 1e-12,
        tol_feas: 1e-12,
        ..DefaultSettings::default()
    };
    let mut solver = DefaultSolver::new(&p, &q, &a, &right, &cones, settings).ok()?;
    solver.solve();
    let status = solver.solution.status;
    let solved = status == SolverStatus::Solved || status == SolverStatus::AlmostSolved;
    solved.then(|| solver.solution.x[..n].iter().map(|s| s * unit).collect())
}
