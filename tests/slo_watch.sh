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
#   --json                  an object per interval, and one of the whole run
#
# All of this is `dronedispatch slo-watch`; here it is only found. In this order: DRONEDISPATCH (a path), the newest one
# that cargo has built here, one in PATH, the image dronedispatch:latest (IMAGE), and at last cargo builds it.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

can() { "$@" slo-watch --help </dev/null >/dev/null 2>&1; } # an older program does not know it

built() { # the programs that cargo has built here, newest first
  local target=${CARGO_TARGET_DIR:-$here/target}
  ls -t "$target"/{release,debug}/dronedispatch 2>/dev/null || true
}

if [ -n "${DRONEDISPATCH:-}" ]; then exec "$DRONEDISPATCH" slo-watch "$@"; fi
mapfile -t programs < <(built; command -v dronedispatch || true) # no loop of `read`: the log is on standard input
for program in ${programs[@]+"${programs[@]}"}; do
  if can "$program"; then exec "$program" slo-watch "$@"; fi
done

image=${IMAGE:-dronedispatch:latest}
if docker image inspect "$image" >/dev/null 2>&1 && can docker run --rm "$image" dronedispatch; then
  inside=(docker run --rm -i "$image" dronedispatch slo-watch)
  for word in "$@"; do
    case $word in - | -h | --help) exec "${inside[@]}" "$@" ;; esac
  done
  # Inside there is no Compose: the log goes in from here. `--duration` means the following, so it is dealt with here too.
  duration=0 rest=()
  while [ $# -gt 0 ]; do
    case $1 in
      --duration) duration=${2:?--duration needs seconds}; shift ;;
      --duration=*) duration=${1#*=} ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
  compose=(docker compose)
  docker compose version >/dev/null 2>&1 || compose=(docker-compose)
  trap : INT # Ctrl-C ends the reading; the summary still comes
  { timeout "$duration" "${compose[@]}" logs --no-color -f --tail=0 lb || true; } | "${inside[@]}" - ${rest[@]+"${rest[@]}"}
  exit
fi

if ! command -v cargo >/dev/null; then
  echo "slo_watch: there is neither a program dronedispatch (set DRONEDISPATCH), nor the image $image, nor cargo to build it" >&2
  exit 2
fi
echo "slo_watch: building dronedispatch, once; this takes some minutes" >&2
cargo build --quiet --release --locked --manifest-path "$here/Cargo.toml" -p dronedispatch >&2
exec "${CARGO_TARGET_DIR:-$here/target}/release/dronedispatch" slo-watch "$@"
