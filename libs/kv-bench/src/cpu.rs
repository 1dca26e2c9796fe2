//! CPU time of processes, from `/proc/PID/stat`.

use std::time::Duration;

/// Length of the kernel's unit in `/proc/PID/stat`: USER_HZ is 100 on every Linux that Rust's standard library runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time that these processes have used so far, all their threads included; nothing when it cannot be read.
#[must_use]
pub fn used_by(processes: &[u32]) -> Option<Duration> {
    let used = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        ticks(&stat).map(|ticks| TICK * ticks)
    };
    if processes.is_empty() {
        return None;
    }
    processes.iter().map(used).sum()
}

/// The sum of `utime` and `stime`, fields 14 and 15. The second field, the program's name in parentheses, may itself hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11); // from field 3 on to field 14
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 11 0 0 0 123 45 7 8 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(168));
        assert_eq!(ticks("42 nonsense"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        assert!(used_by(&[std::process::id()]).is_some());
        assert_eq!(used_by(&[]), None);
    }
}
