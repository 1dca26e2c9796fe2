//! Locks: held until released, dropped or out of time.

use std::time::{Duration, Instant};

use kv_api::{LockAnswer, OkAnswer, check_key, check_name, encode_key, ttl_ms};
use reqwest::Method;

use crate::{Kv, KvError};

/// No body.
const NONE: Option<&()> = None;

/// What became of asking for a lock.
#[derive(Debug)]
#[must_use = "a lock that is dropped is released"]
pub enum Acquired {
    /// The caller holds it.
    Yes(LockGuard),
    /// Somebody else does.
    No(Held),
}

impl Acquired {
    /// The guard, if the lock was taken.
    #[must_use]
    pub fn guard(self) -> Option<LockGuard> {
        match self {
            Self::Yes(guard) => Some(guard),
            Self::No(_) => None,
        }
    }
}

/// Somebody else holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How long it lasts at most, unless renewed; `None` when the server did not say.
    pub expires_in: Option<Duration>,
}

/// A lock that is held. Dropping it without [`LockGuard::release`] starts a best-effort release in the background, and if that
/// fails too the lock frees itself at the end of its time.
#[derive(Debug)]
pub struct LockGuard {
    kv: Kv,
    name: String,
    token: String,
    /// Grows with each acquisition: pass it to `cas` and `put`, so that writes of a holder who lost the lock are refused.
    pub fence: u64,
    /// When the lock is over, unless renewed; counted from before it was asked for, so never too late.
    pub expires: Instant,
    released: bool,
}

impl Kv {
    /// Asks for the lock `name`, for `ttl` from now. `owner` says who, for people who look; when it is not empty, nobody can
    /// release the lock without its token.
    /// After [`KvError::Unknown`] the lock may be held by nobody who knows its token, until `ttl` is over.
    ///
    /// # Errors
    /// See [`KvError`]; that somebody else holds it is no error.
    pub async fn lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<Acquired, KvError> {
        check_key(name)?;
        check_name("owner", owner)?;
        let ttl_sec = checked_ttl_sec(ttl)?;
        let path = format!(
            "/lock/acquire/{}?ttl_sec={ttl_sec}&owner={}",
            encode_key(name),
            encode_key(owner)
        );
        let asked = Instant::now();
        let answer: LockAnswer = self.write(Method::POST, &path, NONE).await?;
        if !answer.ok {
            let expires_in = answer
                .expires_in_sec
                .and_then(|sec| Duration::try_from_secs_f64(sec).ok());
            return Ok(Acquired::No(Held { expires_in }));
        }
        let (Some(token), Some(fence)) = (answer.token, answer.fence) else {
            return Err(KvError::decode(
                &format!("lock {name:?}"),
                "ok, but without token and fence",
            ));
        };
        Ok(Acquired::Yes(LockGuard {
            kv: self.clone(),
            name: name.to_owned(),
            token,
            fence,
            expires: asked + ttl,
            released: false,
        }))
    }
}

impl LockGuard {
    /// The lock's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long the lock is certainly still held; zero when it may be over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    /// Holds on for `ttl` from now; answers whether the lock was still held. After `false` it is somebody else's or nobody's.
    ///
    /// # Errors
    /// See [`KvError`]; the former end then still stands at the earliest.
    pub async fn renew(&mut self, ttl: Duration) -> Result<bool, KvError> {
        let ttl_sec = checked_ttl_sec(ttl)?;
        let (name, token) = (encode_key(&self.name), encode_key(&self.token));
        let asked = Instant::now();
        let path = format!("/lock/renew/{name}?token={token}&ttl_sec={ttl_sec}");
        let answer: LockAnswer = self.kv.write(Method::POST, &path, NONE).await?;
        if answer.ok {
            self.expires = asked + ttl;
        } else {
            // Nothing is left to release.
            self.released = true;
            self.expires = asked;
        }
        Ok(answer.ok)
    }

    /// Gives the lock back; answers whether it was still held.
    ///
    /// # Errors
    /// See [`KvError`]; the lock then frees itself at its end at the latest.
    pub async fn release(mut self) -> Result<bool, KvError> {
        if self.released {
            return Ok(false);
        }
        self.released = true;
        release(&self.kv, &self.name, &self.token).await
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.released || self.remaining().is_zero() {
            return;
        }
        // Outside a runtime (or while it stops) the time to live does it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (kv, name, token) = (
            self.kv.clone(),
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.token),
        );
        runtime.spawn(async move {
            if let Err(error) = release(&kv, &name, &token).await {
                tracing::warn!(lock = name, %error, "a dropped lock was not released; it ends by its time to live");
            }
        });
    }
}

async fn release(kv: &Kv, name: &str, token: &str) -> Result<bool, KvError> {
    let path = format!("/lock/release/{}?token={}", encode_key(name), encode_key(token));
    let answer: OkAnswer = kv.write(Method::POST, &path, NONE).await?;
    Ok(answer.ok)
}

fn checked_ttl_sec(ttl: Duration) -> Result<f64, KvError> {
    let ttl_sec = ttl.as_secs_f64();
    ttl_ms(ttl_sec)?;
    Ok(ttl_sec)
}
