//! What every transport of the bus promises, tried on each: the cases of `promises.rs` run once inside one process and once over
//! a real RabbitMQ, started for this test. What only RabbitMQ can do wrong is in `broker.rs`.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod support;

/// Makes each promise a test of each transport.
#[cfg(test)]
macro_rules! on_both {
    ($($promise:ident),* $(,)?) => {
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                crate::promises::$promise(crate::support::Fixture::in_process(stringify!($promise))).await;
            })*
        }

        mod rabbit {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some(fixture) = crate::support::Fixture::rabbit(stringify!($promise)).await {
                    crate::promises::$promise(fixture).await;
                }
            })*
        }
    };
}

#[cfg(test)]
on_both!(
    a_message_published_is_consumed_once_and_gone_after_ack,
    work_is_shared_and_each_message_handled_once,
    what_a_message_is_on_behalf_of_goes_along,
    a_broadcast_reaches_every_subscriber,
    a_broadcast_nobody_listens_to_is_no_error,
    a_rejected_message_becomes_a_dead_letter,
    a_retried_message_comes_back_and_finally_becomes_a_dead_letter,
    a_dropped_delivery_comes_again,
    a_delivery_always_dropped_becomes_a_dead_letter,
    a_failing_broadcast_is_retried_once_and_then_dropped,
    looking_at_a_dead_letter_does_not_lose_it,
    prefetch_bounds_what_a_subscriber_holds,
    a_dropped_subscription_gives_back_what_it_had,
    a_delivery_outlives_its_subscription,
    waiting_for_a_message_can_be_given_up,
    a_message_too_large_is_refused,
    impossible_names_are_refused,
    a_full_work_queue_refuses,
    a_slow_broadcast_subscriber_loses_the_oldest,
    shutting_down_ends_subscriptions_and_publishing,
);
