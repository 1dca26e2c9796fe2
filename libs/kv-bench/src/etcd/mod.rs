//! etcd: gRPC over one HTTP/2 connection per client, with `h2` and hand-declared messages, so that no protoc is needed.

mod messages;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode, Uri};
use prost::Message;
use tokio::net::TcpStream;

use self::messages::{
    Answered, Asked, Compare, Compared, DeleteRangeRequest, DeleteRangeResponse, Header, KeyValue, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, StatusRequest, StatusResponse, TARGET_CREATE, TARGET_MOD,
    TxnRequest, TxnResponse,
};
use crate::client::{Client, Connect, OpError, Swap, clip, number_in};
use crate::work::{KEY_PREFIX, PREFIX_END};

/// Flow-control window, bytes: a page of 1,000 values needs no second round trip.
const WINDOW_BYTES: u32 = 8 << 20;
/// Largest answer taken, bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Length of gRPC's prefix of a message: compressed or not, and its length.
const PREFIX_BYTES: usize = 5;

/// The members of an etcd cluster that clients are spread over.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    /// `host:port` of each.
    pub(crate) members: Vec<String>,
}

impl Etcd {
    /// Whether all members know one leader.
    pub(crate) async fn is_ready(&self) -> Result<(), OpError> {
        self.leader().await.map(drop)
    }

    /// The same cluster, entered through its present leader only.
    pub(crate) async fn leader_only(&self) -> Result<Self, OpError> {
        let members = vec![self.leader().await?];
        Ok(Self { members })
    }

    /// The member that leads, as all of them say.
    async fn leader(&self) -> Result<String, OpError> {
        let mut leader = None;
        for (i, member) in self.members.iter().enumerate() {
            let mut client = self.connect(i).await?;
            let uri = client.uris.status.clone();
            let status: StatusResponse = client.call(uri, &StatusRequest {}).await?;
            let itself = status.header.map_or(0, |header| header.member_id);
            match status.leader {
                0 => return Err(OpError::Refused(format!("{member} knows no leader"))),
                id if id == itself => leader = Some(member.clone()),
                _ => {}
            }
        }
        leader.ok_or_else(|| OpError::Refused("no member leads".to_owned()))
    }
}

impl Connect for Etcd {
    type Client = EtcdClient;

    async fn connect(&self, client: usize) -> Result<EtcdClient, OpError> {
        let member = &self.members[client % self.members.len()];
        let stream = TcpStream::connect(member).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await?;
        // Ends when the client is dropped; what goes wrong, the operations under way are told.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(EtcdClient {
            send,
            uris: Uris::of(member)?,
        })
    }
}

impl From<h2::Error> for OpError {
    fn from(error: h2::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

/// Where the calls go.
#[derive(Debug)]
struct Uris {
    range: Uri,
    put: Uri,
    delete: Uri,
    txn: Uri,
    status: Uri,
}

impl Uris {
    fn of(member: &str) -> Result<Self, OpError> {
        let uri = |path: &str| {
            let text = format!("http://{member}/etcdserverpb.{path}");
            text.parse()
                .map_err(|error| OpError::Connection(format!("{text}: {error}")))
        };
        Ok(Self {
            range: uri("KV/Range")?,
            put: uri("KV/Put")?,
            delete: uri("KV/DeleteRange")?,
            txn: uri("KV/Txn")?,
            status: uri("Maintenance/Status")?,
        })
    }
}

/// A connection to a member.
#[derive(Debug)]
pub(crate) struct EtcdClient {
    send: SendRequest<Bytes>,
    uris: Uris,
}

impl EtcdClient {
    /// One unary gRPC call.
    async fn call<Q: Message, R: Message + Default>(&mut self, uri: Uri, question: &Q) -> Result<R, OpError> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/grpc"),
        );
        headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
        std::future::poll_fn(|context| self.send.poll_ready(context)).await?;
        let (answer, mut body) = self.send.send_request(request, false)?;
        body.send_data(frame(question)?, true)?;

        let (head, mut body) = answer.await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(OpError::Refused(head.status.to_string()));
        }
        let bytes = collect(&mut body).await?;
        // An error may come as a head alone, with what else would be in the trailers.
        check_status(&body.trailers().await?.unwrap_or(head.headers))?;
        unframe(bytes)
    }

    async fn range(&mut self, key: &str, range_end: &'static str, limit: i64) -> Result<Vec<KeyValue>, OpError> {
        let question = RangeRequest {
            key: owned(key),
            range_end: Bytes::from_static(range_end.as_bytes()),
            limit,
        };
        let answer: RangeResponse = self.call(self.uris.range.clone(), &question).await?;
        Ok(answer.kvs)
    }

    async fn txn(&mut self, question: &TxnRequest) -> Result<TxnResponse, OpError> {
        self.call(self.uris.txn.clone(), question).await
    }
}

