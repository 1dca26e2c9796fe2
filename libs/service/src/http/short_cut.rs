//! Past the router: for the few calls that are made so often that being found costs them as much as being done.
//!
//! A router finds any route in the same way: it matches the path, writes down what it has found, and calls one boxed service inside of
//! another. A server that does little else per call can name its few busiest itself, and hands them to the very handlers that the router
//! would have called.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::response::Response;
use http::Method;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;

use super::measured::{RequestMetrics, Route, label_of};

/// The answer to a request that took a short cut.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A short cut for requests with a method and a path.
pub struct ShortCut {
    /// The method.
    pub method: Method,
    /// What the path begins with, or all of it where `whole`.
    pub path: &'static str,
    /// The path is just that.
    pub whole: bool,
    /// What the router calls the route, for metrics.
    pub route: &'static str,
    /// Answers the request, as the router's own handler does.
    pub handler: Box<dyn Fn(Request) -> Answer + Send + Sync>,
}

impl std::fmt::Debug for ShortCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShortCut({} {})", self.method, self.path)
    }
}

impl ShortCut {
    /// A short cut for paths that begin with `path` to a router's handler with its state, for bodies of at most so many bytes.
    pub fn to<H, T, S>(
        state: &S,
        body_limit_bytes: usize,
        (method, path, route): (Method, &'static str, &'static str),
        handler: H,
    ) -> Self
    where
        H: Handler<T, S> + Sync,
        S: Clone + Send + Sync + 'static,
    {
        let state = state.clone();
        Self {
            method,
            path,
            whole: false,
            route,
            handler: Box::new(move |mut request| {
                DefaultBodyLimit::max(body_limit_bytes).apply(&mut request);
                Box::pin(handler.clone().call(request, state.clone()))
            }),
        }
    }

    /// The same for one call only: `path` is all of the path, and its route.
    pub fn to_whole<H, T, S>(
        state: &S,
        body_limit_bytes: usize,
        (method, path): (Method, &'static str),
        handler: H,
    ) -> Self
    where
        H: Handler<T, S> + Sync,
        S: Clone + Send + Sync + 'static,
    {
        Self {
            whole: true,
            ..Self::to(state, body_limit_bytes, (method, path, path), handler)
        }
    }

    fn takes(&self, request: &hyper::Request<Incoming>) -> bool {
        let path = request.uri().path();
        let is_there = if self.whole {
            path == self.path
        } else {
            path.starts_with(self.path)
        };
        is_there && request.method() == self.method
    }
}

/// A router with short cuts. Clones share it.
#[derive(Debug, Clone)]
pub struct ShortCuts {
    router: TowerToHyperService<Router>,
    short_cuts: Arc<[ShortCut]>,
    requests: RequestMetrics,
}

impl ShortCuts {
    /// Short cuts, the busiest first, and the router for everything else. `requests` are the metrics the router has.
    #[must_use]
    pub fn new(router: Router, short_cuts: Vec<ShortCut>, requests: RequestMetrics) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            short_cuts: short_cuts.into(),
            requests,
        }
    }
}

impl hyper::service::Service<hyper::Request<Incoming>> for ShortCuts {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let Some(short_cut) = self.short_cuts.iter().find(|short_cut| short_cut.takes(&request)) else {
            return Box::pin(self.router.call(request));
        };
        let (method, route) = (label_of(&short_cut.method), Route::Fixed(short_cut.route));
        let answering = self.requests.begin(method, &route, request.headers());
        let answer = (short_cut.handler)(request.map(Body::new));
        let requests = self.requests.clone();
        Box::pin(async move { Ok(requests.measure(method, route, answering, answer).await) })
    }
}
