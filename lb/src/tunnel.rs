//! Connections that no longer speak HTTP: bytes pass in both directions until both have ended.

use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::buffer::Buffer;
use crate::limits::Timeouts;
use crate::transfer::{fill, write_all};
use crate::watch::{Side, Watch};

/// Passes bytes until both ends have closed, one breaks, both are silent for too long, or the load balancer stops. Gives the bytes that went
/// to the client.
pub(crate) async fn run(
    watch: &Watch,
    timeouts: &Timeouts,
    (client, from_client): (&mut TcpStream, &mut Buffer),
    (gateway, from_gateway): (&mut TcpStream, &mut Buffer),
) -> u64 {
    let (mut client_reads, mut client_writes) = client.split();
    let (mut gateway_reads, mut gateway_writes) = gateway.split();
    let mut down_bytes = 0;
    let mut up_bytes = 0;
    {
        let mut up = pin!(pass(
            watch,
            timeouts,
            Side::Up,
            &mut client_reads,
            from_client,
            &mut gateway_writes,
            &mut up_bytes
        ));
        let mut down = pin!(pass(
            watch,
            timeouts,
            Side::Down,
            &mut gateway_reads,
            from_gateway,
            &mut client_writes,
            &mut down_bytes
        ));
        let (mut up_ended, mut down_ended) = (false, false);
        std::future::poll_fn(|cx| {
            for (ended, direction) in [
                (
                    &mut up_ended,
                    up.as_mut() as Pin<&mut dyn Future<Output = io::Result<()>>>,
                ),
                (&mut down_ended, down.as_mut()),
            ] {
                if !*ended && let Poll::Ready(result) = direction.poll(cx) {
                    // One that broke takes the other with it.
                    if result.is_err() {
                        return Poll::Ready(());
                    }
                    *ended = true;
                }
            }
            if up_ended && down_ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
    down_bytes
}

async fn pass(
    watch: &Watch,
    timeouts: &Timeouts,
    side: Side,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &mut u64,
) -> io::Result<()> {
    loop {
        let ready = buffer.len();
        write_all(watch, side, timeouts.write, to, buffer.data(), b"").await?;
        *bytes += ready as u64;
        buffer.consume(ready);
        let stop = || watch.clock.is_stopping();
        if fill(watch, side, timeouts.tunnel_idle, from, buffer, stop).await? == 0 {
            return std::future::poll_fn(|cx| Pin::new(&mut *to).poll_shutdown(cx)).await;
        }
    }
}
