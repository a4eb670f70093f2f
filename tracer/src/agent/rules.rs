//! Which processes are wanted.
//!
//! In: what is known of a process before it is attached to. Out: yes, or which rule said no. Pure.

use super::config::{Config, Match, Pattern, RuleAction};

/// What rules look at.
#[derive(Clone, Debug, Default)]
pub struct Traits {
    /// The executable's path, as its own namespace has it.
    pub exe: String,
    /// The command line.
    pub args: String,
    /// The container's id.
    pub container: Option<String>,
    /// The cgroup's path.
    pub cgroup: String,
}

impl Match {
    /// Whether all patterns that are given fit.
    #[must_use]
    pub fn fits(&self, traits: &Traits) -> bool {
        fit([&self.exe, &self.args, &self.container, &self.cgroup], traits)
    }
}

fn fit([exe, args, container, cgroup]: [&Option<Pattern>; 4], traits: &Traits) -> bool {
    let one = |pattern: &Option<Pattern>, text: &str| pattern.as_ref().is_none_or(|p| p.0.is_match(text));
    one(exe, &traits.exe)
        && one(args, &traits.args)
        && one(cgroup, &traits.cgroup)
        && container.as_ref().is_none_or(|p| traits.container.as_deref().is_some_and(|id| p.0.is_match(id)))
}

/// The number, from 1, of the rule that denies a process; `None`: it is to be watched.
#[must_use]
pub fn denied_by(config: &Config, traits: &Traits) -> Option<usize> {
    let fits = |rule: &&super::config::RuleConfig| fit([&rule.exe, &rule.args, &rule.container, &rule.cgroup], traits);
    let (at, rule) = config.rule.iter().enumerate().find(|(_, rule)| fits(rule))?;
    (rule.action == RuleAction::Deny).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(exe: &str, container: Option<&str>) -> Traits {
        Traits {
            exe: exe.into(),
            args: format!("{exe} serve"),
            container: container.map(Into::into),
            cgroup: "/x".into(),
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let config = Config::parse(
            r#"
            [[rule]]
            action = "allow"
            exe = "shop"
            args = "serve$"
            [[rule]]
            action = "deny"
            container = "^abc"
            [[rule]]
            action = "deny"
            exe = "^/usr/bin/"
            "#,
        )
        .expect("right");
        assert_eq!(denied_by(&config, &traits("/usr/bin/shop", Some("abcdef"))), None);
        assert_eq!(denied_by(&config, &traits("/usr/bin/other", Some("abcdef"))), Some(2));
        assert_eq!(denied_by(&config, &traits("/usr/bin/other", None)), Some(3));
        assert_eq!(denied_by(&config, &traits("/opt/other", Some("ff"))), None, "where none fits, it is watched");
    }
}
