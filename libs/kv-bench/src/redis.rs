//! Redis: RESP2 by hand, as far as it is needed. Conditional changes are Lua scripts, which Redis runs atomically.

use std::io::Write as _;

use bytes::Bytes;

use crate::client::{Client, Connect, OpError, Swap, clip, number_in};
use crate::wire::Wire;

/// Largest string and longest array taken.
const MAX_LENGTH: usize = 16 << 20;

/// Sets KEYS[1] to ARGV[2] if it is ARGV[1]; gives 1, or what it is.
const SWAP: &str =
    "local c=redis.call('GET',KEYS[1]) if c==ARGV[1] then redis.call('SET',KEYS[1],ARGV[2]) return 1 end return c";
/// Deletes KEYS[1] if it is ARGV[1].
const RELEASE: &str = "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";
/// At least ARGV[1] keys, in no order, with their values.
const SCAN: &str = "local r=redis.call('SCAN',0,'COUNT',ARGV[1]) return redis.call('MGET',unpack(r[2]))";

/// A Redis.
#[derive(Debug, Clone)]
pub(crate) struct Redis {
    /// `host:port`.
    pub(crate) addr: String,
}

impl Redis {
    /// Whether it answers.
    pub(crate) async fn is_ready(&self) -> Result<(), OpError> {
        self.connect(0).await.map(drop)
    }
}

impl Connect for Redis {
    type Client = RedisClient;

    async fn connect(&self, client: usize) -> Result<RedisClient, OpError> {
        let mut client = RedisClient {
            wire: Wire::connect(&self.addr).await?,
            request: Vec::new(),
            owner: format!("client-{client}"),
            swap: String::new(),
            release: String::new(),
            scan: String::new(),
        };
        client.swap = client.load(SWAP).await?;
        client.release = client.load(RELEASE).await?;
        client.scan = client.load(SCAN).await?;
        Ok(client)
    }
}

/// A connection to a Redis.
#[derive(Debug)]
pub(crate) struct RedisClient {
    wire: Wire,
    /// The request being made; kept for its memory.
    request: Vec<u8>,
    /// What its locks hold.
    owner: String,
    /// Names of the scripts, as Redis gives them.
    swap: String,
    release: String,
    scan: String,
}

/// An answer. Arrays hold strings only: nothing else is asked for.
#[derive(Debug, PartialEq)]
enum Reply {
    Status(Bytes),
    Integer(i64),
    Text(Option<Bytes>),
    Array(Vec<Option<Bytes>>),
}

impl RedisClient {
    async fn call(&mut self, words: &[&str]) -> Result<Reply, OpError> {
        encode(&mut self.request, words);
        self.wire.send(&self.request).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, OpError> {
        let line = self.line().await?;
        match line.first() {
            Some(b'+') => Ok(Reply::Status(line.slice(1..))),
            Some(b'-') => Err(OpError::Refused(clip(&String::from_utf8_lossy(&line)))),
            Some(b':') => number(&line).map(Reply::Integer),
            Some(b'$') => self.text(&line).await.map(Reply::Text),
            Some(b'*') => {
                let count = length(&line)?.unwrap_or(0);
                let mut items = Vec::new();
                for _ in 0..count {
                    let line = self.line().await?;
                    items.push(self.text(&line).await?);
                }
                Ok(Reply::Array(items))
            }
            _ => Err(OpError::wrong(String::from_utf8_lossy(&line))),
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<Bytes, OpError> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.wire.buffer[seen..].windows(2).position(|two| two == b"\r\n") {
                let line = self.wire.take(seen + at + 2).await?;
                return Ok(line.slice(..line.len() - 2));
            }
            seen = self.wire.buffer.len().saturating_sub(1);
            self.wire.fill().await?;
        }
    }

    /// The string that this line announces.
    async fn text(&mut self, line: &[u8]) -> Result<Option<Bytes>, OpError> {
        if line.first() != Some(&b'$') {
            return Err(OpError::wrong(String::from_utf8_lossy(line)));
        }
        match length(line)? {
            None => Ok(None),
            Some(length) => Ok(Some(self.wire.take(length + 2).await?.slice(..length))),
        }
    }

    async fn load(&mut self, script: &str) -> Result<String, OpError> {
        match self.call(&["SCRIPT", "LOAD", script]).await? {
            Reply::Text(Some(name)) => Ok(String::from_utf8_lossy(&name).into_owned()),
            other => Err(unexpected(&other)),
        }
    }

    async fn expect(&mut self, words: &[&str], expected: Reply) -> Result<(), OpError> {
        match self.call(words).await? {
            reply if reply == expected => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ok(&mut self, words: &[&str]) -> Result<(), OpError> {
        self.expect(words, Reply::Status(Bytes::from_static(b"OK"))).await
    }
}

fn encode(request: &mut Vec<u8>, words: &[&str]) {
    request.clear();
    // Writing to a Vec cannot fail.
    let _ = write!(request, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(request, "${}\r\n{word}\r\n", word.len());
    }
}

fn number(line: &[u8]) -> Result<i64, OpError> {
    let digits = std::str::from_utf8(line).ok().and_then(|line| line.get(1..));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| OpError::wrong(String::from_utf8_lossy(line)))
}

/// A length; -1 stands for nothing.
fn length(line: &[u8]) -> Result<Option<usize>, OpError> {
    match number(line)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= MAX_LENGTH => Ok(Some(length)),
            _ => Err(OpError::wrong(String::from_utf8_lossy(line))),
        },
    }
}

