//! The promises of the crate, each a test for any transport.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::limits::{BROADCAST_QUEUE_MAX, MAX_DELIVERIES, MESSAGE_MAX_BYTES, TOPIC_NAME_MAX_BYTES, WORK_QUEUE_MAX};
use bus::{PublishError, Topic};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::support::{Fixture, SOON, body, next, nothing, number};

pub(crate) async fn a_message_published_is_consumed_once_and_gone_after_ack(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    // Before anybody subscribes: a work queue keeps it.
    bus.publish(&topic, body(1)).await.unwrap();
    let mut subscription = bus.subscribe(&topic, 10).await;
    let delivery = next(&mut subscription).await;
    assert_eq!(number(&delivery.body), 1);
    assert!(!delivery.redelivered);
    delivery.ack().await;
    drop(subscription);

    let mut subscription = bus.subscribe(&topic, 10).await;
    bus.publish(&topic, body(2)).await.unwrap();
    let delivery = next(&mut subscription).await;
    assert_eq!(number(&delivery.body), 2, "the acknowledged message came again");
    delivery.ack().await;
}

pub(crate) async fn what_a_message_is_on_behalf_of_goes_along(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = trace::Context::read(Some(parent), Some("team=drones"), Some("id-7"));
    let scope = trace::Scope::new(context.clone(), &trace::Tracer::off());
    trace::within(scope, bus.publish(&topic, body(1))).await.unwrap();
    bus.publish(&topic, body(2)).await.unwrap();
    let mut subscription = bus.subscribe(&topic, 1).await;
    let delivery = next(&mut subscription).await;
    assert_eq!((number(&delivery.body), &delivery.context), (1, &context));
    delivery.retry().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut subscription).await;
        seen.push((number(&delivery.body), delivery.context.clone()));
        delivery.ack().await;
    }
    seen.sort_by_key(|(number, _)| *number);
    assert_eq!(
        seen,
        [(1, context), (2, trace::Context::default())],
        "retried, it is on behalf of the same"
    );
}

pub(crate) async fn work_is_shared_and_each_message_handled_once(fixture: Fixture) {
    const MESSAGES: usize = 90;
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut workers = Vec::new();
    let (done, mut handled) = tokio::sync::mpsc::unbounded_channel();
    for worker in 0..3 {
        let mut subscription = bus.subscribe(&topic, 5).await;
        let done = done.clone();
        workers.push(tokio::spawn(async move {
            while let Some(delivery) = subscription.next().await {
                let number = number(&delivery.body);
                // Gives the others a chance, as work does.
                tokio::time::sleep(Duration::from_millis(2)).await;
                delivery.ack().await;
                done.send((worker, number)).expect("the test listens");
            }
        }));
    }
    for number in 0..MESSAGES {
        bus.publish(&topic, body(number)).await.unwrap();
    }
    let (mut numbers, mut busy) = (Vec::new(), BTreeSet::new());
    for _ in 0..MESSAGES {
        let (worker, number) = timeout(SOON, handled.recv())
            .await
            .expect("every message is handled")
            .unwrap();
        numbers.push(number);
        busy.insert(worker);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(busy.len(), 3, "some worker got nothing");
    fixture.shutdown.cancel();
    for worker in workers {
        timeout(SOON, worker).await.expect("the subscription ends").unwrap();
    }
}

pub(crate) async fn a_broadcast_reaches_every_subscriber(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.broadcast());
    let mut subscriptions = Vec::new();
    for _ in 0..3 {
        subscriptions.push(bus.subscribe(&topic, 10).await);
    }
    // One that left takes nothing from the others.
    drop(bus.subscribe(&topic, 10).await);
    for number in 0..20 {
        bus.publish(&topic, body(number)).await.unwrap();
    }
    for subscription in &mut subscriptions {
        for expected in 0..20 {
            let delivery = next(subscription).await;
            assert_eq!(number(&delivery.body), expected);
            delivery.ack().await;
        }
        nothing(subscription).await;
    }
}

pub(crate) async fn a_broadcast_nobody_listens_to_is_no_error(fixture: Fixture) {
    fixture.bus.publish(&fixture.broadcast(), body(1)).await.unwrap();
    let mut late = fixture.bus.subscribe(&fixture.broadcast(), 10).await;
    nothing(&mut late).await;
}

pub(crate) async fn a_rejected_message_becomes_a_dead_letter(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut subscription = bus.subscribe(&topic, 10).await;
    let mut dead = bus.subscribe(&topic.dead(), 10).await;
    bus.publish(&topic, Bytes::from_static(b"not json")).await.unwrap();
    next(&mut subscription).await.reject().await;
    let letter = next(&mut dead).await;
    assert_eq!(letter.body, "not json");
    assert!(!letter.redelivered);
    letter.ack().await;
    nothing(&mut subscription).await;
}

