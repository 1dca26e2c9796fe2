//! How many files, and so connections, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises what this process may have open to the most that it may ask for; shells and service managers usually start programs with 1,024. Gives what
/// it is then; none when there is no limit. A refusal changes nothing.
#[must_use = "it says how many connections there may be"]
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "cannot raise the number of files that may be open");
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_most() {
        let most = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), most);
        assert_eq!(raise_limit(), most, "again, to no effect");
    }
}
