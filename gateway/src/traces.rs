//! Orders as parts of traces: the record says on whose behalf it was made, so that whoever moves the order on can say so too.

use domain::delivery::Delivery;
use trace::Context;

/// The record of an order that is accepted here and now.
pub(crate) fn on_behalf(record: Delivery) -> Delivery {
    let context = trace::with_current(|scope| scope.context.clone()).unwrap_or_default();
    let text = |text: &std::sync::Arc<str>| text.to_string();
    Delivery {
        traceparent: context.span.map(|span| span.traceparent().as_str().to_owned()),
        tracestate: context.span.and(context.state.as_ref()).map(text),
        request_id: context.request_id.as_ref().map(text),
        ..record
    }
}

/// On whose behalf an order was made.
pub(crate) fn context_of(record: &Delivery) -> Context {
    let parent = record.traceparent.as_deref().map(str::as_bytes);
    Context::read(parent, record.tracestate.as_deref(), record.request_id.as_deref())
}
