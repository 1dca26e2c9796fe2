//! Accepting connections with limits and a graceful stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::write_timeout::WriteTimeout;
use crate::shutdown::Shutdown;

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections served at once; further ones wait in the listener's backlog.
    pub max_connections: usize,
    /// How long a client may take to send a request's head; also the longest a kept-alive connection may idle.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready for it; then its connection is closed.
    pub write_timeout: Duration,
    /// After the stop signal, how long answers under way may take.
    pub grace: Duration,
    /// Pause after a failed accept (out of file descriptors), so that it does not spin.
    pub accept_backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8_192,
            header_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(3),
            accept_backoff: Duration::from_millis(50),
        }
    }
}

/// Serves an axum router until `shutdown`; then stops accepting, lets answers under way end within the grace, and returns.
pub async fn serve_router(listener: TcpListener, router: Router, limits: Limits, shutdown: Shutdown) {
    let service = TowerToHyperService::new(router);
    serve(listener, move |_| service.clone(), limits, shutdown).await;
}

/// Serves a hyper service, made for each connection from the client's address, as [`serve_router`] does.
pub async fn serve<M, S, B>(listener: TcpListener, make: M, limits: Limits, shutdown: Shutdown)
where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let mut builder = http1::Builder::new();
    // Without `pipeline_flush`: it takes away the bound of the write buffer, and a client that never reads would fill the memory.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout);
    loop {
        let accepted = tokio::select! {
            () = shutdown.stopped() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                shutdown.sleep(limits.accept_backoff).await;
                continue;
            }
        };
        // Small answers must not wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(WriteTimeout::new(stream, limits.write_timeout));
        let connection = graceful.watch(builder.serve_connection(stream, make(peer)));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::debug!("connections were still open after the grace of {:?}", limits.grace);
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

#[cfg(test)]
mod tests {
    use axum::routing::post;

    use super::*;
    use crate::Tasks;
    use crate::http::{ApiError, Json, detached, with_common_routes};
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_client_that_never_reads_is_given_up() {
        static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
        let shutdown = Shutdown::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        // Told by its end that the connection, and the answer with it, is gone.
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let alive = Arc::new(std::sync::Mutex::new(Some(alive)));
        let endless = axum::routing::get(move || {
            let alive = alive.lock().unwrap().take();
            async move {
                let mut asked_bytes = 0;
                let pieces = futures_util::stream::repeat_with(move || {
                    let _held = &alive;
                    asked_bytes += PIECE.len();
                    assert!(
                        asked_bytes < 64 * 1024 * 1024,
                        "an answer nobody reads is not asked for"
                    );
                    Ok::<_, Infallible>(Bytes::from_static(&PIECE))
                });
                axum::body::Body::from_stream(pieces)
            }
        });
        let limits = Limits {
            write_timeout: Duration::from_millis(100),
            ..Limits::default()
        };
        let router = Router::new().route("/", endless);
        let server = tokio::spawn(serve_router(listener, router, limits, shutdown.clone()));
        let mut client = TcpStream::connect(addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), gone).await;
        assert!(ended.expect("the connection is closed").is_err());
        shutdown.stop();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_an_error_answer() {
        let shutdown = Shutdown::new();
        let boom = axum::routing::get(|| async {
            if true {
                panic!("on purpose");
            }
        });
        let router = with_common_routes(
            Router::new().route("/boom", boom),
            Tasks::new(shutdown.child()),
            Metrics::new("test"),
            64,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve_router(listener, router, Limits::default(), shutdown.clone()));
        let answer = reqwest::get(format!("{base}/boom")).await.unwrap();
        assert_eq!(answer.status().as_u16(), 500);
        let body: serde_json::Value = answer.json().await.unwrap();
        assert!(body["detail"].is_string() && body["outcome"] == "unknown", "{body}");
        shutdown.stop();
    }

    #[tokio::test]
    async fn common_routes_errors_and_a_graceful_stop() {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.child());
        let beat = tasks.check("kv", Duration::from_secs(60));
        let echo = post(|Json(body): Json<serde_json::Value>| detached(async move { Ok::<_, ApiError>(Json(body)) }));
        let router = with_common_routes(Router::new().route("/echo", echo), tasks, Metrics::new("test"), 64);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(serve_router(listener, router, Limits::default(), shutdown.clone()));

        let client = reqwest::Client::new();
        let status = async |path: &str| {
            client
                .get(format!("{base}{path}"))
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        assert_eq!(status("/ready").await, 503);
        beat.ok();
        assert_eq!(status("/ready").await, 200);
        assert_eq!(status("/nowhere").await, 404);
        assert_eq!(status("/echo").await, 405);
        let post = async |body: String| client.post(format!("{base}/echo")).body(body).send().await.unwrap();
        assert_eq!(post("{\"a\":1}".to_owned()).await.text().await.unwrap(), "{\"a\":1}");
        let large = post(format!("\"{}\"", "x".repeat(65))).await;
        assert_eq!(large.status().as_u16(), 413);
        assert!(large.json::<serde_json::Value>().await.unwrap()["detail"].is_string());
        let text = client
            .get(format!("{base}/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(
            text.contains("test_http_requests_total{method=\"GET\",route=\"/ready\",status=\"503\"} 1"),
            "{text}"
        );

        shutdown.stop();
        tokio::time::timeout(Duration::from_secs(10), server)
            .await
            .unwrap()
            .unwrap();
        assert!(
            client.get(format!("{base}/ready")).send().await.is_err(),
            "nobody listens any more"
        );
    }
}
