//! Eq. (1)-(6) for one device: its delay by term, its price, and the load it puts on the shared budgets.

use super::problem::{Accuracy, Device, Scenario};
use twin_shared::model::Site;
use twin_shared::units::{Bits, GhzSeconds, Gigahertz, Hertz, Seconds};

/// A device's discrete decision: (m_i, x_i).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    /// Index of the student in [`Scenario::models`].
    pub model: u8,
    /// Where it is trained.
    pub site: Site,
}

/// What a choice asks of the budgets: A_i and B_i by their roots, and the part of Eq. (6) that no share changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// √A_i, A_i = μ_t + (1 - x) μ_m in GHz·s.
    pub compute_root: f64,
    /// √B_i, B_i = (θ_m + x θ_l) / e_i in Hz·s.
    pub channel_root: f64,
    /// α x μ_m / f_loc + β A_i - η_o Acc_own - η_a Acc_avg.
    pub fixed: f64,
}

/// An epoch's delay by term, Eq. (2)-(5); the label term is zero on the host.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Delay {
    /// T_tea.
    pub teacher: Seconds,
    /// x T_label.
    pub label: Seconds,
    /// T_stu.
    pub student: Seconds,
    /// T_model.
    pub model: Seconds,
}

impl Delay {
    /// The sum, as Eq. (6) weighs it: one thing after another.
    #[must_use]
    pub fn total(&self) -> Seconds {
        self.teacher + self.label + self.student + self.model
    }

    /// What the same terms take when they overlap, see [`Pipeline`], with labels in `blocks` blocks.
    ///
    /// On the board an epoch is a pipeline of three stages (teacher, label transfer, training) over `k` blocks: each
    /// stage works on a block while the next works on the one before, so the epoch takes
    /// `(T_tea + T_label + T_stu) / k + (1 - 1/k) max(T_tea, T_label, T_stu)`. On the host teacher and student take
    /// turns on one share, `T_tea + T_stu`. The state of an epoch crosses while the next one trains, so epochs follow
    /// each other every `max(that, T_label + T_model)`: labels and states share the channel.
    #[must_use]
    pub fn pipelined(&self, site: Site, blocks: u32) -> Pipeline {
        let k = f64::from(blocks.max(1));
        let train = match site {
            Site::Local => {
                let longest = self.teacher.0.max(self.label.0).max(self.student.0);
                (self.teacher.0 + self.label.0 + self.student.0) / k + (1.0 - 1.0 / k) * longest
            }
            Site::Host => self.teacher.0 + self.student.0,
        };
        Pipeline { first: Seconds(train) + self.model, period: Seconds(train.max(self.label.0 + self.model.0)) }
    }
}

/// An estimate with overlap: what deadlines are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pipeline {
    /// From the start of an epoch until its state has arrived on the other side.
    pub first: Seconds,
    /// Between the ends of two epochs when many follow each other.
    pub period: Seconds,
}

/// The parts of Eq. (6) for one device, weighted; their sum less `accuracy` is its objective.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CostTerms {
    /// α times the delay.
    pub delay: f64,
    /// β times the work bought.
    pub compute: f64,
    /// δ times the bandwidth bought.
    pub bandwidth: f64,
    /// η_o Acc_own + η_a Acc_avg.
    pub accuracy: f64,
}

impl CostTerms {
    /// The device's share of Eq. (6).
    #[must_use]
    pub fn objective(&self) -> f64 {
        self.cost() - self.accuracy
    }

    /// What is paid, before accuracy is credited; never negative.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.delay + self.compute + self.bandwidth
    }
}

impl Scenario {
    /// Whether Eq. (6)'s constraints let `device` have this choice.
    #[must_use]
    pub fn permits(&self, device: usize, choice: Choice) -> bool {
        let device = &self.devices[device];
        device.allows(usize::from(choice.model)) && (device.can_train || choice.site == Site::Host)
    }

    /// Calls `visit` with every permitted choice and its load, students in order, the board before the host.
    #[inline]
    pub fn for_each_load(&self, device: usize, mut visit: impl FnMut(Choice, Load)) {
        let board = &self.devices[device];
        let teacher_root = self.teacher_work(board).0.sqrt();
        let mut left = board.allowed;
        while left != 0 {
            let model = left.trailing_zeros() as u8;
            left &= left - 1;
            if board.can_train {
                let choice = Choice { model, site: Site::Local };
                visit(choice, self.load_of(board, choice, teacher_root));
            }
            let choice = Choice { model, site: Site::Host };
            visit(choice, self.load_of(board, choice, teacher_root));
        }
    }

