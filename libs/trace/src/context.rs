//! What goes from service to service, whatever carries it: headers of HTTP, headers of AMQP, fields of a record.

use std::sync::Arc;

use crate::ids::SpanContext;
use crate::state::is_tracestate;

/// Names the trace and the span that a request belongs to: a header of HTTP and of AMQP, and a field of an order's record.
pub const TRACEPARENT: &str = "traceparent";
/// Goes with it: what others keep in the trace.
pub const TRACESTATE: &str = "tracestate";
/// Names the request in logs.
pub const REQUEST_ID: &str = "x-request-id";
/// Longest request id, in bytes.
pub const REQUEST_ID_MAX_BYTES: usize = 128;

/// A request's trace, if it has one, and its id, if it has one. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The span that whatever follows belongs to.
    pub span: Option<SpanContext>,
    /// The `tracestate` beside it.
    pub state: Option<Arc<str>>,
    /// The id of the request in logs.
    pub request_id: Option<Arc<str>>,
}

impl Context {
    /// Reads what came along. What breaks the rules is left out: a `traceparent` together with its `tracestate`, a `tracestate` or an id
    /// alone.
    #[must_use]
    pub fn read(traceparent: Option<&[u8]>, tracestate: Option<&str>, request_id: Option<&str>) -> Self {
        let span = traceparent.and_then(|text| SpanContext::parse(text).ok());
        let state = tracestate.filter(|text| span.is_some() && is_tracestate(text));
        let is_id = |id: &&str| {
            (1..=REQUEST_ID_MAX_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        Self {
            span,
            state: state.map(Arc::from),
            request_id: request_id.filter(is_id).map(Arc::from),
        }
    }

    /// The same for another span of the trace.
    #[must_use]
    pub fn at(&self, span: Option<SpanContext>) -> Self {
        Self { span, ..self.clone() }
    }

    /// True when there is nothing to pass on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.span.is_none() && self.request_id.is_none()
    }

    /// What is to be passed on, as names and values of headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let span = self
            .span
            .map(|span| (TRACEPARENT, span.traceparent().as_str().to_owned()));
        let state = self.span.and(self.state.as_deref());
        let state = state.map(|state| (TRACESTATE, state.to_owned()));
        let id = self.request_id.as_deref().map(|id| (REQUEST_ID, id.to_owned()));
        [span, state, id].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_came_in_by_the_rules_goes_on() {
        let context = Context::read(Some(PARENT.as_bytes()), Some("a=1"), Some("id-7"));
        let headers: Vec<_> = context.headers().collect();
        let expected = [(TRACEPARENT, PARENT), (TRACESTATE, "a=1"), (REQUEST_ID, "id-7")];
        assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_broke_them_does_not() {
        let orphan = Context::read(Some(b"00-x"), Some("a=1"), Some("id 7"));
        assert!(orphan.is_empty() && orphan.state.is_none() && orphan.headers().count() == 0);
        let stateless = Context::read(Some(PARENT.as_bytes()), Some("A"), Some(&"i".repeat(129)));
        assert_eq!(stateless.headers().count(), 1);
    }
}
