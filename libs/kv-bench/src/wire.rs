//! A TCP connection with a read buffer: the common ground of HTTP/1.1 and RESP. Nothing is ever read twice or copied once it is complete.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::OpError;

/// The buffer's first size, bytes: a page of 1,000 values comes in few reads.
const BUFFER_BYTES: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// What has arrived and was not taken yet.
    pub(crate) buffer: BytesMut,
}

impl Wire {
    pub(crate) async fn connect(addr: &str) -> Result<Self, OpError> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
        })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), OpError> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Waits for more bytes.
    pub(crate) async fn fill(&mut self) -> Result<(), OpError> {
        self.buffer.reserve(BUFFER_BYTES / 4);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(OpError::Connection("closed by the server".to_owned())),
            _ => Ok(()),
        }
    }

    /// The next `length` bytes.
    pub(crate) async fn take(&mut self, length: usize) -> Result<Bytes, OpError> {
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
        }
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }
}