pub(crate) async fn a_retried_message_comes_back_and_finally_becomes_a_dead_letter(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut subscription = bus.subscribe(&topic, 10).await;
    let mut dead = bus.subscribe(&topic.dead(), 10).await;
    bus.publish(&topic, body(1)).await.unwrap();
    let start = Instant::now();
    for delivered in 0..MAX_DELIVERIES {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.redelivered, delivered > 0);
        delivery.retry().await;
    }
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "retries must slow down, these took {:?}",
        start.elapsed()
    );
    let letter = next(&mut dead).await;
    assert_eq!(number(&letter.body), 1);
    letter.ack().await;
    nothing(&mut subscription).await;
}

pub(crate) async fn a_dropped_delivery_comes_again(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut subscription = bus.subscribe(&topic, 10).await;
    bus.publish(&topic, body(1)).await.unwrap();
    drop(next(&mut subscription).await);
    let delivery = next(&mut subscription).await;
    assert!(delivery.redelivered);
    assert_eq!(number(&delivery.body), 1);
    // Answering counts only once it has begun.
    drop(delivery.ack());
    let delivery = next(&mut subscription).await;
    delivery.ack().await;
    nothing(&mut subscription).await;
}

pub(crate) async fn a_delivery_always_dropped_becomes_a_dead_letter(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut subscription = bus.subscribe(&topic, 10).await;
    bus.publish(&topic, body(1)).await.unwrap();
    for _ in 0..MAX_DELIVERIES {
        drop(next(&mut subscription).await);
    }
    let mut dead = bus.subscribe(&topic.dead(), 10).await;
    next(&mut dead).await.ack().await;
    nothing(&mut subscription).await;
}

pub(crate) async fn a_failing_broadcast_is_retried_once_and_then_dropped(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.broadcast());
    let mut subscription = bus.subscribe(&topic, 10).await;
    bus.publish(&topic, body(1)).await.unwrap();
    next(&mut subscription).await.retry().await;
    let again = next(&mut subscription).await;
    assert!(again.redelivered);
    again.retry().await;
    nothing(&mut subscription).await;
    bus.publish(&topic, body(2)).await.unwrap();
    next(&mut subscription).await.reject().await;
    nothing(&mut subscription).await;
}

pub(crate) async fn looking_at_a_dead_letter_does_not_lose_it(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut subscription = bus.subscribe(&topic, 10).await;
    bus.publish(&topic, body(1)).await.unwrap();
    next(&mut subscription).await.reject().await;
    for _ in 0..2 * MAX_DELIVERIES {
        let mut dead = bus.subscribe(&topic.dead(), 10).await;
        drop(next(&mut dead).await);
    }
    let mut dead = bus.subscribe(&topic.dead(), 10).await;
    next(&mut dead).await.ack().await;
    nothing(&mut dead).await;
}

pub(crate) async fn prefetch_bounds_what_a_subscriber_holds(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    for number in 0..5 {
        bus.publish(&topic, body(number)).await.unwrap();
    }
    let mut subscription = bus.subscribe(&topic, 2).await;
    let first = next(&mut subscription).await;
    let second = next(&mut subscription).await;
    nothing(&mut subscription).await;
    // What one may not hold, another may.
    let mut other = bus.subscribe(&topic, 1).await;
    let third = next(&mut other).await;
    assert_eq!(number(&third.body), 2);
    first.ack().await;
    let fourth = next(&mut subscription).await;
    assert_eq!(number(&fourth.body), 3);
    nothing(&mut subscription).await;
    for delivery in [second, third, fourth] {
        delivery.ack().await;
    }
}

pub(crate) async fn a_dropped_subscription_gives_back_what_it_had(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    for number in 0..3 {
        bus.publish(&topic, body(number)).await.unwrap();
    }
    let mut first = bus.subscribe(&topic, 10).await;
    let held = next(&mut first).await;
    drop(first);
    let mut second = bus.subscribe(&topic, 10).await;
    // The two it had not looked at come while the third is still in hand.
    let mut numbers = BTreeSet::new();
    for _ in 0..2 {
        let delivery = next(&mut second).await;
        numbers.insert(number(&delivery.body));
        delivery.ack().await;
    }
    nothing(&mut second).await;
    numbers.insert(number(&held.body));
    drop(held);
    let delivery = next(&mut second).await;
    assert!(delivery.redelivered);
    delivery.ack().await;
    assert_eq!(numbers.len(), 3);
}

pub(crate) async fn a_delivery_outlives_its_subscription(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    bus.publish(&topic, body(1)).await.unwrap();
    let mut subscription = bus.subscribe(&topic, 10).await;
    let delivery = next(&mut subscription).await;
    drop(subscription);
    delivery.ack().await;
    let mut subscription = bus.subscribe(&topic, 10).await;
    nothing(&mut subscription).await;
}

