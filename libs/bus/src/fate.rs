//! What becomes of a message that was not acknowledged: the rules both transports share.

use std::time::Duration;

use crate::limits::{BROADCAST_MAX_DELIVERIES, MAX_DELIVERIES, RETRY_DELAY_MAX, RETRY_DELAY_MIN};
use crate::{DEAD_SUFFIX, Fanout, Topic};

/// The three kinds of queues behind topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A work queue with a dead-letter queue.
    Work,
    /// A dead-letter queue: nothing lies behind it.
    Dead,
    /// One subscriber's queue of a broadcast.
    Broadcast,
}

/// Where a message goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Back into its queue.
    Requeue,
    /// To the dead-letter queue.
    DeadLetter,
    /// Nowhere.
    Discard,
}

impl Role {
    pub(crate) fn of(topic: &Topic) -> Self {
        match topic.fanout {
            Fanout::Broadcast => Self::Broadcast,
            Fanout::Work if topic.name.ends_with(DEAD_SUFFIX) => Self::Dead,
            Fanout::Work => Self::Work,
        }
    }

    /// The subscriber says it never will succeed.
    pub(crate) fn rejected(self) -> Fate {
        match self {
            Self::Work => Fate::DeadLetter,
            Self::Dead | Self::Broadcast => Fate::Discard,
        }
    }

    /// The subscriber failed, or vanished, at the `deliveries`th delivery (counted from 1).
    pub(crate) fn failed(self, deliveries: u32) -> Fate {
        match self {
            Self::Work if deliveries >= MAX_DELIVERIES => Fate::DeadLetter,
            Self::Broadcast if deliveries >= BROADCAST_MAX_DELIVERIES => Fate::Discard,
            // A dead letter is only ever removed on purpose: by ack, reject, or newer ones.
            Self::Work | Self::Dead | Self::Broadcast => Fate::Requeue,
        }
    }
}

/// The pause before a message that failed at its `deliveries`th delivery comes back.
pub(crate) fn retry_delay(deliveries: u32) -> Duration {
    let doublings = deliveries.saturating_sub(1).min(16);
    RETRY_DELAY_MIN.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::{Fate, Role, retry_delay};
    use crate::Topic;
    use crate::limits::{MAX_DELIVERIES, RETRY_DELAY_MAX, RETRY_DELAY_MIN};

    #[test]
    fn roles_follow_from_topics() {
        assert_eq!(Role::of(&Topic::work("a")), Role::Work);
        assert_eq!(Role::of(&Topic::work("a").dead()), Role::Dead);
        assert_eq!(Role::of(&Topic::work("a").dead().dead()), Role::Dead);
        assert_eq!(Role::of(&Topic::broadcast("a")), Role::Broadcast);
    }

    #[test]
    fn work_is_retried_then_dead_and_dead_letters_stay() {
        assert_eq!(Role::Work.failed(1), Fate::Requeue);
        assert_eq!(Role::Work.failed(MAX_DELIVERIES - 1), Fate::Requeue);
        assert_eq!(Role::Work.failed(MAX_DELIVERIES), Fate::DeadLetter);
        assert_eq!(Role::Dead.failed(u32::MAX), Fate::Requeue);
        assert_eq!(Role::Broadcast.failed(1), Fate::Requeue);
        assert_eq!(Role::Broadcast.failed(2), Fate::Discard);
    }

    #[test]
    fn retries_slow_down_up_to_a_limit() {
        assert_eq!(retry_delay(1), RETRY_DELAY_MIN);
        assert_eq!(retry_delay(2), RETRY_DELAY_MIN * 2);
        assert_eq!(retry_delay(u32::MAX), RETRY_DELAY_MAX);
    }
}
