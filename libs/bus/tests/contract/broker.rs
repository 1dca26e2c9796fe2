//! What only a real broker can do to us: be away, restart, lose its queues, have others' queues.

use std::sync::Arc;
use std::time::Duration;

use bus::testing::Broker;
use bus::{Bus, PublishError, Rabbit, Topic};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{SOON, body, next, nothing, number, own_broker, shared_broker, until};

/// Publishes until it works: after a restart a broker needs a moment to have its queues ready.
async fn publish_soon(bus: &Rabbit, topic: &Topic, number: usize) {
    let deadline = Instant::now() + SOON;
    while let Err(error) = bus.publish(topic, body(number)).await {
        assert!(Instant::now() < deadline, "still not published: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn blocking(mut broker: Broker, work: impl FnOnce(&mut Broker) + Send + 'static) -> Broker {
    tokio::task::spawn_blocking(move || {
        work(&mut broker);
        broker
    })
    .await
    .expect("the broker obeys")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_fails_fast_while_the_broker_is_away_and_subscriptions_survive_its_death() {
    let Some(broker) = own_broker().await else { return };
    let shutdown = CancellationToken::new();
    let bus = Rabbit::connect_with_seed(&broker.url, shutdown.clone(), 1).unwrap();
    until("the bus is connected", || bus.connected()).await;
    let (work, news, unread) = (Topic::work("work"), Topic::broadcast("news"), Topic::work("unread"));
    let mut workers = bus.subscribe(&work, 10).await;
    let mut readers = bus.subscribe(&news, 10).await;
    bus.publish(&work, body(1)).await.unwrap();
    let unanswered = next(&mut workers).await;
    bus.publish(&unread, body(7)).await.unwrap();

    let broker = blocking(broker, Broker::kill).await;
    until("the loss is noticed", || !bus.connected()).await;
    let start = Instant::now();
    for topic in [&work, &news] {
        let error = bus.publish(topic, body(0)).await.unwrap_err();
        assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
    }
    // Subscribing does not wait for a broker that is away either.
    let mut late = bus.subscribe(&unread, 10).await;
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "not fast: {:?}",
        start.elapsed()
    );
    // An answer nobody can hear neither fails nor hangs.
    timeout(SOON, unanswered.ack()).await.expect("answering does not hang");
    nothing(&mut workers).await;

    let broker = blocking(broker, |broker| broker.start_again().expect("the broker starts again")).await;
    let again = next(&mut workers).await;
    assert!(again.redelivered, "its first answer was lost with the broker");
    again.ack().await;
    let kept = next(&mut late).await;
    assert_eq!(number(&kept.body), 7, "a confirmed message outlives the broker's death");
    kept.ack().await;
    publish_soon(&bus, &work, 2).await;
    let delivery = next(&mut workers).await;
    assert_eq!(number(&delivery.body), 2);
    delivery.ack().await;
    // Its queue went with the connection; a new one is there once the subscription has attached again.
    let deadline = Instant::now() + SOON;
    let heard = loop {
        publish_soon(&bus, &news, 3).await;
        if let Ok(Some(delivery)) = timeout(Duration::from_millis(200), readers.next()).await {
            break delivery;
        }
        assert!(
            Instant::now() < deadline,
            "the broadcast subscription did not come back"
        );
    };
    assert_eq!(number(&heard.body), 3);
    heard.ack().await;

    // And once more, politely this time: a broker that says goodbye is as gone as one that does not. That it is found again has been seen.
    let broker = blocking(broker, Broker::stop).await;
    until("the goodbye is noticed", || !bus.connected()).await;
    let error = bus.publish(&work, body(4)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error}");

    shutdown.cancel();
    timeout(Duration::from_secs(4), bus.closed())
        .await
        .expect("closing takes no longer than draining");
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_without_a_broker_waits_for_it_and_can_be_shut_down() {
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let shutdown = CancellationToken::new();
    let bus = Rabbit::connect_with_seed(&format!("amqp://127.0.0.1:{port}"), shutdown.clone(), 2).unwrap();
    let mut subscription = bus.subscribe(&Topic::work("work"), 10).await;
    assert!(!bus.connected());
    let error = bus.publish(&Topic::work("work"), body(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
    nothing(&mut subscription).await;
    shutdown.cancel();
    assert!(timeout(SOON, subscription.next()).await.expect("it ends").is_none());
    timeout(SOON, bus.closed()).await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_says_nothing_is_left_behind_at_shutdown() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let url = format!("amqp://{}", silent.local_addr().unwrap());
    let bus = Rabbit::connect_with_seed(&url, shutdown.clone(), 3).unwrap();
    let (mut accepted, _) = timeout(SOON, silent.accept()).await.expect("the bus connects").unwrap();
    shutdown.cancel();
    timeout(SOON, bus.closed()).await.expect("it closes");
    // lapin's thread would hold the connection open for ever if nobody cut it.
    let mut received = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut accepted, &mut received);
    timeout(SOON, end).await.expect("the connection is cut").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_of_others_are_reported_and_deleted_ones_come_back() {
    let Some(url) = shared_broker().await else { return };
    let other = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = other.create_channel().await.unwrap();
    // As a program before this one may have declared it: durable, without arguments.
    let plain = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("of_others".into(), plain, FieldTable::default())
        .await
        .unwrap();

    let bus = Rabbit::connect_with_seed(url, CancellationToken::new(), 4).unwrap();
    until("the bus is connected", || bus.connected()).await;
    let topic = Topic::work("of_others");
    let mut subscription = bus.subscribe(&topic, 10).await;
    for _ in 0..2 {
        let error = bus.publish(&topic, body(1)).await.unwrap_err().to_string();
        assert!(
            error.contains("queue \"of_others\" exists") && error.contains("rabbitmqctl delete_queue of_others"),
            "{error}"
        );
    }
    // It goes for that queue alone.
    bus.publish(&Topic::work("not_of_others"), body(1)).await.unwrap();

    // For us deleting it, then for somebody deleting ours while we consume from it.
    for round in 2..4 {
        channel
            .queue_delete("of_others".into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        publish_soon(&bus, &topic, round).await;
        let delivery = next(&mut subscription).await;
        assert_eq!(number(&delivery.body), round);
        delivery.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_bus_ends_it() {
    let Some(fixture) = crate::support::Fixture::rabbit("dropping_the_bus_ends_it").await else {
        return;
    };
    let mut subscription = fixture.bus.subscribe(&fixture.work(), 10).await;
    let bus: Arc<dyn Bus> = fixture.bus;
    drop(bus);
    assert!(timeout(SOON, subscription.next()).await.expect("it ends").is_none());
    assert!(!fixture.shutdown.is_cancelled(), "the bus is not the whole program");
}
