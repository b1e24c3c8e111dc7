#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds everything for this machine: the programs into build/, the guest into the cache. Prints the directory of
# the guest's vmlinux and rootfs.erofs. Installs the Debian packages that it needs. CLOUDHV_ARCH=arm64 cross-compiles,
# into build-arm64/.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/cross.sh
. "$(dirname "$0")/lib/cross.sh"

need_packages build-essential meson ninja-build pkg-config libsystemd-dev libprotobuf-c-dev protobuf-c-compiler \
    libnl-3-dev libjansson-dev
build=${BUILD_DIR:-$top/build$suffix}
libnl=$("$top/hacks/build-libnl.sh")
cross=()
if [ -n "$cross_prefix" ]; then
    sysroot=$("$top/hacks/build-sysroot.sh")
    mkdir -p "$build"
    cross_meson_file "$build/cross.ini" gcc
    cross=(--cross-file="$build/cross.ini")
fi
if [ ! -f "$build/build.ninja" ]; then
    say "configuring $build"
    meson setup "$build" "$top" --buildtype=release -Doptimization=s -Db_lto=true -Dtests=false \
        --pkg-config-path="$libnl" "${cross[@]}" >/dev/null
elif ! grep -qF "$libnl" "$build/build.ninja"; then
    meson configure "$build" --clearcache
    meson configure "$build" -Dpkg_config_path="$libnl"
fi
say "compiling the programs"
ninja -C "$build" -j"$JOBS" --quiet >&2
"$top/hacks/build-guest.sh" "$build/src/agent/cloudhv-agent"
