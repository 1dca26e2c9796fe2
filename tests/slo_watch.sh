#!/usr/bin/env bash
# Passive SLO watcher: reads lb's access log and reports, for every interval and for the whole run, the number of
# requests, the share of errors and the latency percentiles. It sends no request itself.
#
#   tests/slo_watch.sh                               follows `docker compose logs -f lb` until Ctrl-C
#   docker compose logs lb | tests/slo_watch.sh -    reads standard input (prefixes such as `lb_1  | ` are fine)
#
#   --interval SEC          length of an interval [10]
#   --duration SEC          stop following after so long [0 = never]
#   --path REGEX            only requests whose path matches, e.g. '^/deliveries'
#   --assert                exit 1 when the whole run is over a threshold or saw too few requests
#   --max-error-percent N   threshold of errors, which are answers of 500 and above [1]
#   --max-p95-ms N          threshold of the 95th percentile [300]
#   --max-p99-ms N          threshold of the 99th percentile [1000]
#   --min-requests N        fewer requests prove nothing [1]
#
# Understands lb's default format: `[access] METHOD /path STATUS 12.3ms`. Lines that end in ` stream` are event
# streams, whose length is no latency. Refusals by the rate limit (429) are counted on their own, not as errors.
# Percentiles come from buckets 1% wide.
set -euo pipefail

interval=10 duration=0 path='' assert=0 max_error_percent=1 max_p95_ms=300 max_p99_ms=1000 min_requests=1 stdin=0
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }
while [ $# -gt 0 ]; do
  case $1 in
    --interval | --duration | --max-error-percent | --max-p95-ms | --max-p99-ms | --min-requests)
      [[ ${2:-} =~ ^[0-9]+(\.[0-9]+)?$ ]] || { echo "slo_watch: $1: expected a number, got '${2:-}'" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift ;;
    --path)
      path=${2:?--path needs a pattern}
      shift ;;
    --assert) assert=1 ;;
    -) stdin=1 ;;
    -h | --help) usage; exit ;;
    *) echo "slo_watch: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

lines() {
  if [ $stdin = 1 ]; then
    cat
  elif docker compose version >/dev/null 2>&1; then
    timeout "$duration" docker compose logs --no-color --no-log-prefix -f --tail=0 lb
  else
    timeout "$duration" docker-compose logs --no-color -f --tail=0 lb
  fi
}

# Ticks travel in the same pipe as the log lines: awk then needs no clock, and silent intervals are seen as well.
feed() {
  (while sleep "$interval" >/dev/null 2>&1; do echo "#tick $(date +%T)"; done) &
  ticker=$!
  { lines || true; } | grep --line-buffered -F '[access] ' || true
  kill $ticker
}

trap : INT # Ctrl-C ends the reading; the summary still comes
feed | (
  trap '' INT
  exec awk -v want="$path" -v assert=$assert -v max_error_percent="$max_error_percent" -v max_p95_ms="$max_p95_ms" \
    -v max_p99_ms="$max_p99_ms" -v min_requests="$min_requests" '
    # The value below which the share `p` of `n` samples of `scope` lies.
    function percentile(scope, n, p,    need, seen, bucket) {
      need = p * n
      for (bucket = low; bucket <= high; bucket++) {
        seen += histogram[scope, bucket]
        if (seen > 0 && seen >= need) return exp((bucket + 0.5) * WIDTH)
      }
      return 0
    }
    function row(name, scope,    n) {
      n = count[scope]
      printf "%-9s %8d %8d %7.2f %8d %9.1f %9.1f %9.1f\n", name, n, errors[scope], n ? 100 * errors[scope] / n : 0,
        limited[scope], percentile(scope, n, 0.5), percentile(scope, n, 0.95), percentile(scope, n, 0.99)
      fflush()
    }
    function add(scope, status, bucket) {
      count[scope]++
      histogram[scope, bucket]++
      if (status >= 500) errors[scope]++
      if (status == 429) limited[scope]++
    }
    function breach(text) { print "SLO missed: " text; failed = 1 }
    BEGIN {
      WIDTH = log(1.01)
      low = 1e9; high = -1e9
      printf "%-9s %8s %8s %7s %8s %9s %9s %9s\n", "time", "requests", "errors", "error%", "limited", "p50 ms", "p95 ms", "p99 ms"
    }
    /^#tick / {
      row($2, "now")
      for (bucket = low; bucket <= high; bucket++) delete histogram["now", bucket]
      count["now"] = errors["now"] = limited["now"] = 0
      next
    }
    {
      sub(/^.*\[access\] /, "")
      sub(/\r$/, "")
      # METHOD /path STATUS 12.3ms: anything else (streams, other formats) is no sample.
      if (NF != 4 || $3 !~ /^[0-9][0-9][0-9]$/ || $4 !~ /^[0-9.]+ms$/) { other++; next }
      if (want != "" && $2 !~ want) next
      ms = $4 + 0
      if (ms < 0.001) ms = 0.001
      bucket = log(ms) / WIDTH
      bucket = int(bucket) - (bucket < int(bucket))
      if (bucket < low) low = bucket
      if (bucket > high) high = bucket
      add("now", $3 + 0, bucket)
      add("all", $3 + 0, bucket)
    }
    END {
      row("total", "all")
      if (other) print other " lines were no samples (event streams, other formats)"
      if (!assert) exit 0
      n = count["all"] + 0
      if (n < min_requests) breach(n " requests seen, expected at least " min_requests)
      if (n && 100 * errors["all"] / n > max_error_percent) breach(sprintf("%.2f%% errors, allowed %s%%", 100 * errors["all"] / n, max_error_percent))
      p95 = percentile("all", n, 0.95); p99 = percentile("all", n, 0.99)
      if (p95 > max_p95_ms) breach(sprintf("p95 %.1f ms, allowed %s ms", p95, max_p95_ms))
      if (p99 > max_p99_ms) breach(sprintf("p99 %.1f ms, allowed %s ms", p99, max_p99_ms))
      if (!failed) print "SLO met"
      exit failed
    }'
)
