//! Who a client is: by its connection, or by what a proxy that is trusted says; and how many connections one may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

/// Networks of proxies whose word is taken for who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Vec<IpNet>);

/// What the forwarding headers of a connection's requests are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nobody said whom to trust: they are handed on, and believed by nobody here.
    Unset,
    /// They come from a proxy that is trusted.
    Proxy,
    /// They come from anybody, and are replaced.
    Stranger,
}

impl Proxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub(crate) fn trust(&self, peer: IpAddr) -> Trust {
        if self.0.is_empty() {
            Trust::Unset
        } else if self.contains(peer) {
            Trust::Proxy
        } else {
            Trust::Stranger
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Who asked a trusted proxy: the last address in the chain that is not another one. `chain`: the values of `X-Forwarded-For`, the last first. What is
    /// not an address ends the chain, as nobody can tell who wrote what stands before it.
    pub(crate) fn client<'a>(&self, peer: IpAddr, chain: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        let mut client = peer;
        for hop in chain.flat_map(|value| value.rsplit(|byte| *byte == b',')) {
            let Some(ip) = address(hop) else { break };
            client = ip;
            if !self.contains(ip) {
                break;
            }
        }
        client
    }
}

/// An address, as proxies write it: bare, with a port, in brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip);
    }
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Who counts as one client: an IPv4 address, or the /64 an IPv6 customer has to choose addresses from.
pub(crate) fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

/// How many connections each client has. Remembers only clients that have some, so its memory is bounded by the connections there may be.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    /// 0 = no limit, and nothing is counted.
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection among those of its client; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limit: Arc<ConnectionLimit>,
    client: IpAddr,
}

/// The client has as many connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) usize);

impl ConnectionLimit {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::default(),
        })
    }

    /// Counts a connection. None where nothing is limited.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Result<Option<Place>, TooMany> {
        if self.most == 0 {
            return Ok(None);
        }
        let client = household(client);
        // Counts are whole between any two statements, so a poisoned lock is still good.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.entry(client) {
            Entry::Occupied(count) if *count.get() >= self.most => return Err(TooMany(self.most)),
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(first) => {
                first.insert(1);
            }
        }
        Ok(Some(Place {
            limit: Arc::clone(self),
            client,
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop};
    use proptest::{prop_assert_eq, prop_assume, proptest};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies() -> Proxies {
        Proxies::new(["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec())
    }

    #[test]
    fn only_those_listed_are_trusted() {
        assert_eq!(Proxies::default().trust(ip("10.1.2.3")), Trust::Unset);
        assert_eq!(proxies().trust(ip("10.1.2.3")), Trust::Proxy);
        assert_eq!(proxies().trust(ip("::ffff:10.1.2.3")), Trust::Proxy);
        assert_eq!(proxies().trust(ip("2001:db8::1")), Trust::Proxy);
        assert_eq!(proxies().trust(ip("11.1.2.3")), Trust::Stranger);
        assert_eq!(proxies().trust(ip("2001:db9::1")), Trust::Stranger);
    }

    #[test]
    fn the_client_is_the_last_one_that_no_trusted_proxy_vouches_for() {
        let client = |chain: &[&str]| {
            let values = chain.iter().rev().map(|value| value.as_bytes());
            proxies().client(ip("10.0.0.1"), values).to_string()
        };
        assert_eq!(client(&[]), "10.0.0.1", "a proxy that asks for itself");
        assert_eq!(client(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["1.1.1.1, 203.0.113.9 , 10.9.9.9"]), "203.0.113.9");
        assert_eq!(client(&["1.1.1.1", "203.0.113.9", "10.9.9.9,10.8.8.8"]), "203.0.113.9");
        assert_eq!(client(&["10.7.7.7, 10.8.8.8"]), "10.7.7.7", "trusted all the way");
        assert_eq!(client(&["203.0.113.9, unknown, 10.8.8.8"]), "10.8.8.8");
        assert_eq!(client(&["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client(&["[2001:db9::1]:80"]), "2001:db9::1");
        assert_eq!(client(&["[2001:db9::1]"]), "2001:db9::1");
        assert_eq!(client(&[""]), "10.0.0.1");
    }

    #[test]
    fn each_client_has_so_many_connections_and_is_forgotten_with_the_last() {
        let limit = ConnectionLimit::new(2);
        let (alice, bob) = (ip("192.0.2.1"), ip("2001:db8::1"));
        let first = limit.take(alice).unwrap();
        let _second = limit.take(alice).unwrap();
        assert_eq!(limit.take(alice).unwrap_err(), TooMany(2));
        let held = [limit.take(bob).unwrap(), limit.take(ip("2001:db8::2")).unwrap()];
        assert_eq!(limit.take(ip("2001:db8::3")).unwrap_err(), TooMany(2), "one household");
        drop(first);
        assert!(limit.take(alice).is_ok());
        drop(held);
        assert_eq!(limit.open.lock().unwrap().len(), 1);
        let none = ConnectionLimit::new(0);
        assert!(none.take(alice).unwrap().is_none() && none.open.lock().unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever a client writes in front, behind a trusted proxy it is who it is.
        #[test]
        fn nobody_can_pass_for_another(lies in prop::collection::vec(any::<u8>(), 0..60), real in any::<[u8; 4]>()) {
            let real = IpAddr::from(real);
            prop_assume!(proxies().trust(real) == Trust::Stranger);
            let chain = [&lies, b", ".as_slice(), real.to_string().as_bytes(), b", 10.9.9.9"].concat();
            prop_assert_eq!(proxies().client(ip("10.0.0.1"), [chain.as_slice()].into_iter()), real);
        }
    }
}
