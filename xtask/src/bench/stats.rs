//! Repeated measurements, told by a middle and by what lies around it.
//!
//! The median and the range, because the machine may be shared: what others do adds to some rounds and takes from none.
//! Where the effect is smaller than the noise, the mean of many, and how sure it is.

use std::fmt;

/// The middle of some measurements, and the bounds around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// The median, least and most. Of nothing there is none: `None`.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { middle: f64::midpoint(lower, upper), low, high })
    }

    /// The mean, and between what it lies by 95 %: 1.96 of its standard errors away, which is right for thirty measurements
    /// or more. Of less than two `None`.
    pub fn of_mean(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = 1.96 * (squares / (count - 1.0) / count).sqrt();
        (values.len() > 1).then_some(Self { middle: mean, low: mean - error, high: mean + error })
    }
}

/// `middle (low to high)`, with the precision asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(0);
        if self.low == self.high {
            return write!(f, "{:.precision$}", self.middle);
        }
        write!(f, "{:.precision$} ({:.precision$} to {:.precision$})", self.middle, self.low, self.high)
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
        assert_eq!((spread.middle, spread.low, spread.high), (3.0, 1.0, 100.0));
        assert_eq!(format!("{spread:.1}"), "3.0 (1.0 to 100.0)");
        assert_eq!(Spread::of([7.0]).map(|s| s.to_string()), Some("7".to_owned()));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_mean_is_as_sure_as_its_standard_error() {
        // A variance of 4 among 100 values: an error of 0.2.
        let values = (0..100).map(|n| if n % 2 == 0 { 8.0 } else { 12.0 });
        let spread = Spread::of_mean(values).expect("a hundred values");
        assert!((spread.middle - 10.0).abs() < 1e-9);
        assert!((spread.high - spread.low - 2.0 * 1.96 * 0.2).abs() < 0.01, "{spread:.3}");
        assert_eq!(Spread::of_mean([1.0]), None);
    }
}
