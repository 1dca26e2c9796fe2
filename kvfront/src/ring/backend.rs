//! `BACKENDS`: the nodes, their names and where they listen.

use std::fmt;
use std::sync::Arc;

/// More nodes than this are a mistake in `BACKENDS`.
pub const NODES_MAX: usize = 256;
/// Characters of the longest name.
const NAME_MAX_CHARS: usize = 64;

/// Why no ring can be built of these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// `BACKENDS` names nothing.
    #[error("BACKENDS is empty: expected at least one URL like http://kvstore_a:9000, comma-separated")]
    NoBackends,
    /// One entry is no plain `http://host:port` URL, with or without a name before it.
    #[error("BACKENDS entry {entry:?}: {problem}; expected http://HOST:PORT or NAME=http://HOST:PORT, without a path")]
    BadUrl {
        /// The entry as given.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One node is named twice.
    #[error("BACKENDS names {0} twice: each node may appear once")]
    Duplicate(String),
    /// Two names for one address.
    #[error("BACKENDS gives {url} the names {names:?}: each node has one name")]
    DuplicateUrl {
        /// The address.
        url: String,
        /// Its names.
        names: [String; 2],
    },
    /// Too many nodes.
    #[error("BACKENDS names {0} nodes, at most {NODES_MAX} are possible")]
    TooMany(usize),
    /// `RF` does not fit.
    #[error("RF={rf} with {nodes} backend(s): RF must be at least 1 and at most the number of nodes in BACKENDS")]
    BadRf {
        /// The replication factor asked for.
        rf: usize,
        /// Nodes there are.
        nodes: usize,
    },
}

/// A node: what it is called, and where it listens. Shown as its name, with the URL after it when that says more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its name everywhere: in the ring (where it decides which keys live there), in hints, in what the nodes remember of each other.
    /// The URL, when `BACKENDS` gives no other: such a node may not move.
    pub name: Arc<str>,
    /// `http://host:port` in lower case.
    pub url: Arc<str>,
    /// `host:port`, to connect to and for the `Host` header.
    pub authority: Arc<str>,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.url {
            f.write_str(&self.url)
        } else {
            write!(f, "{} ({})", self.name, self.url)
        }
    }
}

impl Backend {
    /// Parses one entry of `BACKENDS`: a URL, or a name (`[A-Za-z0-9_.-]`, at most 64 characters), `=` and a URL. A missing port means 80;
    /// a single trailing slash is forgiven.
    ///
    /// # Errors
    /// [`RingError::BadUrl`], saying what is wrong with the entry.
    pub fn parse(entry: &str) -> Result<Self, RingError> {
        let bad = |problem: String| RingError::BadUrl {
            entry: entry.to_owned(),
            problem,
        };
        // A `=` behind a `:` is part of a URL (which may not have it either).
        let (name, url) = match entry.trim().split_once('=') {
            Some((name, url)) if !name.contains(':') => (Some(name.trim()), url.trim()),
            _ => (None, entry.trim()),
        };
        if let Some(name) = name.filter(|name| !is_name(name)) {
            return Err(bad(format!(
                "{name:?} is no name (1 to {NAME_MAX_CHARS} letters, digits, `_`, `.` and `-`)"
            )));
        }
        let authority = authority_of(url).map_err(bad)?;
        let url: Arc<str> = format!("http://{authority}").into();
        Ok(Self {
            name: name.map_or_else(|| Arc::clone(&url), Arc::from),
            url,
            authority: authority.into(),
        })
    }

