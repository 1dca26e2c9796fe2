//! Requests as parts of traces: what came with a request, the span of answering it, and the scope in which it is answered.

use axum::response::Response;
use http::HeaderMap;
use trace::{Context, Kind, REQUEST_ID, Scope, Span, TRACEPARENT, TRACESTATE, Tracer};

/// Which requests are traced. Clones share the tracer.
#[derive(Debug, Clone, Default)]
pub enum Traced {
    /// None.
    #[default]
    No,
    /// Those that belong to a trace which is recorded: for servers that are asked by others of ours, and often.
    Following(Tracer),
    /// All; one that belongs to no trace begins one. Whether or not that is recorded, lines of the log have the request's id. Asking how the
    /// server is (`/health`, `/ready`, `/metrics`) begins none.
    Beginning(Tracer),
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering {
    span: Span,
    pub(super) scope: Scope,
}

impl Traced {
    pub(super) fn begin(&self, method: &'static str, route: &str, headers: &HeaderMap) -> Option<Answering> {
        let (tracer, context) = match self {
            Self::No => return None,
            Self::Following(tracer) => {
                let is_traced = tracer.is_on() && headers.contains_key(TRACEPARENT);
                let context = is_traced.then(|| read(headers))?;
                (
                    tracer,
                    context.span.is_some_and(|span| span.sampled).then_some(context)?,
                )
            }
            Self::Beginning(tracer) => (tracer, read(headers)),
        };
        let is_question = matches!(route, "/health" | "/ready" | "/metrics");
        let mut span = if tracer.is_on() && !(is_question && context.span.is_none()) {
            tracer.begin(context, Kind::Server, format!("{method} {route}"))
        } else {
            Span::unrecorded(context)
        };
        span.set("http.request.method", method);
        span.set_with("http.route", || route.to_owned());
        let id = span.context().request_id.clone();
        if let Some(id) = id {
            span.set_with("request.id", || id.to_string());
        }
        let scope = Scope::new(span.context().clone(), tracer);
        Some(Answering { span, scope })
    }
}

impl Answering {
    /// Ends the span with what is known of the answer.
    pub(super) fn end(mut self, response: &Response) {
        let status = response.status();
        self.span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            self.span.failed(status);
        }
    }
}

/// What came along. A `traceparent` given twice is none; a `tracestate` may come in pieces.
fn read(headers: &HeaderMap) -> Context {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next().filter(|_| parents.next().is_none());
    let mut states = headers
        .get_all(TRACESTATE)
        .iter()
        .filter_map(|state| state.to_str().ok());
    let first = states.next().map(str::to_owned);
    let state = first.map(|first| states.fold(first, |all, state| format!("{all},{state}")));
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    Context::read(parent.map(http::HeaderValue::as_bytes), state.as_deref(), id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse;
    use http::{HeaderValue, StatusCode};
    use trace::testing::Kept;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_request_goes_on_with_the_trace_it_came_with() {
        let kept = Kept::default();
        let tracer = Tracer::new(Box::new(kept.clone()), 1.0, Arc::new(|| 7));
        let came = headers(&[
            (TRACEPARENT, PARENT),
            (TRACESTATE, "a=1"),
            (TRACESTATE, "b=2"),
            (REQUEST_ID, "id-7"),
        ]);
        for traced in [Traced::Beginning(tracer.clone()), Traced::Following(tracer)] {
            let answering = traced.begin("GET", "/kv/{*key}", &came).unwrap();
            let context = answering.scope.context.clone();
            assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
            assert_eq!(context.request_id.as_deref(), Some("id-7"));
            answering.end(&StatusCode::SERVICE_UNAVAILABLE.into_response());
            let span = kept.lock().pop().unwrap();
            assert_eq!(Some(span.context), context.span);
            assert_eq!(span.parent.unwrap().to_string(), "b7ad6b7169203331");
            assert_eq!((span.name.as_ref(), span.kind), ("GET /kv/{*key}", Kind::Server));
            assert!(span.error.is_some());
        }
    }

    #[test]
    fn who_begins_traces_does_and_who_follows_does_not() {
        let tracer = Tracer::new(Box::new(Kept::default()), 1.0, Arc::new(|| 7));
        let twice = headers(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]);
        let plain = headers(&[]);
        let unsampled = headers(&[(TRACEPARENT, &PARENT.replace("-01", "-00"))]);
        for came in [&twice, &plain, &unsampled] {
            assert!(Traced::Following(tracer.clone()).begin("GET", "/kv", came).is_none());
        }
        assert!(Traced::No.begin("GET", "/kv", &twice).is_none());
        let begun = |route, came| {
            Traced::Beginning(tracer.clone())
                .begin("GET", route, came)
                .unwrap()
                .scope
                .context
        };
        let trace_of = |context: Context| context.span.map(|span| span.trace_id.to_string());
        assert!(trace_of(begun("/zones", &plain)).is_some() && trace_of(begun("/health", &plain)).is_none());
        assert_ne!(trace_of(begun("/zones", &twice)), trace_of(begun("/zones", &unsampled)));
        let off = Traced::Beginning(Tracer::off()).begin("GET", "/zones", &headers(&[(TRACEPARENT, PARENT)]));
        let passed = off.unwrap().scope.context;
        assert_eq!(
            passed.span.unwrap().traceparent().as_str(),
            PARENT,
            "passed on as it came"
        );
    }
}