    /// The load of one permitted choice.
    #[must_use]
    pub fn load(&self, device: usize, choice: Choice) -> Load {
        let board = &self.devices[device];
        self.load_of(board, choice, self.teacher_work(board).0.sqrt())
    }

    #[inline]
    fn load_of(&self, device: &Device, choice: Choice, teacher_root: f64) -> Load {
        let Choice { model, site } = choice;
        let w = &self.weights;
        let accuracy = self.accuracy_of(device, choice);
        let credit = w.accuracy_own * accuracy.own + w.accuracy_avg * accuracy.avg;
        let state = self.models[usize::from(model)].state.0;
        match site {
            Site::Local => Load {
                compute_root: teacher_root,
                channel_root: ((state + self.label_bits(device).0) / device.efficiency.0).sqrt(),
                fixed: w.delay * self.local_seconds(device, model).0 + w.compute * self.teacher_work(device).0 - credit,
            },
            Site::Host => {
                let work = self.teacher_work(device).0 + self.host_work(device, model).0;
                Load {
                    compute_root: work.sqrt(),
                    channel_root: (state / device.efficiency.0).sqrt(),
                    fixed: w.compute * work - credit,
                }
            }
        }
    }

    /// Acc_own and Acc_avg of a choice.
    #[must_use]
    pub fn accuracy(&self, device: usize, choice: Choice) -> Accuracy {
        self.accuracy_of(&self.devices[device], choice)
    }

    #[inline]
    fn accuracy_of(&self, device: &Device, choice: Choice) -> Accuracy {
        let model = usize::from(choice.model);
        let measured = device.measured.get(model).and_then(|m| match choice.site {
            Site::Local => m.local_accuracy,
            Site::Host => m.host_accuracy,
        });
        measured.unwrap_or(self.models[model].accuracy)
    }

    #[inline]
    fn teacher_work(&self, device: &Device) -> GhzSeconds {
        self.teacher.work * device.data_scale
    }

    #[inline]
    fn label_bits(&self, device: &Device) -> Bits {
        self.teacher.label_bits * device.data_scale
    }

    /// T_stu on the board, Eq. (3): measured, or work over frequency.
    #[inline]
    fn local_seconds(&self, device: &Device, model: u8) -> Seconds {
        let model = usize::from(model);
        let measured = device.measured.get(model).and_then(|m| m.local_seconds);
        measured.map_or_else(|| self.models[model].work * device.data_scale / device.frequency, Seconds)
    }

    /// μ_m on the host: measured seconds on all of it times f_ser, or the student's work.
    #[inline]
    fn host_work(&self, device: &Device, model: u8) -> GhzSeconds {
        let model = usize::from(model);
        let measured = device.measured.get(model).and_then(|m| m.host_seconds);
        measured.map_or_else(|| self.models[model].work * device.data_scale, |s| self.frequency * Seconds(s))
    }

    /// Eq. (2)-(5) for a choice and the shares it is given.
    #[must_use]
    pub fn delay(&self, device: usize, choice: Choice, frequency: Gigahertz, bandwidth: Hertz) -> Delay {
        let board = &self.devices[device];
        let rate = bandwidth * board.efficiency;
        let (label, student) = match choice.site {
            Site::Local => (self.label_bits(board) / rate, self.local_seconds(board, choice.model)),
            Site::Host => (Seconds(0.0), self.host_work(board, choice.model) / frequency),
        };
        Delay {
            teacher: self.teacher_work(board) / frequency,
            label,
            student,
            model: self.models[usize::from(choice.model)].state / rate,
        }
    }

    /// The terms of Eq. (6) for a choice and the shares it is given.
    #[must_use]
    pub fn cost_terms(&self, device: usize, choice: Choice, frequency: Gigahertz, bandwidth: Hertz) -> CostTerms {
        let board = &self.devices[device];
        let bought = self.teacher_work(board).0
            + match choice.site {
                Site::Local => 0.0,
                Site::Host => self.host_work(board, choice.model).0,
            };
        let accuracy = self.accuracy(device, choice);
        CostTerms {
            delay: self.weights.delay * self.delay(device, choice, frequency, bandwidth).total().0,
            compute: self.weights.compute * bought,
            bandwidth: self.weights.bandwidth * bandwidth.0,
            accuracy: self.weights.accuracy_own * accuracy.own + self.weights.accuracy_avg * accuracy.avg,
        }
    }
}
