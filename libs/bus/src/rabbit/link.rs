//! One connection to the broker, from its handshake to its loss, and publishing over it.

use std::collections::HashMap;
use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Event};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::topology;
use crate::limits::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, DECLARE_RETRY_AFTER, PUBLISH_CONCURRENCY, TCP_CONNECT_TIMEOUT};
use crate::{Fanout, PublishError, Topic};

/// AMQP's code for "write it to disk".
const PERSISTENT: u8 = 2;

/// How often the connection's state is looked at, should an event have been missed.
const STATE_CHECK_EVERY: Duration = Duration::from_millis(500);

/// A connection that was open once. Ends for good when lost; the supervisor makes the next one.
pub(super) struct Link {
    connection: Connection,
    /// Declared after `connection`, so cut after it has said goodbye.
    _socket: Socket,
    declared: Mutex<HashMap<Topic, Declared>>,
    publishers: Publishers,
}

/// What came of declaring a topic over this connection.
enum Declared {
    Done,
    Failed { at: Instant, reason: String },
}

/// Channels for publishing, in confirm mode, with at most one unconfirmed message each.
///
/// The broker returns an unroutable message ahead of its confirmation, without saying which publish it belongs to, and confirms
/// many at once if it likes. With one message per channel there is nothing to mix up. A channel that failed, timed out or was
/// abandoned is dropped, which closes it.
struct Publishers {
    idle: Mutex<Vec<Channel>>,
    permits: Semaphore,
}

/// A second handle on the connection's socket, to cut it.
///
/// lapin runs each connection on a thread of its own, which ends when the socket does. A broker that accepts the connection and
/// then says nothing would keep that thread for ever; cutting the socket ends it whatever state it is in.
#[derive(Default)]
struct Socket(Arc<Mutex<SocketState>>);

#[derive(Default)]
enum SocketState {
    #[default]
    NotYetOpen,
    Open(TcpStream),
    /// Given up. A connection that comes about after that must not be used.
    Cut,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let SocketState::Open(stream) = std::mem::replace(&mut *lock(&self.0), SocketState::Cut) {
            // Already closed is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// Connects and logs in. Dropping the future cuts the attempt off.
pub(super) async fn open(uri: &AMQPUri) -> Result<Link, String> {
    let socket = Socket::default();
    let state = Arc::clone(&socket.0);
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let connecting = Connection::connector(
        uri.clone(),
        runtime,
        async move |uri, runtime| {
            let stream = timeout(TCP_CONNECT_TIMEOUT, uri.connect_async(&runtime))
                .await
                .map_err(|_| {
                    std::io::Error::new(
                        std::io::ErrorKind::TimedOut,
                        format!("no TCP connection within {} s", TCP_CONNECT_TIMEOUT.as_secs()),
                    )
                })??;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let handle = plain.get_ref().as_fd().try_clone_to_owned()?;
                let mut state = lock(&state);
                if matches!(*state, SocketState::Cut) {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into());
                }
                *state = SocketState::Open(TcpStream::from(handle));
            }
            Ok(stream)
        },
        properties(),
    );
    let connection = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no AMQP handshake within {} s", CONNECT_TIMEOUT.as_secs())),
    };
    Ok(Link {
        connection,
        _socket: socket,
        declared: Mutex::default(),
        publishers: Publishers {
            idle: Mutex::default(),
            permits: Semaphore::new(PUBLISH_CONCURRENCY),
        },
    })
}

/// How the broker's management page shows this connection.
fn properties() -> ConnectionProperties {
    let program = std::env::current_exe().ok();
    let name = program
        .as_deref()
        .and_then(std::path::Path::file_stem)
        .and_then(std::ffi::OsStr::to_str);
    ConnectionProperties::default().with_connection_name(name.unwrap_or("dronedispatch").into())
}

impl Link {
    /// True until the connection is lost.
    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Waits for the end of this connection and says why it came.
    pub(super) async fn lost(&self) -> String {
        let mut events = pin!(self.connection.events_listener());
        let mut check = tokio::time::interval(STATE_CHECK_EVERY);
        let mut last_error = None;
        loop {
            if !self.is_up() {
                return last_error.unwrap_or_else(|| "closed by the broker".to_owned());
            }
            tokio::select! {
                event = events.next() => match event {
                    // Also sent for an error that ends only one channel; the check above tells the difference.
                    Some(Event::Error(error)) => last_error = Some(error.to_string()),
                    Some(Event::ConnectionBlocked(reason)) => warn!(%reason, "the broker has blocked publishers"),
                    Some(Event::ConnectionUnblocked) => info!("the broker accepts messages again"),
                    Some(_) => {}
                    None => return last_error.unwrap_or_else(|| "closed".to_owned()),
                },
                _ = check.tick() => {}
            }
        }
    }

