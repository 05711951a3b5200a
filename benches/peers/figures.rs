//! From runs to figures: medians, spreads, and what becomes of runs that went wrong.

use std::fmt;
use std::time::Duration;

use crate::program::Program;

/// What a good run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Bytes.
    pub(crate) peak: u64,
    /// Bytes.
    pub(crate) read: u64,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Good(Sample),
    /// It ended, and not everything had arrived as it should.
    Failed(String),
    /// It had not ended after this time.
    Overtime(Duration),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(sample) => write!(f, "{:.3} s", sample.wall.as_secs_f64()),
            Self::Failed(reason) => write!(f, "FAILED: {reason}"),
            Self::Overtime(limit) => write!(f, "> {} s", limit.as_secs()),
        }
    }
}

/// What a program's runs come to. One that went wrong counts more than all that went well.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Seconds.
    Took { median: f64, least: f64, most: f64 },
    /// How many of how many failed.
    Failed { bad: usize, of: usize },
    /// The limit, seconds.
    Overtime(f64),
}

/// One program in one case.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) program: String,
    pub(crate) is_ours: bool,
    pub(crate) verdict: Verdict,
    /// Medians of the good runs; `None` without any. Seconds.
    pub(crate) cpu: Option<f64>,
    /// Bytes.
    pub(crate) peak: Option<f64>,
    /// Bytes.
    pub(crate) read: Option<f64>,
}

impl Row {
    pub(crate) fn new(program: &Program, outcomes: Vec<Outcome>) -> Self {
        let good: Vec<_> =
            outcomes.iter().filter_map(|o| if let Outcome::Good(s) = o { Some(*s) } else { None }).collect();
        let of_all = |figure: fn(&Sample) -> f64| median(good.iter().map(figure).collect());
        Self {
            program: program.label().to_owned(),
            is_ours: program.is_ours(),
            verdict: verdict(&outcomes, &good),
            cpu: of_all(|sample| sample.cpu.as_secs_f64()),
            peak: of_all(|sample| sample.peak as f64),
            read: of_all(|sample| sample.read as f64),
        }
    }

    /// Median seconds, if every run was good.
    pub(crate) fn seconds(&self) -> Option<f64> {
        if let Verdict::Took { median, .. } = self.verdict { Some(median) } else { None }
    }
}

fn verdict(outcomes: &[Outcome], good: &[Sample]) -> Verdict {
    let bad = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
    let overtime = outcomes.iter().find_map(|o| if let Outcome::Overtime(limit) = o { Some(*limit) } else { None });
    let walls: Vec<_> = good.iter().map(|sample| sample.wall.as_secs_f64()).collect();
    match (bad, overtime, median(walls.clone())) {
        (0, None, Some(median)) => Verdict::Took {
            median,
            least: walls.iter().copied().fold(f64::INFINITY, f64::min),
            most: walls.iter().copied().fold(0.0, f64::max),
        },
        (0, Some(limit), _) => Verdict::Overtime(limit.as_secs_f64()),
        _ => Verdict::Failed { bad, of: outcomes.len() },
    }
}

/// The median; of an even number the mean of the middle two. `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The smallest value that at least this share (0 to 1) of the values doesn't exceed. `None` of nothing.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}
