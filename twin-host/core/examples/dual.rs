//! What `dual` takes in processor time, for machines that do other things as well:
//! `cargo run --release -p twin-core --example dual`.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::policy::{Dual, Policy};

/// Seconds that this thread has been on a processor, as Linux counts them.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let counted = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = counted.split_whitespace().next().ok_or("/proc/self/schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}

fn main() -> Result<(), Box<dyn Error>> {
    for devices in [10_000, 1_000_000] {
        let scenario = Family::fleet(devices)?.draw(&mut generator(7, 0))?;
        for _ in 0..5 {
            let (wall, processor) = (Instant::now(), processor_seconds()?);
            let decision = Dual.decide(&scenario, &mut generator(0, 0))?;
            let (wall, processor) = (wall.elapsed().as_secs_f64(), processor_seconds()? - processor);
            let gap = decision.certificate.map_or(f64::NAN, |certificate| certificate.gap);
            writeln!(
                std::io::stdout(),
                "{devices} devices: {processor:.4} s of a processor, {wall:.4} s in all, gap {gap:.1e}"
            )?;
        }
    }
    Ok(())
}
