//! Spans: pieces of work with a beginning and an end.

use std::borrow::Cow;
use std::sync::Arc;

use crate::context::Context;
use crate::ids::{SpanContext, SpanId};
use crate::tracer::Tracer;

/// What part a span plays, as OpenTelemetry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work of the service itself.
    Internal,
    /// It answers a request.
    Server,
    /// It waits for the answer of another service.
    Client,
    /// It hands a message to the bus.
    Producer,
    /// It takes a message from the bus.
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

/// A finished span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanData {
    /// Its trace and its id.
    pub context: SpanContext,
    /// The span it belongs to; none of the first one.
    pub parent: Option<SpanId>,
    /// The `tracestate` it came with.
    pub state: Option<Arc<str>>,
    /// What was done, in few words and with few values: `POST /deliveries`.
    pub name: Cow<'static, str>,
    /// The part it plays.
    pub kind: Kind,
    /// When it began, Unix nanoseconds.
    pub started_ns: u64,
    /// When it ended, Unix nanoseconds; not before it began.
    pub ended_ns: u64,
    /// What is known about it; names by OpenTelemetry's conventions where there is one.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// A span that has begun. It ends when it is dropped. One that is not recorded costs nothing, and passes on the context it was given.
#[derive(Debug)]
pub struct Span {
    /// For whatever belongs to it.
    context: Context,
    recorded: Option<(Box<SpanData>, Tracer)>,
}

impl Span {
    /// One that is not recorded.
    #[must_use]
    pub fn unrecorded(context: Context) -> Self {
        Self {
            context,
            recorded: None,
        }
    }

    pub(crate) fn recorded(context: Context, data: SpanData, tracer: Tracer) -> Self {
        Self {
            context,
            recorded: Some((Box::new(data), tracer)),
        }
    }

    /// The context of whatever belongs to it.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// True when somebody will see it: what is costly to say need not be worked out otherwise.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// Adds an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some((data, _)) = &mut self.recorded {
            data.attributes.push((name, value.into()));
        }
    }

    /// Adds an attribute that has to be worked out.
    pub fn set_with<V: Into<Value>>(&mut self, name: &'static str, value: impl FnOnce() -> V) {
        if let Some((data, _)) = &mut self.recorded {
            data.attributes.push((name, value().into()));
        }
    }

    /// It failed, and why.
    pub fn failed(&mut self, why: impl std::fmt::Display) {
        if let Some((data, _)) = &mut self.recorded {
            data.error = Some(why.to_string());
        }
    }

    /// It never was: nobody hears of it.
    pub fn discard(mut self) {
        self.recorded = None;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((mut data, tracer)) = self.recorded.take() {
            data.ended_ns = tracer.now_ns().max(data.started_ns);
            tracer.finish(*data);
        }
    }
}
