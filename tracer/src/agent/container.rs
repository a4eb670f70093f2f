//! In which container and pod a process runs, and what memory its cgroup gives it.
//!
//! In: the text of /proc/PID/cgroup, and the names of the kubelet's log folders. Out: ids and names, where these tell them.
//! Asks no container runtime and no API server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::units::Pid;

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The cgroup's path, of the one hierarchy or of the one for memory.
    pub cgroup: String,
    /// The container's id.
    pub id: Option<String>,
    /// The pod's uid.
    pub pod_uid: Option<String>,
}

impl Container {
    /// Of a process; nothing is known of one that is gone.
    #[must_use]
    pub fn of(pid: Pid) -> Self {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// From the lines `hierarchy:controllers:path`.
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            Some((parts.next()?, parts.next()?, parts.next()?))
        });
        let mut chosen = "";
        for (hierarchy, controllers, path) in lines {
            let memory = controllers.split(',').any(|controller| controller == "memory");
            if memory || (hierarchy == "0" && chosen.is_empty()) {
                chosen = path;
            }
        }
        let mut container = Self { cgroup: chosen.to_owned(), ..Self::default() };
        for part in chosen.split('/') {
            if let Some(uid) = pod_uid(part) {
                container.pod_uid = Some(uid);
            }
            if let Some(id) = container_id(part) {
                container.id = Some(id.to_owned());
            }
        }
        container
    }

    /// The folder of the cgroup below `mounted`, as far as it is in sight.
    #[must_use]
    pub fn folder(&self, mounted: &Path) -> Option<PathBuf> {
        // Seen from another cgroup namespace the path climbs out of our sight.
        if !self.cgroup.starts_with('/') || self.cgroup.split('/').any(|part| part == "..") {
            return None;
        }
        let path = &self.cgroup[1..];
        [mounted.join(path), mounted.join("memory").join(path)].into_iter().find(|folder| folder.is_dir())
    }
}

/// The lowest limit of memory on the way from the cgroup at `folder` to the root at `mounted`; `None`: unlimited.
#[must_use]
pub fn memory_limit(folder: &Path, mounted: &Path) -> Option<u64> {
    let limit_in = |folder: &Path| std::fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok();
    folder.ancestors().take_while(|folder| folder.starts_with(mounted)).filter_map(limit_in).min()
}

/// 64 hexadecimal digits, behind what the runtime put before them: `docker-ID.scope`, `cri-containerd-ID.scope`, `ID`.
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// `podUID`, or as systemd has it, `kubepods-burstable-podUID.slice` with `_` for `-`.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.rsplit_once("-pod") {
        Some((before, uid)) if before.starts_with("kubepods") => uid,
        _ => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // A uid, or for a static pod the hash of its manifest.
    let fits = (uid.len() == 36 || uid.len() == 32) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    fits.then_some(uid)
}

/// Names of pods by uid, from the folders that the kubelet makes for logs: `NAMESPACE_NAME_UID`.
#[derive(Debug, Default)]
pub struct PodNames {
    names: HashMap<String, (String, String)>,
    read: Option<Instant>,
}

impl PodNames {
    /// Where the kubelet's folders may be: ours, or the host's seen from a container.
    const FOLDERS: [&str; 2] = ["/var/log/pods", "/proc/1/root/var/log/pods"];

    /// Namespace and name of the pod.
    pub fn of(&mut self, uid: &str) -> Option<(String, String)> {
        const AT_MOST_EVERY: Duration = Duration::from_secs(5);
        if !self.names.contains_key(uid) && self.read.is_none_or(|read| read.elapsed() > AT_MOST_EVERY) {
            self.read = Some(Instant::now());
            self.names = Self::FOLDERS.iter().find_map(|folder| read_names(Path::new(folder))).unwrap_or_default();
        }
        self.names.get(uid).cloned()
    }
}

fn read_names(folder: &Path) -> Option<HashMap<String, (String, String)>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| pod_name(entry.ok()?.file_name().to_str()?));
    Some(names.collect())
}

fn pod_name(folder: &str) -> Option<(String, (String, String))> {
    let mut parts = folder.splitn(3, '_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    Some((uid.to_owned(), (namespace.to_owned(), name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f9a1c0d3f9a1c0d3f9a1c0d3f9a1c0d3f9a1c0d3f9a1c0d3f9a1c0d3f9a1c0d";
    const UID: &str = "0b1c2d3e-0b1c-0b1c-0b1c-0b1c2d3e4f50";

    fn of(path: &str) -> (Option<String>, Option<String>) {
        let container = Container::parse(&format!("0::{path}\n"));
        assert_eq!(container.cgroup, path);
        (container.id, container.pod_uid)
    }

    #[test]
    fn ids_in_the_paths_of_the_known_runtimes() {
        let both = (Some(ID.to_owned()), Some(UID.to_owned()));
        let systemd = UID.replace('-', "_");
        assert_eq!(of(&format!("/docker/{ID}")), (Some(ID.to_owned()), None));
        assert_eq!(of(&format!("/system.slice/docker-{ID}.scope")), (Some(ID.to_owned()), None));
        assert_eq!(of(&format!("/machine.slice/libpod-{ID}.scope/container")), (Some(ID.to_owned()), None));
        assert_eq!(of(&format!("/kubepods/burstable/pod{UID}/{ID}")), both);
        let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice");
        assert_eq!(of(&format!("{slice}/cri-containerd-{ID}.scope")), both);
        assert_eq!(of(&format!("{slice}/crio-{ID}.scope")), both);
        assert_eq!(of(&format!("/../../kubepods-pod{systemd}.slice/cri-containerd-{ID}.scope")), both);
        assert_eq!(of("/user.slice/user-1000.slice/session-2.scope"), (None, None));
        assert_eq!(of("/pods/podium"), (None, None));
    }

    #[test]
    fn of_several_hierarchies_the_one_for_memory() {
        let container = Container::parse(&format!("12:cpu:/a\n3:memory:/docker/{ID}\n0::/b\n"));
        assert_eq!((container.cgroup.as_str(), container.id.as_deref()), (format!("/docker/{ID}").as_str(), Some(ID)));
        assert_eq!(Container::parse(""), Container::default());
    }

    #[test]
    fn pod_names_from_folders() {
        let read = pod_name(&format!("kube-system_coredns-abc_{UID}"));
        assert_eq!(read, Some((UID.to_owned(), ("kube-system".to_owned(), "coredns-abc".to_owned()))));
        assert_eq!(pod_name("lost+found"), None);
    }
}
