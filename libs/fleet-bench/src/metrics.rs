//! What a program counts, as its `/metrics` tells: sums over labels, histograms, and what was added between two looks.

use std::collections::BTreeMap;

use anyhow::Context;
use reqwest::Client;

/// One look at a program's metrics: `name{labels}` and its value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look(BTreeMap<String, f64>);

impl Look {
    /// Asks the program at `url`.
    pub(crate) async fn at(http: &Client, url: &str) -> anyhow::Result<Self> {
        let answer = http.get(format!("{url}/metrics")).send().await?.error_for_status()?;
        let text = answer.text().await.with_context(|| format!("{url}/metrics"))?;
        Ok(Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| {
                    // Exemplars, after a second #, are none of ours.
                    let line = line.split(" # ").next()?;
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// What was added since an earlier look.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let added = |(name, value): (&String, &f64)| (name.clone(), value - before.0.get(name).unwrap_or(&0.0));
        Self(self.0.iter().map(added).collect())
    }

    /// The sum of all with this name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.labelled(name).map(|(_, value)| value).sum()
    }

    /// The value of a label with this name.
    pub(crate) fn of(&self, name: &str, label: &str, value: &str) -> f64 {
        let wanted = format!("{label}=\"{value}\"");
        self.labelled(name)
            .filter(|(labels, _)| labels.split(',').any(|label| label == wanted))
            .map(|(_, value)| value)
            .sum()
    }

    /// Labels, without braces, and values of all with this name.
    pub(crate) fn labelled(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(move |(key, value)| {
            let rest = key.strip_prefix(name)?;
            let labels = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            (rest.is_empty() || labels.is_some()).then_some((labels.unwrap_or_default(), *value))
        })
    }

    /// A histogram, of which `more` samples lie beyond all bounds besides.
    pub(crate) fn histogram(&self, name: &str, more: f64) -> Histogram {
        let name = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = self
            .labelled(&name)
            .filter_map(|(labels, count)| {
                let bound = labels.strip_prefix("le=\"")?.strip_suffix('"')?;
                Some((bound.parse().unwrap_or(f64::INFINITY), count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((bound, count)) = buckets.last_mut()
            && bound.is_infinite()
        {
            *count += more;
        }
        Histogram { buckets }
    }
}

/// Upper bounds with the samples up to there.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// The value below which this share of the samples lies, as if those of a bucket were spread evenly over it. Infinite beyond the last bound,
    /// not a number without samples.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let total = self.buckets.last().map_or(0.0, |(_, count)| *count);
        if total <= 0.0 {
            return f64::NAN;
        }
        let wanted = share * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= wanted && *count > below {
                if bound.is_infinite() {
                    return *bound;
                }
                return low + (bound - low) * ((wanted - below) / (count - below)).clamp(0.0, 1.0);
            }
            (low, below) = (*bound, *count);
        }
        f64::INFINITY
    }
}

impl FromIterator<Look> for Look {
    /// What several count, together: the sums.
    fn from_iter<I: IntoIterator<Item = Self>>(looks: I) -> Self {
        let mut all = BTreeMap::new();
        for (name, value) in looks.into_iter().flat_map(|look| look.0) {
            *all.entry(name).or_insert(0.0) += value;
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::Look;

    const BEFORE: &str = "# HELP x y\na_total 3\nb_bucket{le=\"1\"} 0\nb_bucket{le=\"2\"} 0\nb_bucket{le=\"+Inf\"} 0\n";
    const AFTER: &str = "a_total 5\nc{route=\"/kv\",status=\"200\"} 7\nc{route=\"/\",status=\"200\"} 1\nc_other 9\n\
        b_bucket{le=\"1\"} 50\nb_bucket{le=\"2\"} 100\nb_bucket{le=\"+Inf\"} 100\n# EOF\n";

    #[test]
    fn what_was_added_is_summed() {
        let added = Look::read(AFTER).since(&Look::read(BEFORE));
        let near = |got: f64, wanted: f64| assert!((got - wanted).abs() < 1e-9, "{got}, not {wanted}");
        near(added.sum("a_total"), 2.0);
        near(added.sum("c"), 8.0);
        near(added.of("c", "route", "/kv"), 7.0);
        let histogram = added.histogram("b", 0.0);
        near(histogram.quantile(0.25), 0.5);
        near(histogram.quantile(0.75), 1.5);
        assert!(added.histogram("b", 10.0).quantile(0.99).is_infinite());
        assert!(added.histogram("none", 0.0).quantile(0.5).is_nan());
        let twice: Look = [added.clone(), added].into_iter().collect();
        near(twice.of("c", "route", "/kv"), 14.0);
        near(twice.histogram("b", 0.0).quantile(0.25), 0.5);
    }
}
