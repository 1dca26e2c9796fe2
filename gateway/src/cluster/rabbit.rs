//! RabbitMQ's queues, from its management API.

use serde::{Deserialize, Serialize};

/// What is asked, behind the management API's address.
pub(super) const PATH: &str = "/api/queues?columns=name,messages_ready,messages_unacknowledged,consumers,message_stats.publish,message_stats.redeliver&disable_stats=false";
/// Queues shown.
const QUEUES_MAX: usize = 200;

/// One queue.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Queue {
    name: String,
    /// Messages that wait.
    ready: u64,
    /// Messages given to a consumer that has not answered.
    unacked: u64,
    consumers: u64,
    /// Since the broker's start.
    published: u64,
    redelivered: u64,
}

#[derive(Deserialize)]
struct Told {
    name: String,
    #[serde(default)]
    messages_ready: u64,
    #[serde(default)]
    messages_unacknowledged: u64,
    #[serde(default)]
    consumers: u64,
    #[serde(default)]
    message_stats: Counts,
}

#[derive(Default, Deserialize)]
struct Counts {
    #[serde(default)]
    publish: u64,
    #[serde(default)]
    redeliver: u64,
}

/// The queues in an answer of the management API.
pub(super) fn queues(body: &[u8]) -> Result<Vec<Queue>, String> {
    let told: Vec<Told> =
        serde_json::from_slice(body).map_err(|error| format!("RabbitMQ's list of queues cannot be read: {error}"))?;
    let queue = |told: Told| Queue {
        name: told.name,
        ready: told.messages_ready,
        unacked: told.messages_unacknowledged,
        consumers: told.consumers,
        published: told.message_stats.publish,
        redelivered: told.message_stats.redeliver,
    };
    Ok(told.into_iter().take(QUEUES_MAX).map(queue).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_read_also_before_their_first_message() {
        let body = br#"[{"name":"delivery_requests","messages_ready":3,"messages_unacknowledged":2,"consumers":1,"message_stats":{"publish":9,"redeliver":4}},{"name":"new"}]"#;
        let queues = queues(body).unwrap();
        let first = &queues[0];
        assert_eq!((first.ready, first.unacked, first.consumers), (3, 2, 1));
        assert_eq!((first.published, first.redelivered), (9, 4));
        assert_eq!((queues[1].name.as_str(), queues[1].ready), ("new", 0));
        assert!(super::queues(b"{}").unwrap_err().contains("queues"));
    }
}
