//! Does what it is installed by suffice, and no more?

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use gotracer_tests::Program;
use gotracer_tests::agent::{Agent, Folder};
use gotracer_tests::environment::{Skip, gotracer, require_root_and_bpf};
use libtest_mimic::Trial;
use serde_json::Value;

use super::{QUICK, check_evidence, checkout, count_folders, newest};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("agent::systemd_unit", systemd_unit),
        trial("agent::in_a_container_with_the_daemonset's_capabilities", in_a_container),
        trial("agent::the_daemonset_fits_together", daemonset),
    ]
}

fn systemd_unit() -> Result<()> {
    let unit = checkout("packaging/systemd/gotracer-agent.service");
    if !Path::new("/usr/bin/systemd-analyze").is_file() || !unit.is_file() {
        return Err(Skip("there is no systemd-analyze, or no checkout".into()).into());
    }
    let folder = Folder::new("unit")?;
    // Its program is not installed here.
    let text = fs::read_to_string(unit)?.replace("/usr/local/bin/gotracer", "/bin/true");
    let copy = folder.path().join("gotracer-agent.service");
    fs::write(&copy, text)?;
    let verified = Command::new("systemd-analyze").arg("verify").arg(&copy).output()?;
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    ensure!(verified.status.success() && !said.contains("gotracer-agent.service"), "{said}");
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=40", "--no-pager"])
        .arg(&copy)
        .output()?;
    ensure!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
    Ok(())
}

/// The capabilities that a list in brackets names, behind the first `before`.
fn listed(text: &str, before: &str) -> Result<Vec<String>> {
    let list =
        text.split_once(before).and_then(|(_, rest)| rest.split_once('[')).and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.with_context(|| format!("no list behind {before}"))?;
    Ok(list.split(',').map(|name| name.trim().to_lowercase()).collect())
}

/// Runs what stands behind it in an empty file system that cannot be written to, as the DaemonSet's container: the host's PIDs
/// and network, its capabilities and no way to others. Arguments: the root, the capabilities, the program.
const CONTAINER: &str = r#"
set -e
root=$1 capabilities=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --bind -o ro /sys "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --bind "$root/../state" "$root/var/lib/gotracer"
mount --bind "$root/../etc" "$root/etc/gotracer"
mount -o remount,bind,ro "$root"
exec setpriv --bounding-set "-all,$capabilities,+sys_chroot,+setpcap" --inh-caps=-all \
    capsh --no-new-privs "--chroot=$root" --drop=cap_sys_chroot,cap_setpcap --shell=/gotracer -- "$@"
"#;

/// The image of the Dockerfile is one file. A build that is not static brings its libraries along.
fn image(root: &Path) -> Result<()> {
    let gotracer = gotracer()?;
    for folder in ["proc", "sys", "etc/gotracer", "var/lib/gotracer", "var/log/pods"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(&gotracer, root.join("gotracer"))?;
    let output = Command::new("ldd").arg(&gotracer).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a library has a folder")?)?;
        fs::copy(library, to)?;
    }
    Ok(())
}

/// Another user's program, whose file only that user may read, is watched; its evidence is written; a signal reaches it.
fn in_a_container() -> Result<()> {
    require_root_and_bpf()?;
    for tool in ["unshare", "setpriv", "capsh", "ldd"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(Skip(format!("there is no {tool}")).into());
        }
    }
    let manifest = fs::read_to_string(checkout("packaging/kubernetes/daemonset.yaml"));
    let Ok(manifest) = manifest else { return Err(Skip("there is no checkout".into()).into()) };
    ensure!(listed(&manifest, "drop:")? == ["all"], "not all capabilities are dropped");
    let capabilities = listed(&manifest, "add:")?;
    let wanted: Vec<String> = capabilities.iter().map(|name| format!("+{name}")).collect();

    let folder = Folder::new("container")?;
    let root = folder.path().join("root");
    image(&root)?;
    fs::create_dir_all(folder.path().join("state"))?;
    fs::create_dir_all(folder.path().join("etc"))?;
    let theirs = folder.copy(&newest("degrading")?)?;
    let nobody = 65534;
    std::os::unix::fs::chown(&theirs, Some(nobody), Some(nobody))?;
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o500))?;
    let mut as_nobody = Command::new(&theirs);
    as_nobody.uid(nobody).gid(nobody);
    let mut program = Program::start_as(&mut as_nobody)?;

    let alarm = "[[alarm]]\nname = \"many\"\nfigure = \"goroutines\"\nabove = 100\nact = { signal = \"SIGUSR1\" }\n";
    let config = Agent::config(&folder, &format!("{QUICK}{alarm}"));
    let evidence = folder.path().join("evidence").display().to_string();
    let config = config.replace(&evidence, "/var/lib/gotracer/evidence");
    fs::write(folder.path().join("etc/agent.toml"), config)?;
    let mut agent = Agent::start_with(&folder, "", |command| {
        *command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", CONTAINER, "sh"]).arg(&root).arg(wanted.join(","));
        command.args(["-v", "agent", "--config", "/etc/gotracer/agent.toml"]);
    })?;
    agent.await_watched(program.pid())?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.child().pid()))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let held = u64::from_str_radix(field(set).context("no capabilities")?, 16)?;
        ensure!(held.count_ones() as usize == capabilities.len(), "{set} {held:x}, and {capabilities:?} are wanted");
    }
    ensure!(field("NoNewPrivs:") == Some("1"), "it could get more");
    // The signal is another user's to take.
    program.await_line("DEGRADED")?;
    program.await_line("RECOVERED")?;
    let written = folder.path().join("state/evidence");
    ensure!(count_folders(&written)? > 0, "no evidence");
    for entry in fs::read_dir(&written)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            check_evidence(&path)?;
        }
    }
    ensure!(agent.metrics()?.sum("gotracer_agent_errors_total", &[]) == 0.0, "{}", agent.child().stderr.so_far());
    agent.stop()
}

