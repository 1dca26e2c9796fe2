//! One operation on one key: as a call, as one of a batch, and what an answer to it says.

use linearizability::Op;
use reqwest::Method;
use serde_json::{Value, json};

use super::record::{Seen, TTL};

/// One operation on one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Get,
    Put {
        id: u32,
        ends: bool,
        fence: Option<u64>,
    },
    Delete,
    DeleteVersion {
        expected: u32,
        version: String,
    },
    Cas {
        expected: Option<u32>,
        by: By,
        id: u32,
        fence: Option<u64>,
    },
    Acquire {
        id: u32,
        owned: bool,
    },
    Renew {
        id: u32,
        token: String,
    },
    /// With the token, or whoever holds it.
    Release(Option<(u32, String)>),
}

/// How a CAS says what it expects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum By {
    Value,
    Version(Option<String>),
}

impl What {
    pub(crate) fn fence(&self) -> Option<u64> {
        match self {
            Self::Put { fence, .. } | Self::Cas { fence, .. } => *fence,
            _ => None,
        }
    }

    /// As a call of its own: method, path and body.
    pub(crate) fn as_call(&self, key: &str) -> (Method, String, Option<Value>) {
        let ttl_sec = TTL.as_secs_f64();
        match self {
            Self::Get => (Method::GET, format!("/kv/{key}"), None),
            Self::Put { .. } => (Method::PUT, format!("/kv/{key}"), Some(self.fields())),
            Self::Delete => (Method::DELETE, format!("/kv/{key}"), None),
            Self::DeleteVersion { version, .. } => (Method::DELETE, format!("/kv/{key}?version={version}"), None),
            Self::Cas { .. } => {
                let mut body = self.fields();
                body["key"] = key.into();
                (Method::POST, "/kv/cas".to_owned(), Some(body))
            }
            Self::Acquire { id, owned } => {
                let owner = if *owned {
                    format!("&owner=client-{id}")
                } else {
                    String::new()
                };
                (
                    Method::POST,
                    format!("/lock/acquire/{key}?ttl_sec={ttl_sec}{owner}"),
                    None,
                )
            }
            Self::Renew { token, .. } => (
                Method::POST,
                format!("/lock/renew/{key}?token={token}&ttl_sec={ttl_sec}"),
                None,
            ),
            Self::Release(Some((_, token))) => (Method::POST, format!("/lock/release/{key}?token={token}"), None),
            Self::Release(None) => (Method::POST, format!("/lock/release/{key}"), None),
        }
    }

    /// As one of a batch; none for what a batch cannot do.
    pub(crate) fn as_batch_op(&self, key: &str) -> Option<Value> {
        let name = match self {
            Self::Get => "get",
            Self::Put { .. } => "put",
            Self::Delete | Self::DeleteVersion { .. } => "delete",
            Self::Cas { .. } => "cas",
            Self::Acquire { .. } => "lock",
            Self::Release(_) => "unlock",
            Self::Renew { .. } => return None,
        };
        let mut op = self.fields();
        op["op"] = name.into();
        op["key"] = key.into();
        Some(op)
    }

    /// The fields that a call's body and an operation of a batch have in common.
    fn fields(&self) -> Value {
        let ttl_sec = TTL.as_secs_f64();
        let mut fields = match self {
            Self::Put { id, ends: false, .. } => json!({ "value": id }),
            Self::Put { id, ends: true, .. } => json!({ "value": id, "ttl_sec": ttl_sec }),
            Self::DeleteVersion { version, .. } => json!({ "version": version }),
            Self::Cas {
                expected,
                by: By::Value,
                id,
                ..
            } => json!({ "old": expected, "new": id }),
            Self::Cas {
                by: By::Version(version),
                id,
                ..
            } => json!({ "version": version, "new": id }),
            Self::Acquire { owned: false, .. } => json!({ "ttl_sec": ttl_sec }),
            Self::Acquire { owned: true, id } => json!({ "ttl_sec": ttl_sec, "owner": format!("client-{id}") }),
            Self::Release(Some((_, token))) => json!({ "token": token }),
            Self::Get | Self::Delete | Self::Renew { .. } | Self::Release(None) => json!({}),
        };
        if let Self::Put { fence: Some(fence), .. } | Self::Cas { fence: Some(fence), .. } = self {
            fields["fence"] = (*fence).into();
        }
        fields
    }
}

/// An answer, in the checker's words.
pub(crate) struct Heard {
    pub(crate) op: Op,
    /// What is there now, as far as the answer tells.
    pub(crate) seen: Option<Seen>,
    pub(crate) fence: Option<u64>,
    pub(crate) refused_below: Option<u64>,
}

