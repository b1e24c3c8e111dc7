#!/bin/bash
# SPDX-License-Identifier: MIT
# Prints a directory with containerd, ctr and containerd-shim-runc-v2 of one release line, getting them first
# where needed; they stay in the cache. On failure the last line on stderr is the reason.
#   tests/integration/get-containerd.sh 1.6|1.7|2.x
set -euo pipefail

version=${1:?usage: get-containerd.sh 1.6|1.7|2.x}
top=$(cd "$(dirname "$0")/../.." && pwd)
cache=${CLOUDHV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudhv}
# The release that stands for 2.x. A change here is a change of what CI tests.
release_2x=v2.3.7

die() {
    echo "$*" >&2
    exit 1
}

of_debian_12() {
    local found
    found=$(/usr/bin/containerd --version 2>/dev/null) || die "containerd of Debian 12 is not installed"
    [[ $found == *" 1.6."* ]] || die "/usr/bin/containerd is not 1.6: $found"
    echo /usr/bin
}

# Debian 13's package, unpacked without installing it. Its programs may need a newer libc than this machine has.
of_debian_13() {
    local dir=$cache/containerd-1.7 unpacked
    if [[ ! -x $dir/containerd ]]; then
        [[ -x $top/hacks/lib/apt-private.sh ]] || die "hacks/lib/apt-private.sh is missing"
        mkdir -p "$dir.new"
        (cd "$dir.new" && "$top/hacks/lib/apt-private.sh" trixie download containerd) >&2 ||
            die "Debian 13's package containerd can't be downloaded"
        unpacked=$dir.new/root
        dpkg-deb -x "$dir.new"/containerd_*.deb "$unpacked" >&2
        mkdir -p "$dir"
        mv "$unpacked"/usr/bin/* "$dir"
        rm -rf "$dir.new"
    fi
    "$dir/containerd" --version >/dev/null 2>&1 || die "containerd of Debian 13 does not run on this machine's libc"
    echo "$dir"
}

of_go_proxy() {
    local dir=$cache/containerd-$release_2x prefix=github.com/containerd/containerd/v2/cmd
    if [[ ! -x $dir/containerd || ! -x $dir/ctr || ! -x $dir/containerd-shim-runc-v2 ]]; then
        command -v go >/dev/null || die "no Go compiler to build containerd $release_2x with"
        mkdir -p "$dir"
        CGO_ENABLED=0 GOBIN=$dir nice -n 10 go install -p 2 -ldflags "-s -w" "$prefix/containerd@$release_2x" \
            "$prefix/ctr@$release_2x" "$prefix/containerd-shim-runc-v2@$release_2x" >&2 ||
            die "containerd $release_2x can't be built from the Go module proxy"
    fi
    echo "$dir"
}

case $version in
1.6) of_debian_12 ;;
1.7) of_debian_13 ;;
2.x) of_go_proxy ;;
*) die "unknown release line $version" ;;
esac