/// A message as gRPC sends it.
fn frame<Q: Message>(message: &Q) -> Result<Bytes, OpError> {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).map_err(OpError::wrong)?);
    message.encode(&mut framed).map_err(OpError::wrong)?;
    Ok(framed.freeze())
}

/// The one, uncompressed message of an answer.
fn unframe<R: Message + Default>(mut bytes: Bytes) -> Result<R, OpError> {
    match bytes.first_chunk::<PREFIX_BYTES>() {
        Some([0, length @ ..]) if usize::try_from(u32::from_be_bytes(*length)) == Ok(bytes.len() - PREFIX_BYTES) => {
            R::decode(bytes.split_off(PREFIX_BYTES)).map_err(OpError::wrong)
        }
        _ => Err(OpError::wrong(format!(
            "{} bytes that are not one message",
            bytes.len()
        ))),
    }
}

async fn collect(body: &mut h2::RecvStream) -> Result<Bytes, OpError> {
    let mut all = BytesMut::new();
    let mut only = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if only.is_empty() && all.is_empty() {
            only = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut only));
            all.extend_from_slice(&chunk);
        }
        if all.len() > MAX_ANSWER_BYTES {
            return Err(OpError::wrong("an answer that is too long"));
        }
    }
    Ok(if all.is_empty() { only } else { all.freeze() })
}

fn check_status(trailers: &HeaderMap) -> Result<(), OpError> {
    match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(code) => {
            let message = trailers.get("grpc-message").map(http::HeaderValue::as_bytes);
            let text = [b"grpc-status ", code, b" ", message.unwrap_or_default()].concat();
            Err(OpError::Refused(clip(&String::from_utf8_lossy(&text))))
        }
        None => Err(OpError::wrong("an answer without grpc-status")),
    }
}