pub(crate) async fn waiting_for_a_message_can_be_given_up(fixture: Fixture) {
    const MESSAGES: usize = 50;
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut subscription = bus.subscribe(&topic, 4).await;
    let publisher = async {
        for number in 0..MESSAGES {
            bus.publish(&topic, body(number)).await.unwrap();
        }
    };
    let consumer = async {
        let mut numbers = BTreeSet::new();
        let deadline = Instant::now() + SOON;
        while numbers.len() < MESSAGES {
            assert!(Instant::now() < deadline, "messages were lost: only {numbers:?} came");
            // Gives up waiting all the time, in the middle of whatever `next` does.
            if let Ok(Some(delivery)) = timeout(Duration::from_micros(200), subscription.next()).await {
                assert!(
                    !delivery.redelivered,
                    "{:?} was lost on the way and came again",
                    delivery.body
                );
                numbers.insert(number(&delivery.body));
                delivery.ack().await;
            }
        }
    };
    tokio::join!(publisher, consumer);
}

pub(crate) async fn a_message_too_large_is_refused(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    bus.publish(&topic, Bytes::from(vec![b'x'; MESSAGE_MAX_BYTES]))
        .await
        .unwrap();
    let error = bus
        .publish(&topic, Bytes::from(vec![b'x'; MESSAGE_MAX_BYTES + 1]))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::TooLarge { size, limit, .. } if (*size, *limit) == (MESSAGE_MAX_BYTES + 1, MESSAGE_MAX_BYTES)),
        "{error}"
    );
    let mut subscription = bus.subscribe(&topic, 10).await;
    let delivery = next(&mut subscription).await;
    assert_eq!(delivery.body.len(), MESSAGE_MAX_BYTES);
    delivery.ack().await;
}

pub(crate) async fn impossible_names_are_refused(fixture: Fixture) {
    for name in [String::new(), "x".repeat(TOPIC_NAME_MAX_BYTES + 1), "amq.fanout".into()] {
        for topic in [Topic::work(name.clone()), Topic::broadcast(name)] {
            let error = fixture.bus.publish(&topic, body(1)).await.unwrap_err();
            assert!(matches!(error, PublishError::NotConfirmed { .. }), "{topic:?}: {error}");
        }
    }
}

pub(crate) async fn a_full_work_queue_refuses(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, &fixture.work());
    // A broker may take a few more than the limit before it notices.
    let results: Vec<_> = stream::iter(0..WORK_QUEUE_MAX + WORK_QUEUE_MAX / 10)
        .map(|number| bus.publish(topic, body(number)))
        .buffered(64)
        .collect()
        .await;
    // Counted over all: messages sent side by side arrive in any order.
    let refusals: Vec<String> = results
        .iter()
        .filter_map(|r| r.as_ref().err())
        .map(ToString::to_string)
        .collect();
    let accepted = results.len() - refusals.len();
    let odd: Vec<_> = refusals
        .iter()
        .filter(|refusal| !refusal.contains("queue is full"))
        .collect();
    assert!(
        odd.is_empty(),
        "refused for another reason, {} times: {}",
        odd.len(),
        odd[0]
    );
    assert!(accepted >= WORK_QUEUE_MAX, "it took only {accepted}");
    assert!(
        !refusals.is_empty(),
        "it took {accepted} messages, well beyond its limit"
    );
}

pub(crate) async fn a_slow_broadcast_subscriber_loses_the_oldest(fixture: Fixture) {
    const EXTRA: usize = 200;
    let (bus, topic) = (&fixture.bus, &fixture.broadcast());
    let mut slow = bus.subscribe(topic, 1).await;
    let last = BROADCAST_QUEUE_MAX + EXTRA - 1;
    stream::iter(0..=last)
        .map(|number| bus.publish(topic, body(number)))
        .buffered(1)
        .for_each(async |r| r.unwrap())
        .await;
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let delivery = next(&mut slow).await;
        numbers.push(number(&delivery.body));
        delivery.ack().await;
    }
    assert!(numbers.is_sorted());
    // Its queue, and one message that was on its way.
    assert!(
        (BROADCAST_QUEUE_MAX..=BROADCAST_QUEUE_MAX + 1).contains(&numbers.len()),
        "{} messages",
        numbers.len()
    );
    nothing(&mut slow).await;
}

pub(crate) async fn shutting_down_ends_subscriptions_and_publishing(fixture: Fixture) {
    let (bus, topic) = (&fixture.bus, fixture.work());
    let mut busy = bus.subscribe(&topic, 10).await;
    let mut idle = bus.subscribe(&topic, 10).await;
    bus.publish(&topic, body(1)).await.unwrap();
    let in_hand = tokio::select! {
        delivery = busy.next() => delivery,
        delivery = idle.next() => delivery,
    };
    fixture.shutdown.cancel();
    for subscription in [&mut busy, &mut idle] {
        assert!(
            timeout(SOON, subscription.next())
                .await
                .expect("the subscription ends")
                .is_none()
        );
    }
    in_hand.expect("a message").ack().await;
    crate::support::until("the bus is closed", || !bus.connected()).await;
    let error = bus.publish(&topic, body(2)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
}