/// What one part of the manifest names, another has; and the agent takes the configuration in it.
fn daemonset() -> Result<()> {
    let path = checkout("packaging/kubernetes/daemonset.yaml");
    let parse = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new("/usr/bin/python3").args(["-c", parse]).arg(&path).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return Err(Skip("there is no python3 with yaml (Debian's package python3-yaml), or no checkout".into()).into());
    };
    let all: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let kinds: Vec<&str> = all.iter().filter_map(|one| one["kind"].as_str()).collect();
    ensure!(kinds == ["Namespace", "ConfigMap", "DaemonSet"], "{kinds:?}");
    let [namespace, config, set] = &all[..] else { bail!("{} objects", all.len()) };
    for one in [config, set] {
        ensure!(one["metadata"]["namespace"] == namespace["metadata"]["name"], "{one:#}");
    }
    let versions: Vec<&Value> = all.iter().map(|one| &one["apiVersion"]).collect();
    ensure!(versions == ["v1", "v1", "apps/v1"], "{versions:?}");
    let template = &set["spec"]["template"];
    ensure!(set["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"], "{template:#}");
    let pod = &template["spec"];
    ensure!(pod["hostPID"] == true && pod["automountServiceAccountToken"] == false, "{pod:#}");
    let containers = pod["containers"].as_array().context("no containers")?;
    let [container] = &containers[..] else { bail!("{} containers", containers.len()) };
    let security = &container["securityContext"];
    ensure!(security["privileged"].is_null() && security["allowPrivilegeEscalation"] == false, "{security:#}");
    ensure!(security["readOnlyRootFilesystem"] == true, "{security:#}");
    let names = |list: &Value| -> Result<BTreeSet<String>> {
        let list = list.as_array().context("no list")?;
        list.iter().map(|one| Ok(one["name"].as_str().context("no name")?.to_owned())).collect()
    };
    ensure!(names(&container["volumeMounts"])? == names(&pod["volumes"])?, "mounts and volumes differ");
    // The unit and the Dockerfile name the same capabilities; for locked memory they have a limit, which a pod has not.
    let mut wanted: Vec<String> = security["capabilities"]["add"]
        .as_array()
        .context("none")?
        .iter()
        .filter_map(|c| c.as_str().map(Into::into))
        .collect();
    wanted.sort();
    ensure!(wanted.contains(&"IPC_LOCK".to_owned()), "{wanted:?}");
    wanted.retain(|name| name != "IPC_LOCK");
    let unit = fs::read_to_string(checkout("packaging/systemd/gotracer-agent.service"))?;
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("none in the unit")?;
    let mut of_unit: Vec<String> = line.split(' ').map(|name| name.replace("CAP_", "")).collect();
    of_unit.sort();
    let dockerfile = fs::read_to_string(checkout("packaging/container/Dockerfile"))?;
    let mut of_docker: Vec<String> = dockerfile
        .split("--cap-add ")
        .skip(1)
        .filter_map(|rest| Some(rest.split_whitespace().next()?.to_owned()))
        .collect();
    of_docker.sort();
    ensure!(unit.contains("\nLimitMEMLOCK=infinity\n") && dockerfile.contains("--ulimit memlock=-1"), "no limits");
    ensure!(wanted == of_unit && wanted == of_docker, "{wanted:?}, {of_unit:?}, {of_docker:?}");

    let folder = Folder::new("daemonset")?;
    let (file, text) = config["data"].as_object().and_then(|data| data.iter().next()).context("no configuration")?;
    let mounted = container["volumeMounts"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "config"));
    let at = mounted.and_then(|mount| mount["mountPath"].as_str()).context("it is not mounted")?;
    let args: Vec<&str> = container["args"].as_array().context("no args")?.iter().filter_map(Value::as_str).collect();
    ensure!(args == ["agent", "--config", &format!("{at}/{file}")], "{args:?}");
    let copy = folder.path().join(file);
    fs::write(&copy, text.as_str().context("no text")?)?;
    let output = Command::new(gotracer()?).args(["agent", "--check", "--config"]).arg(&copy).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let probe = &container["livenessProbe"]["httpGet"];
    ensure!(probe["port"] == 9467 && probe["path"] == "/healthz", "{probe:#}");
    Ok(())
}
