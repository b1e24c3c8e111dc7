#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the integration tests: every case with one containerd and both runtimes, the quick ones with every other
# containerd and with VMs booted by the shim itself, and the faults.
#
#   hacks/lib/run-integration.sh --build DIR --guest DIR [--results FILE] [--only GROUP] [PYTEST-ARGUMENT...]
#
# DIR are a build directory (with fault injection for the faults) and the guest's. FILE gets a line per case:
# "pass NAME", "fail NAME" or "skip NAME: REASON". GROUP is one of those below; "sanitizer" (everything once, without
# runc and faults) runs only when named.
set -uo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

build='' guest='' results='' only=''
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2 && shift ;;
    --guest) guest=$2 && shift ;;
    --results) results=$2 && shift ;;
    --only) only=$2 && shift ;;
    *) break ;;
    esac
    shift
done
if [ ! -d "$build" ] || [ ! -d "$guest" ]; then
    die "usage: run-integration.sh --build DIR --guest DIR [--results FILE] [--only GROUP]"
fi
need_packages containerd runc containernetworking-plugins qemu-system-x86 busybox-static python3-grpcio \
    python3-protobuf python3-pytest protobuf-c-compiler binutils iproute2 e2fsprogs gcc libc6-dev
tools=$("$top/hacks/build-tools.sh") || die "no mkfs.erofs"
status=0
extra=("$@")

# run GROUP PYTEST-ARGUMENT...
run() {
    local group=$1 ret arguments=()
    shift
    if [ "${only:-$group}" != "$group" ]; then return; fi
    [ -z "$results" ] || arguments+=(--results="$results" --label="$group ")
    say "$group"
    (cd "$top/tests/integration" && exec /usr/bin/python3 -m pytest -q --tb=short --bin-dir="$build" \
        --guest-dir="$guest" --mkfs="$tools/mkfs.erofs" "${arguments[@]}" "$@" "${extra[@]}")
    ret=$?
    # 5 says that no case was selected, which an argument of the caller may bring about.
    [ "$ret" = 0 ] || [ "$ret" = 5 ] || status=1
}

run containerd-1.7 --containerd 1.7 --runtime runc,cloudhv --ignore test_faults.py
run containerd-1.6 --containerd 1.6 --runtime runc,cloudhv -m quick
run containerd-2.x --containerd 2.x --runtime runc,cloudhv -m quick
run daemonless --containerd 1.7 --runtime cloudhv --mode daemonless -m quick
run faults --containerd 1.7 --runtime cloudhv test_faults.py
# A program that is killed reports nothing.
[ "$only" != sanitizer ] || run sanitizer --containerd 1.7 --runtime cloudhv --ignore test_faults.py --ignore test_upgrade.py \
    -k "not killed_at"
exit "$status"
