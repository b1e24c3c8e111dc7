#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Long counts, which CI has no time for: hundreds of pods one after another, the racing cases again and again, the
# extension refreshed under pods that start and end, and the fuzz targets for longer. The leak audit of the integration
# tests looks for what stays after each of them.
#   sudo hacks/soak.sh [--pods N] [--rounds N] [--refreshes N] [--fuzz-runs N]       (500, 20, 200, 2000000)
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

pods=500 rounds=20 refreshes=200 fuzz_runs=2000000
while [ $# -gt 0 ]; do
    case $1 in
    --pods) pods=${2:?} && shift ;;
    --rounds) rounds=${2:?} && shift ;;
    --refreshes) refreshes=${2:?} && shift ;;
    --fuzz-runs) fuzz_runs=${2:?} && shift ;;
    *) die "usage: soak.sh [--pods N] [--rounds N] [--refreshes N] [--fuzz-runs N]" ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || die "must be run as root"
guest=$("$top/hacks/build.sh")

# run TITLE PYTEST-ARGUMENT...
run() {
    say "$1"
    shift
    "$top/hacks/lib/run-integration.sh" --build "${BUILD_DIR:-$top/build}" --guest "$guest" --only containerd-1.7 \
        --runtime cloudhv "$@"
}

run "$pods pods one after another" -k pods_one_after_another --pods "$pods"
for ((round = 1; round <= rounds; round++)); do
    run "round $round of $rounds" -k "exits_at_once or at_once or hundred_thousand"
done
say "$refreshes pods under refreshes of the extension"
(cd "$top/tests/sysext" && /usr/bin/python3 -m pytest -q --tb=short -p no:cacheprovider --build-dir="${BUILD_DIR:-$top/build}" \
    --guest-dir="$guest" --pods "$refreshes" test_refresh.py)
image=$(mktemp -d /var/tmp/cloudhv-soak.XXXXXX)
trap 'rm -rf "$image"' EXIT
"$top/hacks/build-sysext.sh" --output "$image"
APPLIANCE_LOOPS=$refreshes APPLIANCE_TIMEOUT=$((420 + 60 * refreshes)) "$top/tests/appliance/run.sh" \
    --image "$image/containerd-cloudhypervisor.raw" --certificate "$image/containerd-cloudhypervisor.crt" update
say "fuzz targets, $fuzz_runs runs each"
FUZZ_RUNS=$fuzz_runs FUZZ_SECONDS=3600 "$top/hacks/test.sh" fuzz
say "nothing was left behind"
