//! Requests as parts of traces.
//!
//! A request that came with a valid `traceparent` goes on in that trace, any other begins one; the gateway is told the span of this load
//! balancer in its place. Only where traces are exported: otherwise nothing of this runs, and `traceparent` crosses like any other header.

use trace::{Context, Kind, Span, TRACEPARENT, TRACESTATE, Tracer};

use crate::access_log::Entry;
use crate::error::ProxyError;

/// Asking a gateway how it is begins no trace.
const NEVER_BEGIN: [&[u8]; 3] = [b"/health", b"/ready", b"/metrics"];

/// What a request says of its trace.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    parent: Option<Vec<u8>>,
    /// Given more than once, it says nothing.
    parents: usize,
    /// May come in pieces.
    state: Option<String>,
}

impl Incoming {
    /// Takes a header that is about traces; false for any other.
    pub(crate) fn takes(&mut self, name: &str, value: &[u8]) -> bool {
        if name.eq_ignore_ascii_case(TRACEPARENT) {
            self.parents += 1;
            self.parent = Some(value.to_vec());
        } else if name.eq_ignore_ascii_case(TRACESTATE) {
            let piece = String::from_utf8_lossy(value);
            self.state = Some(match self.state.take() {
                Some(before) => format!("{before},{piece}"),
                None => piece.into_owned(),
            });
        } else {
            return false;
        }
        true
    }

    /// Begins the span of the request, if it is part of a trace or may begin one.
    pub(crate) fn begin(self, tracer: &Tracer, method: &str, path: &[u8]) -> Option<Span> {
        let parent = self.parent.filter(|_| self.parents == 1);
        let context = Context::read(parent.as_deref(), self.state.as_deref(), None);
        if context.span.is_none() && NEVER_BEGIN.contains(&path) {
            return None;
        }
        // Clients may make up methods without bound.
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
        let method = known.into_iter().find(|known| *known == method).unwrap_or("_OTHER");
        let mut span = tracer.begin(context, Kind::Server, method);
        span.set("http.request.method", method);
        Some(span)
    }
}

/// Ends the span of a request, with what the access log says of it.
pub(crate) fn end(mut span: Span, entry: &Entry, error: Option<&ProxyError>) {
    if !span.is_recorded() {
        return;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    span.set("url.path", text(&entry.path));
    span.set("request.id", text(&entry.request_id));
    span.set("client.address", entry.client.to_canonical().to_string());
    span.set("http.response.status_code", i64::from(entry.status));
    if let Some((gateway, _)) = entry.upstream {
        span.set("lb.gateway", gateway.to_string());
    }
    match error {
        Some(error) => span.failed(error),
        None if entry.status >= 500 => span.failed(entry.status),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trace::{Sink, SpanData};

    use super::*;

    struct Nowhere;

    impl Sink for Nowhere {
        fn take(&self, _: SpanData) {}
    }

    const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn begun(headers: &[(&str, &[u8])], path: &[u8]) -> Option<Context> {
        let tracer = Tracer::new(Box::new(Nowhere), 1.0, Arc::new(|| 7));
        let mut incoming = Incoming::default();
        for (name, value) in headers {
            assert!(incoming.takes(name, value), "{name}");
        }
        assert!(!incoming.takes("user-agent", b"x") && !incoming.takes("traceparents", b"x"));
        incoming.begin(&tracer, "POST", path).map(|span| span.context().clone())
    }

    fn trace_of(context: Option<Context>) -> Option<String> {
        context?.span.map(|span| span.trace_id.to_string())
    }

    #[test]
    fn a_valid_trace_goes_on_and_any_other_is_begun_anew() {
        const THEIRS: &str = "0af7651916cd43dd8448eb211c80319c";
        let state: [(&str, &[u8]); 2] = [("TraceState", b"a=1"), ("tracestate", b"b=2")];
        let context = begun(&[&[("Traceparent", PARENT)], state.as_slice()].concat(), b"/deliveries");
        assert_eq!(
            context.as_ref().and_then(|context| context.state.as_deref()),
            Some("a=1,b=2")
        );
        assert_ne!(
            context.as_ref().unwrap().span.unwrap().traceparent().as_bytes(),
            PARENT,
            "a span of its own"
        );
        assert_eq!(trace_of(context).as_deref(), Some(THEIRS));
        for headers in [
            [&[("traceparent", b"00-xyz".as_slice())], state.as_slice()].concat(),
            vec![("traceparent", PARENT), ("traceparent", PARENT)],
            state.to_vec(),
            Vec::new(),
        ] {
            let context = begun(&headers, b"/deliveries");
            assert_eq!(context.as_ref().and_then(|context| context.state.clone()), None);
            assert!(trace_of(context).is_some_and(|id| id != THEIRS), "{headers:?}");
        }
        assert_eq!(
            trace_of(begun(&[("traceparent", PARENT)], b"/health")).as_deref(),
            Some(THEIRS)
        );
        assert!(begun(&[], b"/health").is_none());
    }
}
