//! What tracing may cost the target.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A share of the CPU time that the target uses, above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Budget(f64);

/// Why something is no budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// No number.
    #[error("`{0}` is no share; write a percentage, such as 1% or 0.5%")]
    NoShare(String),
    /// Nothing can be traced for nothing, and nobody has more than all.
    #[error("a budget is above 0% and at most 100% of the CPU time that the process uses, not `{0}`")]
    OutOfRange(String),
}

impl Budget {
    /// A budget of `share`, where 0.01 is one percent; `None` unless it is above 0 and at most 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// The share, above 0 and at most 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }
}

/// `1%`, `0.5%`, or a percentage without its sign.
impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let percent: f64 = number.parse().map_err(|_| BudgetError::NoShare(text.to_owned()))?;
        Self::new(percent / 100.0).ok_or_else(|| BudgetError::OutOfRange(text.to_owned()))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", (self.0 * 1e6).round() / 1e4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_percentage() {
        for (text, share) in [("1%", 0.01), ("0.5%", 0.005), ("5", 0.05), ("100%", 1.0), (" 2 %", 0.02)] {
            assert_eq!(text.parse::<Budget>().map(Budget::share), Ok(share), "{text}");
        }
        for text in ["0", "0%", "-1%", "200%", "100.1%", "inf", "NaN"] {
            assert_eq!(text.parse::<Budget>(), Err(BudgetError::OutOfRange(text.to_owned())), "{text}");
        }
        for text in ["", "%", "much", "1 percent", "1%%x"] {
            assert_eq!(text.parse::<Budget>(), Err(BudgetError::NoShare(text.to_owned())), "{text}");
        }
        assert_eq!("0.5%".parse::<Budget>().map(|budget| budget.to_string()), Ok("0.5%".to_owned()));
    }
}