/// What an answer says; none when it is no answer to that.
pub(crate) fn understood(what: &What, status: u16, body: &Value) -> Option<Heard> {
    let version = || body["version"].as_str().map(str::to_owned);
    let value = |value| {
        Some(Seen {
            value,
            version: version(),
            holder: None,
        })
    };
    let heard = |op, seen| {
        Some(Heard {
            op,
            seen,
            fence: None,
            refused_below: None,
        })
    };
    if (status, what) == (404, &What::Get) {
        return heard(Op::Read(None), value(None));
    }
    if status != 200 {
        return None;
    }
    let ok = || body["ok"].as_bool();
    match what {
        What::Get => {
            let id = id_of(&body["value"])?;
            heard(Op::Read(id), value(id))
        }
        What::Put { id, fence, .. } => changed(*fence, body, Op::Write(Some(*id)), value(Some(*id))),
        What::Delete => (ok()?).then(|| heard(Op::Write(None), value(None)))?,
        What::DeleteVersion { expected, .. } => swap(Some(*expected), None, None, body, version()),
        What::Cas {
            expected, id, fence, ..
        } => swap(*expected, Some(*id), *fence, body, version()),
        What::Acquire { id, owned } => {
            let took = ok()?;
            let token = body["token"].as_str().map(|token| (*id, token.to_owned()));
            let fence = body["fence"].as_u64();
            // Whoever takes a lock is told its token and its fence.
            (!took || (token.is_some() && fence.is_some())).then_some(Heard {
                op: Op::Acquire {
                    token: *id,
                    owned: *owned,
                    took: Some(took),
                },
                seen: took.then(|| Seen {
                    holder: token,
                    ..Seen::default()
                }),
                fence: if took { fence } else { None },
                refused_below: None,
            })
        }
        What::Renew { id, .. } => heard(
            Op::Renew {
                token: *id,
                held: Some(ok()?),
            },
            None,
        ),
        What::Release(token) => {
            let token = token.as_ref().map(|(id, _)| *id);
            heard(
                Op::Release {
                    token,
                    freed: Some(ok()?),
                },
                None,
            )
        }
    }
}

/// A change that a fence may have refused.
fn changed(fence: Option<u64>, body: &Value, op: Op, seen: Option<Seen>) -> Option<Heard> {
    let ok = body["ok"].as_bool()?;
    let refused_below = body["fence_seen"].as_u64();
    // It was refused just when it says for which fence.
    (ok == refused_below.is_none()).then_some(Heard {
        op,
        seen: seen.filter(|_| ok),
        fence,
        refused_below,
    })
}

fn swap(
    expected: Option<u32>,
    new: Option<u32>,
    fence: Option<u64>,
    body: &Value,
    version: Option<String>,
) -> Option<Heard> {
    let cas = |swapped| Op::Cas { expected, new, swapped };
    if body["ok"] == true || body.get("fence_seen").is_some() {
        return changed(
            fence,
            body,
            cas(Some(true)),
            Some(Seen {
                value: new,
                version,
                holder: None,
            }),
        );
    }
    let found = id_of(body.get("current")?)?;
    let seen = Some(Seen {
        value: found,
        version,
        holder: None,
    });
    Some(Heard {
        op: Op::CasMissed { expected, found },
        seen,
        fence,
        refused_below: None,
    })
}

/// The id that is a value; `Some(None)` for null, and none for what no client of ours has written.
fn id_of(value: &Value) -> Option<Option<u32>> {
    if value.is_null() {
        return Some(None);
    }
    value.as_u64().and_then(|id| u32::try_from(id).ok()).map(Some)
}

/// A change whose outcome is not known, and its fence. A read leaves no trace.
pub(crate) fn open(what: &What) -> Option<(Op, Option<u64>)> {
    Some(match what {
        What::Get => return None,
        What::Put { id, fence, .. } => (Op::Write(Some(*id)), *fence),
        What::Delete => (Op::Write(None), None),
        What::DeleteVersion { expected, .. } => (
            Op::Cas {
                expected: Some(*expected),
                new: None,
                swapped: None,
            },
            None,
        ),
        What::Cas {
            expected, id, fence, ..
        } => (
            Op::Cas {
                expected: *expected,
                new: Some(*id),
                swapped: None,
            },
            *fence,
        ),
        What::Acquire { id, owned } => (
            Op::Acquire {
                token: *id,
                owned: *owned,
                took: None,
            },
            None,
        ),
        What::Renew { id, .. } => (Op::Renew { token: *id, held: None }, None),
        What::Release(token) => (
            Op::Release {
                token: token.as_ref().map(|(id, _)| *id),
                freed: None,
            },
            None,
        ),
    })
}
