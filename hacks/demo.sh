#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Prepares a bare Debian machine for demo/demo.sh and runs it: installs what is needed, builds everything, starts a
# containerd and a sandbox daemon of its own, makes an image from Debian packages, and removes all of it at the end
# but the build and the caches.
#   sudo hacks/demo.sh [IMAGE-ARCHIVE]     any OCI archive of a server on port 80 instead of Debian's nginx
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/node.sh
. "$(dirname "$0")/lib/node.sh"

[ "$(id -u)" = 0 ] || die "must be run as root"
need_packages containerd containernetworking-plugins runc qemu-system-x86 e2fsprogs iproute2 python3
guest=$("$top/hacks/build.sh")
image=${1:-$("$top/hacks/make-image.sh" web)}
[ -f "$image" ] || die "there is no image archive $image"

directory=$(mktemp -d /var/tmp/cloudhv-demo.XXXXXX)
finish() {
    local status=$?
    [ "$status" = 0 ] || node_show_logs "$directory"
    "$top/demo/demo.sh" cleanup >"$directory/cleanup.log" 2>&1 || {
        say "the demo's pod could not be removed"
        cat "$directory/cleanup.log" >&2
        status=1
    }
    node_stop
    rm -rf "$directory"
    exit "$status"
}
export DEMO_CLIENT=ctr CONTAINERD_ADDRESS=$directory/containerd.sock CNI_BIN=/usr/lib/cni
trap finish EXIT
node_start "$directory" "${BUILD_DIR:-$top/build}" "$guest"
# The demo stands beside the programs in the sysext; here it is told where they are. Without KVM the guest is
# emulated, some twenty times slower, so it gets time.
DEMO_TIMEOUT=180 "$top/demo/demo.sh" "$image"
