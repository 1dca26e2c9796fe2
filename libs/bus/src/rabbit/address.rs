//! Which URLs name a broker, checked at start rather than at the first attempt to connect.

use lapin::uri::{AMQPScheme, AMQPUri};

use crate::limits::HEARTBEAT_SEC;

/// Why a broker's URL cannot be used. Messages never show the password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// TLS is not built in.
    #[error(
        "broker URL {url:?} asks for TLS, which this program does not speak; use amqp:// (through a tunnel if need be)"
    )]
    Tls {
        /// The URL without its password.
        url: String,
    },
    /// Not a URL that names an AMQP broker.
    #[error("broker URL {url:?} is not usable: {reason}; expected amqp://user:password@host:port/vhost")]
    Malformed {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a broker's URL. Differs from lapin's reading where that surprises: a path of just `/` means the default vhost, as in
/// most clients, and what lapin would silently replace by `localhost` is refused.
pub(super) fn parse(url: &str) -> Result<AMQPUri, ConfigError> {
    let malformed = |reason: String| ConfigError::Malformed {
        url: without_password(url),
        reason,
    };
    let mut uri: AMQPUri = url.parse().map_err(malformed)?;
    if uri.scheme == AMQPScheme::AMQPS {
        return Err(ConfigError::Tls {
            url: without_password(url),
        });
    }
    let host = host_part(url);
    if host.is_empty() {
        return Err(malformed("the host is missing".into()));
    }
    if host.starts_with('[') {
        return Err(malformed(
            "IPv6 addresses are not supported here; use a host name".into(),
        ));
    }
    if uri.vhost.is_empty() {
        uri.vhost = "/".into();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SEC);
    Ok(uri)
}

/// How logs and errors name the broker.
pub(super) fn display(uri: &AMQPUri) -> String {
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

/// What stands between the scheme (and user) and the path.
fn host_part(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.starts_with('[') {
        host
    } else {
        host.split(':').next().unwrap_or("")
    }
}

/// The URL as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let Some((user_info, host)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    match user_info.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, parse};
    use crate::limits::HEARTBEAT_SEC;

    #[test]
    fn defaults_are_filled_in() {
        let uri = parse("amqp://rabbitmq").unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("rabbitmq", 5672));
        assert_eq!(
            (uri.authority.userinfo.username.as_str(), uri.vhost.as_str()),
            ("guest", "/")
        );
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT_SEC));
    }

    #[test]
    fn a_trailing_slash_means_the_default_vhost_and_names_are_decoded() {
        assert_eq!(parse("amqp://u:p@127.0.0.1:5673/").unwrap().vhost, "/");
        assert_eq!(parse("amqp://u:p@h/%2f").unwrap().vhost, "/");
        assert_eq!(parse("amqp://u:p@h/drones?heartbeat=30").unwrap().vhost, "drones");
        assert_eq!(
            parse("amqp://u:p@h/drones?heartbeat=30").unwrap().query.heartbeat,
            Some(30)
        );
    }

    #[test]
    fn malformed_urls_are_refused_with_a_reason_and_without_the_password() {
        for url in [
            "",
            "rabbitmq:5672",
            "http://rabbitmq",
            "amqp://",
            "amqp:///vhost",
            "amqp://user:secret@/vhost",
            "amqp://h:port",
            "amqp://user:secret@h:99999",
            "amqp://user:secret@[::1]:5672",
            "amqp://user:secret@h?heartbeat=soon",
        ] {
            let error = parse(url).expect_err(url);
            assert!(matches!(error, ConfigError::Malformed { .. }), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn tls_is_named_as_unsupported() {
        let error = parse("amqps://user:secret@h").expect_err("no TLS");
        assert_eq!(
            error,
            ConfigError::Tls {
                url: "amqps://user:***@h".into()
            }
        );
    }
}
