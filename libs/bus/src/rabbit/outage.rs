//! What to say about a broker that is away: once when it goes, a reminder now and then, once when it is back. Every attempt in between
//! fails for the same reason, and lines about each would bury everything else.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::OUTAGE_REMINDER_EVERY;

/// The time since the broker was last reachable. Time is passed in.
#[derive(Debug, Default)]
pub(super) struct Outage {
    began: Option<Instant>,
    said: Option<Instant>,
}

/// What a failed attempt is worth saying.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// The first failure.
    Began,
    /// It has been away for this long.
    StillAway(Duration),
    /// It was said a moment ago.
    Nothing,
}

impl Outage {
    /// The connection was lost, or an attempt to connect failed.
    pub(super) fn failed(&mut self, now: Instant) -> Say {
        let began = *self.began.get_or_insert(now);
        match self.said {
            Some(said) if now.duration_since(said) < OUTAGE_REMINDER_EVERY => return Say::Nothing,
            Some(_) => {}
            None => {
                self.said = Some(now);
                return Say::Began;
            }
        }
        self.said = Some(now);
        Say::StillAway(now.duration_since(began))
    }

    /// Connected: how long it was away, if it was.
    pub(super) fn over(&mut self, now: Instant) -> Option<Duration> {
        self.said = None;
        self.began.take().map(|began| now.duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_recalled_each_minute_and_ends() {
        let mut outage = Outage::default();
        let start = Instant::now();
        assert_eq!(outage.over(start), None, "it was never away");
        assert_eq!(outage.failed(start), Say::Began);
        let (mut reminders, mut at) = (Vec::new(), start);
        for _ in 0..130 {
            at += Duration::from_secs(1);
            match outage.failed(at) {
                Say::StillAway(so_long) => reminders.push(so_long.as_secs()),
                said => assert_eq!(said, Say::Nothing),
            }
        }
        assert_eq!(reminders, [60, 120]);
        assert_eq!(outage.over(at), Some(Duration::from_secs(130)));
        assert_eq!(outage.failed(at), Say::Began, "a new one");
    }
}
