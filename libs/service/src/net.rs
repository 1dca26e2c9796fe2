//! Binding a port, with an error that helps.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// A listener could not be opened. Its text names the port, the service it is for, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("port {} (for {service}) is taken on {}: stop the program that listens there, or {remedy}", addr.port(), addr.ip())]
    Taken {
        /// Which service wanted it.
        service: String,
        /// The address.
        addr: SocketAddr,
        /// Which flag helps.
        remedy: String,
    },
    /// Anything else (no permission for a low port, no such address).
    #[error("cannot listen on {addr} (for {service}): {source}; to choose another address, {remedy}")]
    Other {
        /// Which service wanted it.
        service: String,
        /// The address.
        addr: SocketAddr,
        /// Which flag helps.
        remedy: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Listens on `addr` for `service`. `remedy` completes the sentence "stop the program that listens there, or …".
///
/// # Errors
/// [`BindError`], which names port, service and remedy.
pub async fn bind(service: &str, addr: SocketAddr, remedy: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr).await.map_err(|source| {
        let (service, remedy) = (service.to_owned(), remedy.to_owned());
        match source.kind() {
            ErrorKind::AddrInUse => BindError::Taken { service, addr, remedy },
            _ => BindError::Other {
                service,
                addr,
                remedy,
                source,
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_port_service_and_remedy() {
        let first = bind("first", "127.0.0.1:0".parse().unwrap(), "use --listen")
            .await
            .unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind("lb", addr, "use --port-base").await.unwrap_err().to_string();
        for part in [addr.port().to_string().as_str(), "lb", "--port-base"] {
            assert!(error.contains(part), "{error:?} should contain {part:?}");
        }
    }
}
