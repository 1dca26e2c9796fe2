//! Who begins spans, and where they go.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::context::Context;
use crate::ids::{SpanContext, SpanId, TraceId};
use crate::span::{Kind, Span, SpanData};

/// Where randomness comes from: any number, each as likely as any other.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where finished spans go. Called wherever a span ends, so it must neither wait nor fail: what it cannot take it drops, and counts.
pub trait Sink: Send + Sync {
    /// Takes a span.
    fn take(&self, span: SpanData);
}

/// Begins the spans of one service. Clones share it.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    sink: Box<dyn Sink>,
    random: Random,
    /// Of traces begun here, those whose id's lower 63 bits are below this are recorded.
    sampled_below: u64,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Tracer {
    /// Records nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Hands spans to `sink`. Of the traces that begin here the share `ratio` (0 to 1) is recorded, chosen by the trace's id; of those that
    /// come in, whatever their beginner chose to record.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>, ratio: f64, random: Random) -> Self {
        const ALL: u64 = 1 << 63;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of 2^63, which need not be exact"
        )]
        let sampled_below = (ratio.clamp(0.0, 1.0) * ALL as f64) as u64;
        Self(Some(Arc::new(Inner {
            sink,
            random,
            sampled_below,
        })))
    }

    /// Whether anything may be recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span of the trace that came in; without one, the first span of a new trace.
    #[must_use]
    pub fn begin(&self, context: Context, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        let Some(inner) = &self.0 else {
            return Span::unrecorded(context);
        };
        let at = match context.span {
            Some(parent) => parent.sampled.then(|| inner.child(parent)),
            None => Some(inner.root()),
        };
        match at {
            None => Span::unrecorded(context),
            // Others are told that this trace is not recorded, or they would begin one of their own.
            Some(at) if !at.sampled => Span::unrecorded(context.at(Some(at))),
            Some(at) => self.record(&context, at, kind, name.into()),
        }
    }

    /// Begins a span of the trace that came in; without one, none.
    #[must_use]
    pub fn follow(&self, context: Context, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        if context.span.is_none() {
            return Span::unrecorded(context);
        }
        self.begin(context, kind, name)
    }

    fn record(&self, context: &Context, at: SpanContext, kind: Kind, name: Cow<'static, str>) -> Span {
        let started_ns = self.now_ns();
        let data = SpanData {
            context: at,
            parent: context.span.map(|parent| parent.span_id),
            state: context.state.clone(),
            name,
            kind,
            started_ns,
            ended_ns: started_ns,
            attributes: Vec::new(),
            error: None,
        };
        Span::recorded(context.at(Some(at)), data, self.clone())
    }

    /// The machine's clock, as spans are dated: on one machine they would otherwise not fit together.
    #[expect(
        clippy::unused_self,
        reason = "time is the tracer's business, whatever clock that is"
    )]
    pub(crate) fn now_ns(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn finish(&self, span: SpanData) {
        if let Some(inner) = &self.0 {
            inner.sink.take(span);
        }
    }
}

impl Inner {
    fn root(&self) -> SpanContext {
        let low = (self.random)();
        let id = u128::from((self.random)()) << 64 | u128::from(low);
        // Zero, once in 2^128: any other number will do.
        let trace_id = TraceId::new(id.max(1)).expect("at least 1");
        SpanContext {
            trace_id,
            span_id: self.span_id(),
            sampled: low & (u64::MAX >> 1) < self.sampled_below,
        }
    }

    fn child(&self, parent: SpanContext) -> SpanContext {
        SpanContext {
            span_id: self.span_id(),
            ..parent
        }
    }

    fn span_id(&self) -> SpanId {
        SpanId::new((self.random)().max(1)).expect("at least 1")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::span::Value;
    use crate::testing::Kept;

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn random() -> Random {
        let state = AtomicU64::new(7);
        Arc::new(move || {
            let mut z = state
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    fn tracer(ratio: f64) -> (Tracer, Kept) {
        let kept = Kept::default();
        (Tracer::new(Box::new(kept.clone()), ratio, random()), kept)
    }

    #[test]
    fn spans_of_a_trace_are_linked() {
        let (tracer, kept) = tracer(1.0);
        let mut first = tracer.begin(Context::default(), Kind::Server, "first");
        let mut second = tracer.follow(first.context().clone(), Kind::Client, "second");
        second.set("n", 7_i64);
        second.failed("broken");
        drop(second);
        first.set_with("text", || "worked out".to_owned());
        drop(first);
        let spans = kept.lock().clone();
        let [second, first] = spans.as_slice() else {
            panic!("{spans:?}")
        };
        assert_eq!((first.parent, second.parent), (None, Some(first.context.span_id)));
        assert_eq!(first.context.trace_id, second.context.trace_id);
        assert_ne!(first.context.span_id, second.context.span_id);
        assert_eq!(second.attributes, [("n", Value::Int(7))]);
        assert_eq!(second.error.as_deref(), Some("broken"));
        assert!(first.started_ns <= second.started_ns && second.ended_ns <= first.ended_ns);
    }

    #[test]
    fn what_came_in_decides_whether_it_is_recorded() {
        let (tracer, kept) = tracer(0.0);
        let begun = tracer.begin(Context::default(), Kind::Server, "begun here");
        let unsampled = begun.context().clone();
        assert!(!begun.is_recorded() && unsampled.span.is_some_and(|span| !span.sampled));
        let below = tracer.begin(unsampled.clone(), Kind::Client, "below it");
        assert_eq!(below.context(), &unsampled, "passed on as it came");
        let sampled = unsampled.at(unsampled.span.map(|span| SpanContext { sampled: true, ..span }));
        let recorded = tracer.begin(sampled.clone(), Kind::Server, "recorded");
        assert!(recorded.is_recorded() && recorded.context().span != sampled.span);
        assert!(
            !tracer
                .follow(Context::default(), Kind::Server, "no trace")
                .is_recorded()
        );
        recorded.discard();
        drop((begun, below));
        assert!(kept.lock().is_empty());
    }

    #[test]
    fn a_tracer_that_is_off_passes_on_what_came() {
        let (on, _) = tracer(1.0);
        let came = on
            .begin(Context::default(), Kind::Server, "elsewhere")
            .context()
            .clone();
        let span = Tracer::off().begin(came.clone(), Kind::Server, "here");
        assert!(!span.is_recorded() && *span.context() == came);
        assert!(
            Tracer::off()
                .begin(Context::default(), Kind::Server, "here")
                .context()
                .is_empty()
        );
    }

    #[test]
    fn a_share_of_the_traces_is_recorded() {
        let (tracer, kept) = tracer(0.25);
        for _ in 0..4_000 {
            drop(tracer.begin(Context::default(), Kind::Server, "one of many"));
        }
        let count = kept.lock().len();
        assert!((900..1_100).contains(&count), "{count} of 4000");
    }
}
