#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds other people's programs that we ship, static, from Debian 13's sources: mkfs.erofs (with fsck.erofs and
# dump.erofs for tests) and crun. Prints the directory they are in. Cached by version and recipe. CLOUDHV_ARCH=arm64
# cross-compiles them.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/cross.sh
. "$(dirname "$0")/lib/cross.sh"

suite=trixie
crun_version=1.21

get_source() { # get_source PACKAGE: its orig tarball into the current directory
    # The mirror may lack the Debian part of a source package; the orig tarball is all that is needed.
    "$top/hacks/lib/apt-private.sh" "$suite" source --download-only -qq "$1" >/dev/null 2>&1 || true
    compgen -G "$1_*.orig.tar.*" >/dev/null || die "the sources of $1 cannot be had from suite $suite"
    mkdir "$1"
    tar -xf "$1"_*.orig.tar.* -C "$1" --strip-components=1
}

build_erofs_utils() {
    say "compiling erofs-utils"
    get_source erofs-utils
    cd erofs-utils
    grep -q 1 VERSION
    ./autogen.sh >/dev/null 2>&1
    ./configure "${cross_host[@]}" --enable-lz4 --enable-static --disable-shared --disable-fuse --without-selinux --without-uuid \
        --without-libdeflate --disable-lzma --enable-multithreading=no --with-libzstd=no \
        CFLAGS='-Os -g0 -ffunction-sections -fdata-sections' \
        LDFLAGS='-static -Wl,--gc-sections' >/dev/null
    make -s -j"$JOBS" LDFLAGS='-all-static -Wl,--gc-sections' >/dev/null 2>../erofs.log || {
        tail -n 20 ../erofs.log >&2
        return 1
    }
    "${cross_prefix}strip" mkfs/mkfs.erofs fsck/fsck.erofs dump/dump.erofs
    cp mkfs/mkfs.erofs fsck/fsck.erofs dump/dump.erofs "$1"
    head -n 1 VERSION >"$1/erofs-utils.version"
    cd ..
}

# Without systemd and CRIU, which the guest lacks; with eBPF, which the device controller of cgroup v2 needs.
build_crun() {
    say "compiling crun"
    get_source crun
    cd crun
    printf '#define GIT_VERSION "%s"\n' "$crun_version" >git-version.h # missing in the tarball
    [ -x configure ] || ./autogen.sh >/dev/null 2>&1
    ./configure "${cross_host[@]}" --disable-systemd --disable-criu --enable-embedded-yajl --disable-shared \
        CFLAGS='-Os -g0 -ffunction-sections -fdata-sections' >/dev/null
    make -s -j"$JOBS" >/dev/null 2>../crun.log || {
        tail -n 20 ../crun.log >&2
        return 1
    }
    rm crun # libtool drops a plain -static, so it is linked once more
    make -s LDFLAGS='-all-static -Wl,--gc-sections' crun >/dev/null 2>>../crun.log
    "${cross_prefix}strip" crun
    cp crun "$1"
    cd ..
}

build() {
    local out=$1 work
    work=$(mktemp -d "$cache/tools-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    cd "$work"
    build_erofs_utils "$out"
    build_crun "$out"
    cd /
    rm -rf "$work"
    trap - EXIT
    for program in mkfs.erofs crun; do
        file_type=$(LC_ALL=C readelf -d "$out/$program" 2>&1)
        [[ $file_type != *NEEDED* ]] || die "$program is not static"
    done
}

need_packages build-essential pkg-config autoconf automake libtool liblz4-dev libzstd-dev zlib1g-dev uuid-dev \
    libcap-dev libseccomp-dev python3 dpkg-dev
cross_setup
key=$(content_key "$suite" "$crun_version" "$("${cross_prefix}gcc" -dumpfullversion)" ${sysroot:+"$sysroot/packages"} "$0")
cached "tools$suffix" "$key" build
