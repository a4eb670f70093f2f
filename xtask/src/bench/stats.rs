//! Repeated measurements, told by their median and their range.
//!
//! The median, because the machine may be shared: what others do adds to some rounds and takes from none.

use std::fmt;

/// Median, least and most of some measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of nothing there is no median: `None`.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// `median (least to most)`, with the precision asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(0);
        if self.min == self.max {
            return write!(f, "{:.precision$}", self.median);
        }
        write!(f, "{:.precision$} ({:.precision$} to {:.precision$})", self.median, self.min, self.max)
    }
}

/// As [`Spread`]'s text; a dash where nothing was measured.
pub fn shown(spread: Option<Spread>, precision: usize) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| format!("{spread:.precision$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 2.0, 100.0]).expect("four values");
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 100.0));
        assert_eq!(format!("{spread:.1}"), "3.0 (1.0 to 100.0)");
        assert_eq!(Spread::of([7.0]).map(|s| s.to_string()), Some("7".to_owned()));
        assert_eq!(Spread::of([]), None);
    }
}
