//! What lb counts, read out of its `/metrics`.

use std::collections::BTreeMap;

use serde::Serialize;

/// Gateways shown; more are counted by lb all the same.
const BACKENDS_MAX: usize = 256;
/// What lb's figures of one gateway begin with.
const BACKEND_PREFIX: &str = "lb_backend_";

/// Counters since lb's start: whoever wants rates takes differences.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Requests by class of status.
    requests: BTreeMap<String, f64>,
    retries: f64,
    ejections: f64,
    in_flight: f64,
    /// Answers of gateways, and the seconds they took until their heads.
    upstream_count: f64,
    upstream_seconds: f64,
    /// By address of a gateway: its figures by name, `picks_total` among them.
    backends: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Takes the figures out of Prometheus text; lines that are none are passed over.
pub(super) fn figures(text: &str) -> Figures {
    let mut figures = Figures::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        figures.take(name, labels.trim_end_matches('}'), value);
    }
    figures
}

impl Figures {
    fn take(&mut self, name: &str, labels: &str, value: f64) {
        match name {
            "lb_requests_total" => {
                if let Some(class) = label(labels, "class") {
                    self.requests.insert(class.to_owned(), value);
                }
            }
            "lb_retries_total" => self.retries = value,
            "lb_ejections_total" => self.ejections = value,
            "lb_in_flight" => self.in_flight = value,
            "lb_upstream_seconds_count" => self.upstream_count = value,
            "lb_upstream_seconds_sum" => self.upstream_seconds = value,
            _ => self.take_backend(name, labels, value),
        }
    }

    fn take_backend(&mut self, name: &str, labels: &str, value: f64) {
        let (Some(figure), Some(backend)) = (name.strip_prefix(BACKEND_PREFIX), label(labels, "backend")) else {
            return;
        };
        // One bucket of a histogram says nothing without the others.
        if figure.ends_with("_bucket") || self.backends.len() >= BACKENDS_MAX && !self.backends.contains_key(backend) {
            return;
        }
        self.backends
            .entry(backend.to_owned())
            .or_default()
            .insert(figure.to_owned(), value);
    }
}

/// The value of a label. lb's values hold neither quotes nor commas.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| {
        let (key, value) = label.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_the_rest_is_passed_over() {
        let text = "# TYPE lb_requests counter\nlb_requests_total{class=\"2xx\"} 12\nlb_requests_total{class=\"5xx\"} 1\n\
            lb_retries_total 2\nlb_ejections_total 3\nlb_in_flight 4\nlb_upstream_seconds_sum 1.5\n\
            lb_upstream_seconds_count 13\nlb_upstream_seconds_bucket{le=\"0.1\"} 13\n\
            lb_backend_picks_total{backend=\"127.0.0.1:8000\"} 7\nlb_backend_picks_total{backend=\"127.0.0.1:8001\"} 6\n\
            lb_backend_seconds_bucket{backend=\"127.0.0.1:8001\",le=\"1\"} 6\nnonsense\nlb_other NaNsense\n# EOF\n";
        let figures = figures(text);
        assert_eq!(
            figures.requests,
            BTreeMap::from([("2xx".into(), 12.0), ("5xx".into(), 1.0)])
        );
        assert_eq!((figures.retries, figures.ejections, figures.in_flight), (2.0, 3.0, 4.0));
        assert_eq!((figures.upstream_count, figures.upstream_seconds), (13.0, 1.5));
        let picks = |n| BTreeMap::from([("picks_total".to_owned(), n)]);
        let both = [
            ("127.0.0.1:8000".to_owned(), picks(7.0)),
            ("127.0.0.1:8001".to_owned(), picks(6.0)),
        ];
        assert_eq!(figures.backends, BTreeMap::from(both));
    }
}
