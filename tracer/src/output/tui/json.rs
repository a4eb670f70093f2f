//! The same as one JSON object, whole: every row, not only those for which a screen has room.

use serde_json::{Value, json};

use super::StateKind;
use super::census::Since;
use super::rows::{Row, RowKey};
use super::state::State;
use crate::goroutines::LiveByState;
use crate::units::MonotonicNs;

/// What is known at this moment. Must be called after [`State::fill`].
#[must_use]
pub fn json(state: &State) -> Value {
    let diagnosis = state.diagnosis();
    json!({
        "pid": state.facts.pid,
        "exe": state.facts.name,
        "go_version": state.facts.go_version,
        "time_ns": state.now,
        "goroutines": live(state.live),
        "system": live(state.system),
        "created": state.totals.created,
        "exited": state.totals.exited,
        "blocked": state.totals.blocked,
        "running": state.totals.running,
        "lost": state.totals.lost,
        "uncertain": state.uncertain,
        "born_per_second": state.rates.map(|rates| rates.born),
        "died_per_second": state.rates.map(|rates| rates.died),
        "parks_per_second": state.rates.map(|rates| rates.parks),
        "detail": state.price.level,
        "target_cpu_share": state.price.target,
        "own_cpu_share": state.price.own,
        "group_by": state.query.group_by,
        "rows": state.rows.iter().map(|row| self::row(state, row)).collect::<Vec<_>>(),
        "findings": diagnosis.findings,
        "memory": diagnosis.memory,
        "forecast": diagnosis.forecast,
        "verdict": diagnosis.verdict,
        "proof": { "passes": state.proofs.passes(), "leaked": state.proofs.leaked() },
        "ended": state.ended,
    })
}

fn live(live: LiveByState) -> Value {
    json!({
        "live": live.total(),
        "runnable": live.runnable,
        "running": live.running,
        "blocked": live.blocked,
    })
}

fn row(state: &State, row: &Row) -> Value {
    let mut value = live(row.live);
    let more = match &row.key {
        RowKey::Site(id) => {
            let site = state.sites.get(*id);
            json!({
                "site": site.map(|site| &site.name),
                "start": site.map(|site| &site.start),
                "system": row.system,
                "created": site.map(|site| site.born),
                "exited": site.map(|site| site.died),
                "leaked": state.leaked_of(*id),
            })
        }
        RowKey::Start(start) => json!({ "start": start, "system": row.system }),
        RowKey::Reason(reason) => json!({ "reason": state.reason(*reason) }),
        RowKey::State(kind) => json!({ "state": StateKind::name(*kind) }),
    };
    let figures = json!({
        "net_per_second": row.net,
        "born_per_second": row.born,
        "died_per_second": row.died,
        "parks_per_second": row.parks,
        "stack_bytes": row.stack_bytes,
        "waits_for": row.waits.map(|reason| state.reason(reason)),
        "oldest_ns": row.oldest.map(|since| age(state.now, since)),
        "oldest_is_at_least": row.oldest.map(|since| since.at_least),
    });
    for part in [more, figures] {
        if let (Value::Object(all), Value::Object(part)) = (&mut value, part) {
            // What makes no sense for a row is left out.
            all.extend(part.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }
    value
}

fn age(now: MonotonicNs, since: Since) -> u64 {
    now.since(since.time)
}