fn unexpected(reply: &Reply) -> OpError {
    OpError::wrong(format!("{reply:?}"))
}

impl Client for RedisClient {
    /// The value itself: Redis knows no versions.
    type Version = String;

    async fn get(&mut self, key: &str) -> Result<(), OpError> {
        match self.call(&["GET", key]).await? {
            Reply::Text(Some(value)) => number_in(&value).map(drop),
            other => Err(unexpected(&other)),
        }
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<(), OpError> {
        self.ok(&["SET", key, value]).await
    }

    async fn create(&mut self, key: &str, value: &str) -> Result<(), OpError> {
        self.ok(&["SET", key, value, "NX"]).await
    }

    async fn current(&mut self, key: &str) -> Result<(u64, String), OpError> {
        match self.call(&["GET", key]).await? {
            Reply::Text(Some(value)) => Ok((number_in(&value)?, String::from_utf8_lossy(&value).into_owned())),
            other => Err(unexpected(&other)),
        }
    }

    async fn swap(&mut self, key: &str, version: &String, value: &str) -> Result<Swap<String>, OpError> {
        let script = self.swap.clone();
        match self.call(&["EVALSHA", &script, "1", key, version, value]).await? {
            Reply::Integer(1) => Ok(Swap::Won(value.to_owned())),
            Reply::Text(Some(current)) => Ok(Swap::Lost(
                number_in(&current)?,
                String::from_utf8_lossy(&current).into_owned(),
            )),
            other => Err(unexpected(&other)),
        }
    }

    async fn put_all(&mut self, keys: &[String], value: &str) -> Result<(), OpError> {
        let pairs = keys.iter().flat_map(|key| [key.as_str(), value]);
        let words: Vec<_> = std::iter::once("MSET").chain(pairs).collect();
        self.ok(&words).await
    }

    async fn scan(&mut self, _after: &str, limit: usize) -> Result<(), OpError> {
        let script = self.scan.clone();
        match self.call(&["EVALSHA", &script, "0", &limit.to_string()]).await? {
            Reply::Array(values) if values.len() >= limit => values
                .iter()
                .try_for_each(|value| number_in(value.as_deref().unwrap_or_default()).map(drop)),
            Reply::Array(values) => Err(OpError::wrong(format!("{} values, not {limit}", values.len()))),
            other => Err(unexpected(&other)),
        }
    }

    async fn lock_unlock(&mut self, key: &str) -> Result<(), OpError> {
        let (owner, script) = (self.owner.clone(), self.release.clone());
        self.ok(&["SET", key, &owner, "NX", "PX", "30000"]).await?;
        self.expect(&["EVALSHA", &script, "1", key, &owner], Reply::Integer(1))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut request = Vec::new();
        encode(&mut request, &["GET", "k1"]);
        assert_eq!(request, b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n");
    }

    #[test]
    fn lengths_have_limits() {
        assert_eq!(length(b"$-1").unwrap(), None);
        assert_eq!(length(b"$12").unwrap(), Some(12));
        assert!(length(b"$-2").is_err());
        assert!(length(b"$99999999999").is_err());
        assert!(length(b"$x").is_err());
    }
}