    /// Parses the whole of `BACKENDS`: distinct nodes, sorted by name. The order of the sorted list is the nodes' numbering in this
    /// process; no answer depends on the order they were given in.
    ///
    /// # Errors
    /// [`RingError`]: nothing named, an entry that cannot be used, a node named twice, too many nodes.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, RingError> {
        let mut backends = list
            .split(',')
            .filter(|entry| !entry.trim().is_empty())
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        backends.sort();
        if let Some(pair) = backends.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(RingError::Duplicate(pair[0].name.to_string()));
        }
        let mut by_url: Vec<&Self> = backends.iter().collect();
        by_url.sort_by(|a, b| a.url.cmp(&b.url));
        if let Some(pair) = by_url.windows(2).find(|pair| pair[0].url == pair[1].url) {
            return Err(RingError::DuplicateUrl {
                url: pair[0].url.to_string(),
                names: [pair[0].name.to_string(), pair[1].name.to_string()],
            });
        }
        match backends.len() {
            0 => Err(RingError::NoBackends),
            n if n > NODES_MAX => Err(RingError::TooMany(n)),
            _ => Ok(backends),
        }
    }
}

fn is_name(name: &str) -> bool {
    let fits = (1..=NAME_MAX_CHARS).contains(&name.len());
    fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// `host:port` of a plain URL; what is wrong with it, otherwise.
fn authority_of(url: &str) -> Result<String, String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("not a URL ({e})"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(other) => return Err(format!("scheme {other} is not supported")),
        None => return Err("the scheme is missing".to_owned()),
    }
    let authority = uri.authority().ok_or("the host is missing")?;
    if authority.as_str().contains('@') {
        return Err("user names are not supported".to_owned());
    }
    if authority.host().is_empty() {
        return Err("the host is missing".to_owned());
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!("the path {:?} is not supported", uri.path()));
    }
    // Not `authority.port()`, which is silent about a port that is no number.
    let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match after_host.strip_prefix(':') {
        Some(port) => port
            .parse::<u16>()
            .map_err(|_| format!("the port {port:?} is no number up to 65535"))?,
        None => 80,
    };
    Ok(format!("{}:{port}", authority.host().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::{Backend, RingError};

    #[test]
    fn urls_have_one_form() {
        for (given, url) in [
            ("http://A:9000", "http://a:9000"),
            (" http://a:9000/ ", "http://a:9000"),
            ("http://a", "http://a:80"),
            ("http://[::1]:7", "http://[::1]:7"),
            ("http://kvstore_a:9000", "http://kvstore_a:9000"),
        ] {
            let backend = Backend::parse(given).unwrap();
            assert_eq!((&*backend.url, &*backend.name), (url, url));
            assert_eq!(backend.to_string(), url);
        }
        for bad in [
            "",
            "a:9000",
            "https://a:1",
            "http://",
            "http://a:99999",
            "http://a:1/x",
            "http://u@a:1",
            "http://a:1?x=1",
            "http://a:",
            "=http://a:1",
            "a b=http://a:1",
            "a/b=http://a:1",
            "n=a:1",
            "n=m=http://a:1",
        ] {
            assert!(matches!(Backend::parse(bad), Err(RingError::BadUrl { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_name_stands_for_its_address() {
        let backend = Backend::parse(" kv-A.1_x = http://HOST:7/ ").unwrap();
        assert_eq!((&*backend.name, &*backend.url), ("kv-A.1_x", "http://host:7"));
        assert_eq!(&*backend.authority, "host:7");
        assert_eq!(backend.to_string(), "kv-A.1_x (http://host:7)");
        let long = "n".repeat(64);
        assert!(Backend::parse(&format!("{long}=http://a:1")).is_ok());
        assert!(Backend::parse(&format!("{long}n=http://a:1")).is_err());
    }

    #[test]
    fn bad_lists_are_named() {
        assert_eq!(Backend::parse_list(" , "), Err(RingError::NoBackends));
        assert_eq!(
            Backend::parse_list("http://a:1,http://A:1/"),
            Err(RingError::Duplicate("http://a:1".into()))
        );
        assert_eq!(
            Backend::parse_list("a=http://x:1,b=http://x:2,a=http://x:3"),
            Err(RingError::Duplicate("a".into()))
        );
        assert_eq!(
            Backend::parse_list("b=http://x:1,c=http://y:1,a=http://X:1"),
            Err(RingError::DuplicateUrl {
                url: "http://x:1".into(),
                names: ["a".into(), "b".into()]
            })
        );
    }
}
