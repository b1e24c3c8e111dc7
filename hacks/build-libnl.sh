#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds libnl-3's core as a static library of which a program gets the functions it calls: from Debian 12's source
# package, a section for each function, without debugging output and locks. Debian's own has one section for each
# source file, and all of these need each other, which makes the shim 90 kB and the agent 200 kB larger. Prints the
# directory of its libnl-3.0.pc, for meson's --pkg-config-path. Cached by version, compiler and this recipe.
# CLOUDHV_ARCH=arm64 cross-compiles it.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/cross.sh
. "$(dirname "$0")/lib/cross.sh"

suite=bookworm # as what the programs are compiled on, so the headers of libnl-3-dev are the same
flags=(-Os -g0 -fPIE -fstack-protector-strong -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables
    -fno-unwind-tables -flto -ffat-lto-objects)

build() {
    local out=$1 work
    work=$(mktemp -d "$cache/libnl-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    cd "$work"
    say "compiling libnl"
    "$top/hacks/lib/apt-private.sh" "$suite" source --download-only -qq libnl3 >/dev/null
    dpkg-source --no-check -x libnl3_*.dsc source >/dev/null # apt has checked the signature
    mkdir build
    cd build
    {
        ../source/configure "${cross_host[@]}" --disable-shared --enable-static --disable-cli --disable-debug --disable-pthreads \
            CPPFLAGS=-DNDEBUG CFLAGS="${flags[*]}" AR="${cross_prefix}gcc-ar" NM="${cross_prefix}gcc-nm" RANLIB="${cross_prefix}gcc-ranlib" &&
            make -s -j"$JOBS" lib/libnl-3.la
    } >../log 2>&1 || {
        tail -n 20 ../log >&2
        return 1
    }
    cp lib/.libs/libnl-3.a "$out/"
    mkdir "$out/include"
    cp -r ../source/include/netlink "$out/include/"
    cp include/netlink/version.h "$out/include/netlink/"
    # Relative to the file: the directory is moved once it is complete.
    # shellcheck disable=SC2016 # pkg-config's own variable
    printf '%s\n' 'Name: libnl' 'Description: the core of the netlink library' "$(grep '^Version: ' libnl-3.0.pc)" \
        'Libs: -L${pcfiledir} -lnl-3' 'Cflags: -I${pcfiledir}/include' >"$out/libnl-3.0.pc"
    sed -n 's/^Version: /libnl3 /p' ../libnl3_*.dsc | head -n 1 >"$out/version"
    cp ../source/debian/copyright "$out/copyright"
    cd /
    rm -rf "$work"
    trap - EXIT
}

need_packages build-essential dpkg-dev
sources=$("$top/hacks/lib/apt-private.sh" "$suite" source --print-uris -qq libnl3 | sed "s/^'[^']*' //")
[ -n "$sources" ] || die "the sources of libnl3 cannot be had from suite $suite"
cross_setup
cached "libnl$suffix" "$(content_key "$sources" "$("${cross_prefix}gcc" --version)" ${sysroot:+"$sysroot/packages"} "$0")" build