fn owned(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> RequestOp {
    RequestOp {
        request: Some(Asked::Put(PutRequest {
            key: owned(key),
            value: owned(value),
        })),
    }
}

fn written(header: Option<&Header>) -> Result<i64, OpError> {
    match header {
        Some(header) if header.revision > 0 => Ok(header.revision),
        _ => Err(OpError::wrong("a write without revision")),
    }
}

fn current(kvs: &[KeyValue], key: &str) -> Result<(u64, i64), OpError> {
    match kvs {
        [kv] if kv.key == key.as_bytes() => Ok((number_in(&kv.value)?, kv.mod_revision)),
        _ => Err(OpError::wrong(format!("{} keys, not {key}", kvs.len()))),
    }
}

impl Client for EtcdClient {
    /// The revision of the key's last change.
    type Version = i64;

    async fn get(&mut self, key: &str) -> Result<(), OpError> {
        self.current(key).await.map(drop)
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<(), OpError> {
        let question = PutRequest {
            key: owned(key),
            value: owned(value),
        };
        let answer: PutResponse = self.call(self.uris.put.clone(), &question).await?;
        written(answer.header.as_ref()).map(drop)
    }

    async fn create(&mut self, key: &str, value: &str) -> Result<(), OpError> {
        let question = TxnRequest {
            compare: vec![Compare {
                target: TARGET_CREATE,
                key: owned(key),
                to: Some(Compared::CreateRevision(0)),
            }],
            success: vec![put(key, value)],
            failure: vec![],
        };
        let answer = self.txn(&question).await?;
        match answer.succeeded {
            true => written(answer.header.as_ref()).map(drop),
            false => Err(OpError::wrong(format!("{key} is there already"))),
        }
    }

    async fn current(&mut self, key: &str) -> Result<(u64, i64), OpError> {
        let kvs = self.range(key, "", 0).await?;
        current(&kvs, key)
    }

    async fn swap(&mut self, key: &str, version: &i64, value: &str) -> Result<Swap<i64>, OpError> {
        let look = RangeRequest {
            key: owned(key),
            ..RangeRequest::default()
        };
        let question = TxnRequest {
            compare: vec![Compare {
                target: TARGET_MOD,
                key: owned(key),
                to: Some(Compared::ModRevision(*version)),
            }],
            success: vec![put(key, value)],
            failure: vec![RequestOp {
                request: Some(Asked::Range(look)),
            }],
        };
        let answer = self.txn(&question).await?;
        if answer.succeeded {
            return Ok(Swap::Won(written(answer.header.as_ref())?));
        }
        match answer.responses.as_slice() {
            [
                messages::ResponseOp {
                    response: Some(Answered::Range(found)),
                },
            ] => {
                let (number, version) = current(&found.kvs, key)?;
                Ok(Swap::Lost(number, version))
            }
            _ => Err(OpError::wrong("a refused transaction without the key's value")),
        }
    }

    async fn put_all(&mut self, keys: &[String], value: &str) -> Result<(), OpError> {
        let question = TxnRequest {
            success: keys.iter().map(|key| put(key, value)).collect(),
            ..TxnRequest::default()
        };
        let answer = self.txn(&question).await?;
        match answer.succeeded && answer.responses.len() == keys.len() {
            true => written(answer.header.as_ref()).map(drop),
            false => Err(OpError::wrong("a transaction that was not done as a whole")),
        }
    }

    async fn scan(&mut self, after: &str, limit: usize) -> Result<(), OpError> {
        // The next key after this one, in the order of bytes.
        let first = if after.is_empty() {
            KEY_PREFIX.to_owned()
        } else {
            format!("{after}\0")
        };
        let most = i64::try_from(limit).map_err(OpError::wrong)?;
        let kvs = self.range(&first, PREFIX_END, most).await?;
        if kvs.len() != limit {
            return Err(OpError::wrong(format!("a page of {}, not {limit}", kvs.len())));
        }
        kvs.iter().try_for_each(|kv| number_in(&kv.value).map(drop))
    }

    /// Without a lease: a lock that nobody would free after a crash, hence the cheapest one.
    async fn lock_unlock(&mut self, key: &str) -> Result<(), OpError> {
        self.create(key, "").await?;
        let question = DeleteRangeRequest { key: owned(key) };
        let answer: DeleteRangeResponse = self.call(self.uris.delete.clone(), &question).await?;
        match answer.deleted {
            1 => Ok(()),
            other => Err(OpError::wrong(format!("{other} locks released"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_etcds_encoding() {
        // Compare{target: MOD, key: "k", mod_revision: 5}, by the rules of protobuf.
        let compare = Compare {
            target: TARGET_MOD,
            key: owned("k"),
            to: Some(Compared::ModRevision(5)),
        };
        assert_eq!(compare.encode_to_vec(), [0x10, 2, 0x1a, 1, b'k', 0x30, 5]);
    }

    #[test]
    fn frames_are_read_back() {
        let header = Header {
            member_id: 3,
            revision: 9,
        };
        assert_eq!(unframe::<Header>(frame(&header).unwrap()).unwrap(), header);
        assert!(unframe::<Header>(Bytes::from_static(&[0, 0, 0, 0, 9, 1])).is_err());
        assert!(unframe::<Header>(Bytes::from_static(&[0, 0])).is_err());
    }

    #[test]
    fn statuses_are_looked_at() {
        let mut trailers = HeaderMap::new();
        assert!(check_status(&trailers).is_err());
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        assert!(check_status(&trailers).is_ok());
        trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
        assert!(matches!(check_status(&trailers), Err(OpError::Refused(_))));
    }
}
