#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds what runs in the VM, and prints the directory that holds vmlinux and rootfs.erofs.
#   hacks/build-guest.sh AGENT
# AGENT is the static cloudhv-agent of the build, of the architecture CLOUDHV_ARCH where that is set. docs/guest.md says what is in the root file system, and why.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/cross.sh
. "$(dirname "$0")/lib/cross.sh"

agent=${1:-}
[ -n "$agent" ] || die "usage: build-guest.sh AGENT"
[ -x "$agent" ] || die "there is no program $agent: build it first"
needed=$(LC_ALL=C readelf -d "$agent" 2>&1)
[[ $needed != *NEEDED* ]] || die "$agent is not static, the guest has no libraries"

build() {
    local out=$1 root
    root=$(mktemp -d "$cache/rootfs.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$root'" EXIT
    install -d "$root"/{dev,etc,proc,run,sbin,sys,tmp,usr/bin}
    install -m 755 "$agent" "$root/sbin/init"
    install -m 755 "$tools/crun" "$root/usr/bin/crun"
    "${cross_prefix}strip" "$root/sbin/init"
    "$maker/mkfs.erofs" --quiet -zlz4hc,12 -C65536 -Efragments,dedupe,ztailpacking -T0 \
        -U 6f0c2a1e-54c1-4b0e-8a57-0b8a5b3f0c11 --all-root "$out/rootfs.erofs" "$root" >&2
    rm -rf "$root"
    trap - EXIT
    ln "$kernel/vmlinux" "$out/vmlinux" 2>/dev/null || cp "$kernel/vmlinux" "$out/vmlinux"
}

kernel=$("$top/hacks/build-kernel.sh")
tools=$("$top/hacks/build-tools.sh")
maker=$(CLOUDHV_ARCH=$machine_arch "$top/hacks/build-tools.sh") # of the two, what can run here
cached "guest$suffix" "$(content_key "$agent" "$(basename "$maker")" "$(basename "$tools")" "$(basename "$kernel")" "$0")" build
