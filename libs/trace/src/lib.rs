//! What a request takes along through every service: its trace and its id.
//!
//! Promises: a `traceparent` is read and written as the W3C Recommendation *Trace Context* (level 1, 2021) has it, strictly; a
//! `tracestate` is passed on unread, or left out when it breaks the rules. Without a [`Tracer`] that records, a context that came in is
//! still passed on, nothing is recorded, and nothing is allocated for it. No network here: where finished spans go is a [`Sink`].
//!
//! - [`SpanContext`]: trace id, span id, sampled or not; [`Traceparent`], its text.
//! - [`Context`]: that, with what goes along with it: `tracestate`, and the id of the request in logs.
//! - [`Tracer`] and [`Span`]: beginning and ending spans.
//! - [`Scope`]: a context and a tracer as a task's own, so that calls it makes (KV, bus) and lines it logs find them.

mod context;
mod ids;
mod scope;
mod span;
mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tracer;

pub use context::{Context, REQUEST_ID, REQUEST_ID_MAX_BYTES, TRACEPARENT, TRACESTATE};
pub use ids::{ParseError, SpanContext, SpanId, TRACEPARENT_BYTES, TraceId, Traceparent};
pub use scope::{Scope, carried, current, with_current, within};
pub use span::{Kind, Span, SpanData, Value};
pub use state::{TRACESTATE_MAX_BYTES, is_tracestate};
pub use tracer::{Random, Sink, Tracer};