    /// Says goodbye to the broker. Its queues exclusive to this connection go with it.
    pub(super) async fn close(&self) {
        if self.is_up() {
            match timeout(CLOSE_TIMEOUT, self.connection.close(200, "shutting down".into())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "the connection to the broker did not close cleanly"),
                Err(_) => warn!("the broker did not answer the goodbye in time; cutting the connection"),
            }
        }
    }

    pub(super) async fn create_channel(&self) -> Result<Channel, String> {
        self.connection
            .create_channel()
            .await
            .map_err(|error| error.to_string())
    }

    /// Publishes one message and waits for its confirmation, without a time limit of its own. `headers` are those of
    /// [`topology::headers`].
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        body: &[u8],
        headers: Option<FieldTable>,
    ) -> Result<(), PublishError> {
        let refused = |reason: String| PublishError::NotConfirmed {
            topic: topic.name.clone(),
            reason,
        };
        if self.connection.status().blocked() {
            return Err(refused(
                "the broker has blocked publishers (its memory or disk is short)".into(),
            ));
        }
        self.declare(topic).await?;
        let _permit = self
            .publishers
            .permits
            .acquire()
            .await
            .expect("the semaphore of publishers is never closed");
        let channel = self.publisher().await.map_err(|error| self.failed(topic, &error))?;
        let (exchange, routing_key) = match topic.fanout {
            Fanout::Work => ("", topic.name.as_str()),
            Fanout::Broadcast => (topic.name.as_str(), ""),
        };
        // A work message must reach its queue; news without listeners are no trouble.
        let options = BasicPublishOptions {
            mandatory: topic.fanout == Fanout::Work,
            immediate: false,
        };
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT);
        if let Some(headers) = headers {
            properties = properties.with_headers(headers);
        }
        let published = async {
            channel
                .basic_publish(exchange.into(), routing_key.into(), options, body, properties)
                .await?
                .await
        };
        let outcome = match published.await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Nack(None)) => Err(refused("the broker refused it: the queue is full".into())),
            Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                self.forget(topic);
                Err(refused(format!(
                    "no queue took it ({} {}); it is declared again with the next message",
                    returned.reply_code, returned.reply_text
                )))
            }
            Ok(Confirmation::NotRequested) => Err(refused("the channel is not in confirm mode".into())),
            Err(error) => {
                // Perhaps the exchange was deleted, which ended the channel; do not keep it.
                self.forget(topic);
                return Err(self.failed(topic, &error));
            }
        };
        lock(&self.publishers.idle).push(channel);
        outcome
    }

    /// Declares the topic unless that was done over this connection already, or failed a moment ago.
    async fn declare(&self, topic: &Topic) -> Result<(), PublishError> {
        match lock(&self.declared).get(topic) {
            Some(Declared::Done) => return Ok(()),
            Some(Declared::Failed { at, reason }) if at.elapsed() < DECLARE_RETRY_AFTER => {
                return Err(PublishError::NotConfirmed {
                    topic: topic.name.clone(),
                    reason: reason.clone(),
                });
            }
            Some(Declared::Failed { .. }) | None => {}
        }
        // A channel of its own: the broker closes it if it refuses the declaration.
        let channel = self
            .connection
            .create_channel()
            .await
            .map_err(|error| self.failed(topic, &error))?;
        match topology::declare(&channel, topic).await {
            Ok(()) => {
                lock(&self.declared).insert(topic.clone(), Declared::Done);
                Ok(())
            }
            Err(reason) if self.is_up() => {
                error!(%topic, %reason, "cannot declare");
                let failed = Declared::Failed {
                    at: Instant::now(),
                    reason: reason.clone(),
                };
                lock(&self.declared).insert(topic.clone(), failed);
                Err(PublishError::NotConfirmed {
                    topic: topic.name.clone(),
                    reason,
                })
            }
            Err(reason) => Err(PublishError::Unavailable(reason)),
        }
    }

    fn forget(&self, topic: &Topic) {
        lock(&self.declared).remove(topic);
    }

    async fn publisher(&self) -> Result<Channel, lapin::Error> {
        loop {
            // Released before the await below.
            let idle = lock(&self.publishers.idle).pop();
            match idle {
                Some(channel) if channel.status().connected() => return Ok(channel),
                Some(_) => {}
                None => break,
            }
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Tells a lost connection from a refused message.
    fn failed(&self, topic: &Topic, error: &lapin::Error) -> PublishError {
        if self.is_up() {
            PublishError::NotConfirmed {
                topic: topic.name.clone(),
                reason: error.to_string(),
            }
        } else {
            PublishError::Unavailable(error.to_string())
        }
    }
}

/// A panic while holding one of these locks leaves nothing half done, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
