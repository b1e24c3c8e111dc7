#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Measures what a pod costs, on a node of its own (see lib/node.sh), and prints a table; then, on a second node with the
# image's QEMU, what clones and the pool are worth.
#   sudo hacks/bench.sh [--json FILE]     FILE gets {name: {"value": ..., "unit": ...}}
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/node.sh
. "$(dirname "$0")/lib/node.sh"

[ "$(id -u)" = 0 ] || die "must be run as root"
need_packages containerd containernetworking-plugins runc qemu-system-x86 e2fsprogs iproute2 python3 python3-protobuf protobuf-c-compiler strace
guest=$("$top/hacks/build.sh")
image=$("$top/hacks/make-image.sh" busybox)
build=${BUILD_DIR:-$top/build}

directory=$(mktemp -d /var/tmp/cloudhv-bench.XXXXXX)
finish() {
    local status=$?
    if [ "$status" != 0 ]; then
        node_show_logs "$directory"
        node_show_logs "$directory/second"
    fi
    node_stop
    rm -rf "$directory"
    exit "$status"
}
trap finish EXIT
NODE_LOG_LEVEL=debug node_start "$directory" "$build" "$guest"
ctr --address "$directory/containerd.sock" images import "$image" >/dev/null
measure=(/usr/bin/python3 "$top/hacks/bench.py" --build "$build" --guest "$guest" "$@")
"${measure[@]}" --directory "$directory" pods
node_stop

qemu=$("$top/hacks/build-qemu.sh")
mkdir "$directory/second"
NODE_QEMU=$qemu/qemu-system-x86_64 NODE_POOL_SIZE=2 node_start "$directory/second" "$build" "$guest"
ctr --address "$directory/second/containerd.sock" images import "$image" >/dev/null
"${measure[@]}" --directory "$directory/second" clones
