//! A door that can be held shut, be made slow, or be bricked up: in front of a service's listener, and on its own way to others.

use std::net::SocketAddr;
use std::time::Duration;

use service::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What a slow service's every chunk of bytes waits, in each direction.
pub const SLOW_BY: Duration = Duration::from_millis(150);
/// Bytes carried at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Pause after a connection could not be taken: most likely there are no file descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// At once.
    Open,
    /// Not at all, until it is open again; nothing is lost.
    Held,
    /// Late.
    Slow,
    /// Not at all, and whoever tries is told so: connections end, and new ones do at once.
    Cut,
}

/// Carries what arrives at `outside` to `inside` and back, until `stop`, which closes `outside`; connections live on until the returned set is
/// dropped.
pub async fn keep(
    outside: TcpListener,
    inside: SocketAddr,
    passage: watch::Receiver<Passage>,
    stop: Shutdown,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        let taken = tokio::select! {
            () = stop.stopped() => return connections,
            taken = outside.accept() => taken,
        };
        match taken {
            // Dropped.
            Ok(_) if *passage.borrow() == Passage::Cut => {}
            Ok((client, _)) => {
                connections.spawn(carry(client, inside, passage.clone()));
            }
            Err(error) => {
                tracing::warn!("a connection could not be taken: {error}");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until both sides have ended or one broke.
async fn carry(client: TcpStream, inside: SocketAddr, passage: watch::Receiver<Passage>) {
    let mut until_cut = passage.clone();
    tokio::select! {
        () = carried(client, inside, passage) => {}
        // Its sender is gone only with the service; then the connection is dropped anyway.
        _ = until_cut.wait_for(|passage| *passage == Passage::Cut) => {}
    }
}

async fn carried(client: TcpStream, inside: SocketAddr, passage: watch::Receiver<Passage>) {
    let Ok(server) = TcpStream::connect(inside).await else {
        return;
    };
    // Nothing to be done about a socket that refuses it: it is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, passage.clone());
    let back = pump(from_server, to_client, passage);
    // A side that broke ends the other, as it would without us.
    let _ = tokio::try_join!(there, back);
}

/// Carries one direction to its end, which is passed on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passage: watch::Receiver<Passage>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).await?;
        // Its sender is gone only with the service; then the connection is dropped anyway.
        let now = passage
            .wait_for(|passage| *passage != Passage::Held)
            .await
            .map(|now| *now);
        if now.is_ok_and(|now| now == Passage::Slow) {
            sleep(SLOW_BY).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    /// An echo behind a gate.
    async fn echo() -> (TcpStream, watch::Sender<Passage>, Shutdown) {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (inside_addr, addr) = (inside.local_addr().unwrap(), outside.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (stream, _) = inside.accept().await.unwrap();
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        let (set, passage) = watch::channel(Passage::Open);
        let stop = Shutdown::new();
        let until = stop.clone();
        tokio::spawn(async move { keep(outside, inside_addr, passage, until).await });
        (TcpStream::connect(addr).await.unwrap(), set, stop)
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) {
        stream.write_all(text).await.unwrap();
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, text);
    }

    #[tokio::test]
    async fn bytes_pass_wait_and_pass_late() {
        let (mut stream, set, stop) = echo().await;
        say(&mut stream, b"open").await;
        set.send_replace(Passage::Held);
        stream.write_all(b"held").await.unwrap();
        let mut heard = [0; 4];
        let nothing = timeout(Duration::from_millis(100), stream.read_exact(&mut heard)).await;
        assert!(nothing.is_err(), "{heard:?}");
        set.send_replace(Passage::Slow);
        let begun = Instant::now();
        timeout(Duration::from_secs(10), stream.read_exact(&mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&heard, b"held", "nothing was lost");
        say(&mut stream, b"slow").await;
        assert!(begun.elapsed() >= 2 * SLOW_BY, "{:?}", begun.elapsed());
        set.send_replace(Passage::Open);
        say(&mut stream, b"open").await;
        stop.stop();
        let ended = timeout(Duration::from_secs(10), stream.read(&mut heard)).await.unwrap();
        assert!(
            matches!(ended, Ok(0) | Err(_)),
            "the connection ends with the gate: {ended:?}"
        );
    }

    #[tokio::test]
    async fn what_is_cut_ends_and_begins_anew_afterwards() {
        let (mut stream, set, _stop) = echo().await;
        let addr = stream.peer_addr().unwrap();
        say(&mut stream, b"open").await;
        set.send_replace(Passage::Cut);
        let ends = async |mut stream: TcpStream| {
            let mut heard = [0; 4];
            timeout(Duration::from_secs(10), stream.read(&mut heard)).await.unwrap()
        };
        assert!(matches!(ends(stream).await, Ok(0) | Err(_)), "it was connected");
        let late = TcpStream::connect(addr).await.unwrap();
        assert!(
            matches!(ends(late).await, Ok(0) | Err(_)),
            "it came when nobody got through"
        );
        set.send_replace(Passage::Open);
        say(&mut TcpStream::connect(addr).await.unwrap(), b"anew").await;
    }
}
