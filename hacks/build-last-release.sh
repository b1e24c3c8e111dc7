#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the programs of the last release, which today's must get on with, and prints the directory that holds them:
# shim, daemon, agent, and guest/ with that agent and today's kernel. tests/last-release names the release's tag or
# commit; where a clone does not have it, the last line on stderr is the reason.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

release=$(sed '/^#/d' "$top/tests/last-release")
commit=$(git -C "$top" rev-parse --verify --quiet "$release^{commit}") ||
    die "the last release, $release, is not in this clone"

build() {
    local out=$1 work
    work=$(mktemp -d /var/tmp/cloudhv-release.XXXXXX)
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    say "compiling the programs of $release"
    git -C "$top" archive "$commit" | tar -x -C "$work"
    meson setup "$work/build" "$work" --buildtype=release -Doptimization=s -Dtests=false \
        --pkg-config-path="$libnl" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log"
        return 1
    }
    nice ninja -C "$work/build" -j"$JOBS" --quiet
    install -m 755 -t "$out" "$work"/build/src/{shim/containerd-shim-cloudhv-v1,daemon/cloudhv-sandbox-daemon,agent/cloudhv-agent}
}

need_packages build-essential meson ninja-build pkg-config libsystemd-dev libprotobuf-c-dev protobuf-c-compiler \
    libnl-3-dev libjansson-dev git
libnl=$("$top/hacks/build-libnl.sh")
directory=$(cached release "$(content_key "$commit" "$0")" build)
guest=$("$top/hacks/build-guest.sh" "$directory/cloudhv-agent")
ln -sfn "$guest" "$directory/guest"
echo "$directory"
