//! What becomes of a message: answered once, sent at most once, and an honest word about whether it can have arrived.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use register::membership::{NodeRequest, NodeStatus};
use register::message::{Held, List, NodeEnvelopeReply, PageReply};
use register::proposer::{Event, Limits};
use register::{Ballot, Envelope, EnvelopeReply, HlcTime, Key, Reply, Request, State};
use service::clock::system_clock;
use service::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::calls::CALLS_PER_NODE;
use super::queue::{
    ENVELOPE_MAX_BYTES, ENVELOPE_MAX_REQUESTS, PLENTY, Pending, QUEUE_MAX_REQUESTS, Queue, Ticket, Turn,
};
use super::{CallError, Mailbox, REQUEST_TIMEOUT, SUSPECT_AFTER, Transport};
use crate::clocks::Clocks;
use crate::metrics::FrontMetrics;
use crate::ring::Backend;

fn transport_to(addr: SocketAddr) -> Arc<Transport> {
    let backend = Backend::parse(&format!("http://{addr}")).unwrap();
    let clocks = Arc::new(Clocks::new(500, Limits::default(), system_clock()));
    Transport::start(
        &[backend],
        register::Epoch(7),
        clocks,
        &Arc::new(FrontMetrics::new(&Metrics::new("test"))),
    )
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Reads one HTTP request with a body: its first line, and the body. `None` when the peer has closed.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap()
            .parse::<usize>()
            .unwrap();
        while bytes.len() < head + 4 + length {
            stream.read_buf(&mut bytes).await.ok()?;
        }
        let body = bytes[head + 4..head + 4 + length].to_vec();
        return Some((text.lines().next().unwrap_or_default().to_owned(), body));
    }
}

/// The same for a request that is an envelope.
async fn read_envelope(stream: &mut TcpStream) -> Option<Envelope> {
    let (_, body) = read_request(stream).await?;
    Some(postcard::from_bytes(&body).unwrap())
}

async fn answer(stream: &mut TcpStream, envelope: &Envelope) {
    let nothing = Held {
        accepted: Ballot::ZERO,
        state: None,
        promised: Ballot::ZERO,
        floor: Ballot::ZERO,
    };
    let replies = envelope
        .requests
        .iter()
        .map(|_| Reply::Holds(nothing.clone()))
        .collect();
    let clock = HlcTime::from_unix_ms(system_clock()());
    let reply = EnvelopeReply {
        clock,
        incarnation: 1,
        commit: 1,
        floor: Ballot::ZERO,
        standing: register::Standing::Voting,
        replies,
    };
    write_answer(stream, &reply).await;
}

async fn write_answer<T: serde::Serialize>(stream: &mut TcpStream, reply: &T) {
    let body = postcard::to_stdvec(reply).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
}

async fn one_event(mailbox: &Mailbox) -> Event {
    let mut events = timeout(Duration::from_secs(10), mailbox.take())
        .await
        .expect("an event comes");
    assert_eq!(events.len(), 1);
    events.remove(0)
}

#[tokio::test]
async fn a_request_whose_connection_breaks_is_not_sent_again() {
    let (listener, addr) = listener().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    // Reads whole requests and hangs up without a word, after a first good answer on each connection.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                while let Some(envelope) = read_envelope(&mut stream).await {
                    let real = !envelope.requests.is_empty();
                    if real && count.fetch_add(1, Ordering::SeqCst) > 0 {
                        return;
                    }
                    answer(&mut stream, &envelope).await;
                }
            });
        }
    });
    let transport = transport_to(addr);
    let mailbox = Mailbox::new();
    transport.send(0, Key::data("k"), Request::Read, &mailbox, 7, 1);
    assert!(matches!(
        one_event(&mailbox).await,
        Event::Reply { round: 7, rank: 1, .. }
    ));
    transport.send(0, Key::data("k"), Request::Read, &mailbox, 8, 1);
    match one_event(&mailbox).await {
        Event::Failed {
            round: 8,
            delivered: true,
            ..
        } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(seen.load(Ordering::SeqCst), 2, "each message was sent once");
    transport.stop().await;
}

#[tokio::test]
async fn a_kept_alive_connection_that_was_closed_meanwhile_is_replaced() {
    let (listener, addr) = listener().await;
    // One answer per connection, then it is closed: every further message meets a closed connection.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Some(envelope) = read_envelope(&mut stream).await {
                    answer(&mut stream, &envelope).await;
                }
            });
        }
    });
    let transport = transport_to(addr);
    let mailbox = Mailbox::new();
    for round in 0..20 {
        transport.send(0, Key::data("k"), Request::Read, &mailbox, round, 0);
        // Whether the close is seen before or after the request was written is up to the kernel; never is it sent twice, and never
        // claimed undelivered when it was written.
        match one_event(&mailbox).await {
            Event::Reply { round: got, .. }
            | Event::Failed {
                round: got,
                delivered: true,
                ..
            } => assert_eq!(got, round),
            other => panic!("{other:?}"),
        }
    }
    transport.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_certainly_not_delivered() {
    let (closed, addr) = listener().await;
    drop(closed);
    let transport = transport_to(addr);
    let mailbox = Mailbox::new();
    for round in 0..5 {
        transport.send(0, Key::data("k"), Request::Read, &mailbox, round, 0);
        assert!(matches!(
            one_event(&mailbox).await,
            Event::Failed { delivered: false, .. }
        ));
    }
    assert!(transport.is_suspected(0));
    assert!(transport.status(0).0.error.is_some());
    transport.stop().await;
}

