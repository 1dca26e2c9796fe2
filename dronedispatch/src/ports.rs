//! Who listens where. All ports are opened before anything starts, so that a taken one is told at once and nothing is half up.

use std::net::{IpAddr, SocketAddr};

use service::net::{BindError, bind};
use tokio::net::TcpListener;

/// How far each service's port lies above the port base; the base of the documented ports is 8000.
mod offset {
    pub(super) const GATEWAY: u16 = 0;
    pub(super) const LB: u16 = 80;
    pub(super) const DISPATCHER: u16 = 100;
    pub(super) const DRONE: u16 = 200;
    pub(super) const KVFRONT: u16 = 1_000;
    pub(super) const KVSTORE: u16 = 1_001;
}

/// The kvstores of one process, as in compose: `kvstore_a`, `kvstore_b`, `kvstore_c`.
pub const KVSTORES: [&str; 3] = ["kvstore_a", "kvstore_b", "kvstore_c"];

/// The open listeners of the whole system.
#[derive(Debug)]
pub struct Listeners {
    /// One per name of [`KVSTORES`].
    pub kvstores: Vec<TcpListener>,
    /// The KV coordinator.
    pub kvfront: TcpListener,
    /// Everything else.
    pub rest: ServiceListeners,
}

/// The open listeners of what stands around the KV.
#[derive(Debug)]
pub struct ServiceListeners {
    /// The gateways.
    pub gateways: Vec<TcpListener>,
    /// The public entrance.
    pub lb: TcpListener,
    /// Health and metrics of the dispatcher.
    pub dispatcher: TcpListener,
    /// Health and metrics of the simulated fleet.
    pub drone: TcpListener,
}

impl Listeners {
    /// Opens every port.
    ///
    /// # Errors
    /// The first that cannot be had, with its service and the flag that helps.
    pub async fn open(ip: IpAddr, port_base: u16, gateways: usize) -> Result<Self, BindError> {
        let open = async |service: &str, offset: u16| {
            // Base 0 means any free port, for each service.
            let port = if port_base == 0 {
                0
            } else {
                port_base.saturating_add(offset)
            };
            bind(
                service,
                SocketAddr::new(ip, port),
                "move every port with --port-base N (PORT_BASE)",
            )
            .await
        };
        let mut kvstores = Vec::new();
        for (i, name) in (0..).zip(KVSTORES) {
            kvstores.push(open(name, offset::KVSTORE + i).await?);
        }
        let kvfront = open("kvfront", offset::KVFRONT).await?;
        let mut own = Vec::new();
        for i in (0..).take(gateways) {
            own.push(open("gateway", offset::GATEWAY + i).await?);
        }
        Ok(Self {
            kvstores,
            kvfront,
            rest: ServiceListeners {
                gateways: own,
                lb: open("lb", offset::LB).await?,
                dispatcher: open("dispatcher", offset::DISPATCHER).await?,
                drone: open("drone", offset::DRONE).await?,
            },
        })
    }
}

/// The URL under which this machine reaches a listener.
///
/// # Errors
/// When the listener has no address any more.
pub fn url(listener: &TcpListener) -> std::io::Result<String> {
    let mut addr = listener.local_addr()?;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{addr}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_port_service_and_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        if !(offset::LB..=64_000).contains(&port) {
            return; // no port base puts lb there
        }
        // Wherever else something may listen, the first refusal must be a helpful one.
        let error = Listeners::open([127, 0, 0, 1].into(), port - offset::LB, 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("--port-base") && error.contains("taken"), "{error}");
    }

    #[tokio::test]
    async fn base_zero_takes_free_ports() {
        let listeners = Listeners::open([127, 0, 0, 1].into(), 0, 2).await.unwrap();
        assert_eq!((listeners.kvstores.len(), listeners.rest.gateways.len()), (3, 2));
        assert!(url(&listeners.rest.lb).unwrap().starts_with("http://127.0.0.1:"));
    }
}
