//! Raster tiles below the map's own sketch, from another server: an address with `{z}`, `{x}` and `{y}`.

use http::Uri;

/// Longest address, bytes.
const LEN_MAX: usize = 500;

/// Where browsers get tiles from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tiles {
    /// The address as it was set.
    pub(crate) template: String,
    /// Scheme, host and port: what the page may load pictures from.
    pub(crate) origin: String,
}

impl Tiles {
    /// Reads an address; `None` when it is empty.
    ///
    /// # Errors
    /// When it is none, or when its server could depend on the tile: the page is allowed exactly one.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        let template = text.trim();
        if template.is_empty() {
            return Ok(None);
        }
        if template.len() > LEN_MAX {
            return Err("at most 500 bytes are expected");
        }
        if ["{z}", "{x}", "{y}"]
            .iter()
            .any(|part| template.matches(part).count() != 1)
        {
            return Err("{z}, {x} and {y} are expected, each once");
        }
        let address = ["{z}", "{x}", "{y}"]
            .iter()
            .fold(template.to_owned(), |rest, part| rest.replace(part, "0"));
        // What is in quotes or begins another directive must get neither into the page nor into its policy.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>;,\\`{}".contains(&byte);
        if !address.bytes().all(is_plain) {
            return Err("no quotes, blanks, commas, semicolons or other braces are expected");
        }
        let uri: Uri = address
            .parse()
            .map_err(|_| "an address like https://host/{z}/{x}/{y}.png is expected")?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("an address like https://host/{z}/{x}/{y}.png is expected");
        };
        // A policy can name neither a user nor an IPv6 address; a star would allow more than one server.
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
        let origin = format!("{scheme}://{authority}");
        if authority.host().is_empty() || !authority.as_str().bytes().all(is_host) || !template.starts_with(&origin) {
            return Err("one host, by name or IPv4 address, and no password is expected");
        }
        Ok(Some(Self {
            template: template.to_owned(),
            origin,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_and_three_numbers() {
        assert_eq!(Tiles::parse(" "), Ok(None));
        let tiles = Tiles::parse("https://tiles.example:8443/map/{z}/{x}/{y}.png?key=1")
            .unwrap()
            .unwrap();
        assert_eq!(tiles.origin, "https://tiles.example:8443");
        for bad in [
            "https://tiles.example/{z}/{x}.png",
            "https://tiles.example/{z}/{x}/{y}/{y}.png",
            "ftp://tiles.example/{z}/{x}/{y}.png",
            "/{z}/{x}/{y}.png",
            "https://{z}.tiles.example/{x}/{y}.png",
            "https://*.tiles.example/{z}/{x}/{y}.png",
            "https://user:secret@tiles.example/{z}/{x}/{y}.png",
            "https://[::1]/{z}/{x}/{y}.png",
            "https://{s}.tiles.example/{z}/{x}/{y}.png",
            "https://tiles.example/{z}/{x}/{y}.png; script-src *",
            "https://tiles.example/{z}/{x}/{y}.png\"",
        ] {
            assert!(Tiles::parse(bad).is_err(), "{bad}");
        }
        assert!(
            Tiles::parse(&format!(
                "https://tiles.example/{{z}}/{{x}}/{{y}}{}",
                "a".repeat(LEN_MAX)
            ))
            .is_err()
        );
    }
}