/// What becomes of a message to a node that answers it with this status and body.
async fn answered_with(status: &'static str, body: &'static str) -> Event {
    let (listener, addr) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while read_envelope(&mut stream).await.is_some() {
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all((head + body).as_bytes()).await.unwrap();
                }
            });
        }
    });
    let transport = transport_to(addr);
    let mailbox = Mailbox::new();
    transport.send(0, Key::data("k"), Request::Read, &mailbox, 0, 0);
    let event = one_event(&mailbox).await;
    transport.stop().await;
    event
}

#[tokio::test]
async fn only_what_a_node_refused_as_a_whole_is_not_delivered() {
    for (status, body, expected) in [
        ("409 Conflict", r#"{"detail":"clock skew","refused":"clock"}"#, false),
        ("409 Conflict", r#"{"detail":"another ring","refused":"ring"}"#, false),
        ("400 Bad Request", r#"{"detail":"no postcard"}"#, false),
        ("413 Payload Too Large", r#"{"detail":"too large"}"#, false),
        ("404 Not Found", "", false),
        (
            "503 Service Unavailable",
            r#"{"detail":"the node is stopping","refused":"stopping"}"#,
            false,
        ),
        (
            "503 Service Unavailable",
            r#"{"detail":"no answer from the disk","outcome":"unknown"}"#,
            true,
        ),
        // Whoever says this, it need not be the node.
        ("503 Service Unavailable", "", true),
        ("500 Internal Server Error", r#"{"detail":"corruption"}"#, true),
        ("200 OK", "no postcard", true),
    ] {
        match answered_with(status, body).await {
            Event::Failed { delivered, .. } => assert_eq!(delivered, expected, "{status} {body}"),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_silent_node_is_suspected_and_its_messages_fail_in_time() {
    let (listener, addr) = listener().await;
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let transport = transport_to(addr);
    let mailbox = Mailbox::new();
    let asked = Instant::now();
    transport.send(0, Key::data("k"), Request::Read, &mailbox, 0, 0);
    assert!(matches!(
        one_event(&mailbox).await,
        Event::Failed { delivered: true, .. }
    ));
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
    transport.stop().await;
}

/// A node that is well, and takes `page_after` for each page.
fn slow_at_pages(listener: TcpListener, page_after: Duration) {
    let serve = move |mut stream: TcpStream| async move {
        while let Some((head, body)) = read_request(&mut stream).await {
            let clock = HlcTime::from_unix_ms(system_clock()());
            if head.contains("/internal/page") {
                tokio::time::sleep(page_after).await;
                let page = PageReply {
                    clock,
                    floor: Ballot::ZERO,
                    incarnation: 1,
                    standing: register::Standing::Voting,
                    records: Vec::new(),
                    end: true,
                };
                write_answer(&mut stream, &page).await;
            } else if head.contains("/internal/node") {
                let status = NodeStatus::default();
                let reply = NodeEnvelopeReply {
                    clock,
                    done: true,
                    status,
                };
                write_answer(&mut stream, &reply).await;
            } else {
                answer(&mut stream, &postcard::from_bytes(&body).unwrap()).await;
            }
        }
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

#[tokio::test]
async fn calls_that_wait_for_each_other_are_no_sign_against_their_node() {
    let (listener, addr) = listener().await;
    let page_after = SUSPECT_AFTER / 2;
    slow_at_pages(listener, page_after);
    let transport = transport_to(addr);
    let mut news = transport.news();
    timeout(Duration::from_secs(10), news.wait_for(|()| !transport.is_suspected(0)))
        .await
        .expect("it answers")
        .unwrap();
    let list = List::Keys {
        prefix: "d".to_owned(),
        after: None,
        reverse: false,
    };
    let in_time = CALLS_PER_NODE * usize::try_from(REQUEST_TIMEOUT.as_millis() / page_after.as_millis()).unwrap();
    let pages = join_all((0..2 * in_time).map(|_| transport.page(0, list.clone(), 1)));
    let question = async {
        // Behind all the pages, if there were one line for all.
        tokio::task::yield_now().await;
        transport.ask_node(0, NodeRequest::Status).await
    };
    let (pages, question) = tokio::join!(pages, question);
    question.expect("upkeep does not wait for the scans of clients");
    let refused: Vec<_> = pages.iter().filter_map(|page| page.as_ref().err()).collect();
    assert!(
        (in_time..2 * in_time).contains(&refused.len()),
        "{} of {}",
        refused.len(),
        pages.len()
    );
    let waited = |error: &&&CallError| error.reason.contains("too many calls wait");
    assert!(
        refused.iter().filter(waited).count() >= in_time - CALLS_PER_NODE,
        "{refused:?}"
    );
    assert!(!transport.is_suspected(0), "{refused:?}");
    transport.stop().await;
}

fn pending(mailbox: &Arc<Mailbox>, round: u32, value_bytes: usize, give_up_at: Instant) -> Pending {
    let state = State {
        value: Some("x".repeat(value_bytes).into()),
        ..tombstone()
    };
    let request = Request::Install {
        ballot: Ballot::ZERO,
        state,
    };
    Pending::new(
        Key::data("k"),
        request,
        give_up_at,
        Ticket::new(Arc::clone(mailbox), 0, round, 0),
    )
}

fn push(queue: &Queue, pending: Pending) {
    queue.push_all(&mut vec![pending]);
}

fn tombstone() -> State {
    let put = register::change::Command::Put {
        value: "1".into(),
        ttl_ms: None,
        fence: None,
    };
    let state = register::change::blind_state(&put, Ballot::ZERO, register::RequestId(1));
    State {
        value: None,
        ..state.expect("a put is blind")
    }
}

#[tokio::test]
async fn envelopes_keep_their_limits_and_lose_nothing() {
    let (queue, mailbox) = (Queue::default(), Mailbox::new());
    let later = Instant::now() + Duration::from_secs(60);
    for round in 0..5_000 {
        push(&queue, pending(&mailbox, round, 0, later));
    }
    let first = queue.take(Turn::Always, usize::MAX).await;
    let second = queue.take(Turn::Always, usize::MAX).await;
    assert_eq!(
        (first.len(), second.len()),
        (ENVELOPE_MAX_REQUESTS, 5_000 - ENVELOPE_MAX_REQUESTS)
    );
    for round in 0..5 {
        push(&queue, pending(&mailbox, round, ENVELOPE_MAX_BYTES / 2 - 1_000, later));
    }
    assert_eq!(queue.take(Turn::Always, 10).await.len(), 2, "two halves fit");
    assert_eq!(queue.take(Turn::Always, 1).await.len(), 1);
    assert_eq!(queue.take(Turn::Always, 10).await.len(), 2);
    push(&queue, pending(&mailbox, 0, ENVELOPE_MAX_BYTES + 1, later));
    assert_eq!(queue.take(Turn::Always, 10).await.len(), 1, "a single one always goes");
}

#[tokio::test]
async fn a_second_lane_takes_only_when_there_is_plenty() {
    let (queue, mailbox) = (Queue::default(), Mailbox::new());
    let later = Instant::now() + Duration::from_secs(60);
    let push = |count: usize| (0..count).for_each(|_| push(&queue, pending(&mailbox, 0, 0, later)));
    let mut second = std::pin::pin!(queue.take(Turn::Plenty, usize::MAX));
    push(PLENTY - 1);
    assert!(second.as_mut().now_or_never().is_none());
    push(1);
    assert_eq!(second.await.len(), PLENTY);

    // What one envelope leaves behind is for whoever's turn it is.
    push(PLENTY + 1);
    assert_eq!(queue.take(Turn::Always, 1).await.len(), 1);
    assert_eq!(queue.take(Turn::Plenty, PLENTY - 1).await.len(), PLENTY - 1);
    let mut second = std::pin::pin!(queue.take(Turn::Plenty, usize::MAX));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(queue.take(Turn::Always, usize::MAX).await.len(), 1);
}

#[tokio::test]
async fn what_is_late_or_too_much_is_turned_away_as_not_delivered() {
    let (queue, mailbox) = (Queue::default(), Mailbox::new());
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
    push(&queue, pending(&mailbox, 1, 0, now));
    push(&queue, pending(&mailbox, 2, 0, later));
    let batch = queue.take(Turn::Always, 10).await;
    assert_eq!(batch.len(), 1);
    assert!(matches!(
        one_event(&mailbox).await,
        Event::Failed {
            round: 1,
            delivered: false,
            ..
        }
    ));
    drop(batch);
    assert!(
        matches!(
            one_event(&mailbox).await,
            Event::Failed {
                round: 2,
                delivered: true,
                ..
            }
        ),
        "dropped: not known"
    );

    for _ in 0..QUEUE_MAX_REQUESTS {
        push(&queue, pending(&Mailbox::new(), 0, 0, later));
    }
    push(&queue, pending(&mailbox, 3, 0, later));
    assert!(matches!(
        one_event(&mailbox).await,
        Event::Failed {
            round: 3,
            delivered: false,
            ..
        }
    ));
}
