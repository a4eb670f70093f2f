//! What a real Prometheus makes of it: the dashboard's queries and the alert rules.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::child::poll;
use gotracer_tests::environment::{Skip, require_root_and_bpf};
use libtest_mimic::Trial;

use super::{check_evidence, checkout, count_folders, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("agent::every_query_of_the_dashboard_and_the_alert_in_a_real_prometheus", dashboard),
        trial("agent::alert_rules", alert_rules),
    ]
}

/// What the dashboard asks is answered by a Prometheus that scrapes an agent beside a program that leaks; and that fires.
fn dashboard() -> Result<()> {
    require_root_and_bpf()?;
    let prometheus = Path::new("/usr/bin/prometheus");
    let (dashboard, alerts) = (checkout("dashboards/goroutines.json"), checkout("dashboards/alerts.yml"));
    if !prometheus.is_file() || !dashboard.is_file() {
        return Err(Skip("there is no /usr/bin/prometheus (Debian's package prometheus), or no checkout".into()).into());
    }
    let folder = Folder::new("dashboard")?;
    let path = folder.copy(&newest("leakyserver")?)?;
    // 150 goroutines a second stay.
    let program = Program::start_as(Command::new(&path).args(["-load", "200"]).env("GOMEMLIMIT", "1GiB"))?;
    // Growth over so short a time as elsewhere is now and then below what the alert wants for 15 s without a break.
    let quick = "[metrics]\nsample_interval = \"2s\"\nsnapshot_interval = \"1s\"\n[proof]\ncpu_percent = 100\n";
    let agent = Agent::start(&folder, quick)?;
    agent.await_watched(program.pid())?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = folder.path().join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: gotracer\n  static_configs: [{{targets: ['{}']}}]\n",
            alerts.display(),
            agent.address()
        ),
    )?;
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _running = gotracer_tests::child::Running::start("prometheus", &mut command)?;
    let address = format!("127.0.0.1:{port}").parse()?;
    let query = |expression: &str| -> Result<serde_json::Value> {
        let escaped: String = expression.bytes().map(|b| format!("%{b:02x}")).collect();
        let (_, body) = gotracer_tests::agent::ask(address, &format!("/api/v1/query?query={escaped}"), "")?;
        // A large answer comes in chunks: from the first { to the last }.
        let text = String::from_utf8_lossy(&body).into_owned();
        let (start, end) = (text.find('{').context("no JSON")?, text.rfind('}').context("no JSON")?);
        let mut whole = String::new();
        for line in text[start..=end].split("\r\n") {
            let is_size = !line.is_empty() && line.len() < 8 && line.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_size {
                whole += line;
            }
        }
        serde_json::from_str(&whole).with_context(|| text.clone())
    };
    // A rate needs some scrapes, and the prover some seconds.
    poll(|| {
        let enough = "count_over_time(go_goroutines[1m]) > 5 and count without (site, file, line, verdict) (gotracer_proof_goroutines)";
        let Ok(answer) = query(&format!("count({enough})")) else { return Ok(None) };
        Ok((!answer["data"]["result"].as_array().context("no result")?.is_empty()).then_some(()))
    })?;
    // What cannot be there: no memory limit that is neared, no losses, no errors.
    const MAY_BE_EMPTY: [&str; 5] = [
        "gotracer_memory_forecast_seconds",
        "_lost_total",
        "_errors_total",
        "gotracer_alarm_firing",
        "gotracer_findings",
    ];
    let dashboard: serde_json::Value = serde_json::from_slice(&fs::read(dashboard)?)?;
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("no expr")?;
            let expression =
                ["$host", "$process", "$pid", "$site"].iter().fold(expression.to_owned(), |e, v| e.replace(v, ".*"));
            let expression = expression.replace("$__rate_interval", "15s");
            let answer = query(&expression)?;
            ensure!(answer["status"] == "success", "{}: {expression}\n{answer:#}", panel["title"]);
            let empty = answer["data"]["result"].as_array().is_none_or(Vec::is_empty);
            let may = MAY_BE_EMPTY.iter().any(|name| expression.contains(name));
            ensure!(!empty || may, "{}: nothing comes of {expression}", panel["title"]);
            queries += 1;
        }
    }
    ensure!(queries > 20, "{queries} queries");
    // The alert: it waits for 15 s without a break, and a busy machine has breaks.
    gotracer_tests::child::poll_within(Duration::from_secs(180), || {
        let answer = query("ALERTS{alertname=\"GoroutinesGrow\",alertstate=\"firing\"}")?;
        Ok(answer["data"]["result"].as_array().and_then(|all| all.first().cloned()))
    })
    .context("the alert does not fire")?;
    // And the agent's own alarms, with their defaults, have secured the evidence.
    let evidence = folder.path().join("evidence");
    poll(|| Ok((count_folders(&evidence)? > 0).then_some(())))?;
    for entry in fs::read_dir(&evidence)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            check_evidence(&path)?;
        }
    }
    drop(program);
    agent.stop()
}

fn alert_rules() -> Result<()> {
    let folder = checkout("dashboards");
    if !Path::new("/usr/bin/promtool").is_file() || !folder.is_dir() {
        return Err(Skip("there is no /usr/bin/promtool (Debian's package prometheus), or no checkout".into()).into());
    }
    let output =
        Command::new("/usr/bin/promtool").args(["test", "rules", "alerts_test.yml"]).current_dir(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
