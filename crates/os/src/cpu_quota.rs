//! How much CPU time the control groups of this process let it have: beyond that the kernel suspends all of its threads until
//! the next period begins.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::ProcessCGroups;
use profiler_model::Nanos;

use crate::proc_file::parsed;

/// Where the controller of CPU time is mounted, by convention: of the second version, and of the first.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const SEPARATE: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];

/// CPU time per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// How much CPU time all threads of the group may use in a period.
    pub time: Nanos,
    /// The length of a period.
    pub period: Nanos,
}

impl CpuQuota {
    /// The smallest share that a control group of this process has, or `None` where there is no limit.
    pub fn own() -> Option<CpuQuota> {
        let groups = parsed(Path::new("/proc/self/cgroup")).ok()?;
        folders(&groups).iter().filter_map(|folder| CpuQuota::of_folder(folder)).min_by(CpuQuota::by_share)
    }

    fn of_folder(folder: &Path) -> Option<CpuQuota> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        match read("cpu.max") {
            Some(limit) => CpuQuota::parse(&limit),
            None => {
                let (time, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
                CpuQuota::parse(&format!("{} {}", time.trim(), period.trim()))
            }
        }
    }

    /// From microseconds of CPU time and of the period; without a limit the first is `max` or -1.
    fn parse(text: &str) -> Option<CpuQuota> {
        let mut micros =
            text.split_whitespace().map(|word| word.parse::<u64>().ok().filter(|micros| *micros > 0));
        let mut next =
            || micros.next().flatten().map(|micros| Nanos::from_nanos(micros.saturating_mul(1000)));
        Some(CpuQuota { time: next()?, period: next()? })
    }

    fn by_share(&self, other: &CpuQuota) -> std::cmp::Ordering {
        let share = |quota: &CpuQuota| quota.time.as_secs_f64() / quota.period.as_secs_f64();
        share(self).total_cmp(&share(other))
    }
}

/// The folders of the groups that limit CPU time, with all above them. Inside a container the path may lead nowhere, and
/// the group is what is mounted.
fn folders(groups: &ProcessCGroups) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for group in &groups.0 {
        let mounts = match group.controllers.as_slice() {
            [] => UNIFIED,
            controllers if controllers.iter().any(|controller| controller == "cpu") => SEPARATE,
            _ => continue,
        };
        let above = Path::new(group.pathname.trim_start_matches('/')).ancestors();
        folders.extend(above.flat_map(|group| mounts.map(|mount| Path::new(mount).join(group))));
    }
    folders
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;

    use super::*;

    #[test]
    fn quotas_are_read_in_microseconds() {
        let quota = |time: u64, period: u64| {
            Some(CpuQuota { time: Nanos::from_nanos(time * 1000), period: Nanos::from_nanos(period * 1000) })
        };
        assert_eq!(CpuQuota::parse("5000 100000\n"), quota(5000, 100_000));
        assert_eq!(CpuQuota::parse("max 100000\n"), None);
        assert_eq!(CpuQuota::parse("-1 100000"), None);
        assert_eq!(CpuQuota::parse(""), None);
        let (small, large) = (quota(10_000, 200_000).unwrap(), quota(6000, 100_000).unwrap());
        assert!(small.by_share(&large).is_lt());
    }

    #[test]
    fn groups_are_looked_for_with_all_above_them() {
        let found = folders(
            &ProcessCGroups::from_read(b"9:memory:/m\n3:cpu,cpuacct:/a/b\n0::/c\n".as_slice()).unwrap(),
        );
        let has = |path: &str| found.contains(&PathBuf::from(path));
        assert!(
            has("/sys/fs/cgroup/cpu/a/b")
                && has("/sys/fs/cgroup/cpu,cpuacct/a")
                && has("/sys/fs/cgroup/cpu/")
        );
        assert!(has("/sys/fs/cgroup/c") && has("/sys/fs/cgroup/unified/c"));
        assert!(!found.iter().any(|path| path.ends_with("m")));
    }
}
