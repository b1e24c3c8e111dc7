# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2034,SC2154 # for the scripts; top and arch come from common.sh
# Sourced after common.sh by scripts that compile. On a machine of another architecture than $arch that is done by
# Debian's cross compiler against a root that holds the libraries' packages; no program of that root is run.

cross_prefix='' # of the tools' names, with the dash
cross_host=()   # for autoconf
sysroot=''
[ "$arch" = "$machine_arch" ] || {
    [ "$arch/$machine_arch" = arm64/x86-64 ] || die "cannot compile for $arch on this machine, which is $machine_arch"
    cross_prefix=aarch64-linux-gnu-
    cross_host=(--host=aarch64-linux-gnu)
}

# cross_setup: what programs and libraries are compiled with; a kernel needs the prefix only.
cross_setup() {
    [ -n "$cross_prefix" ] || return 0
    need_packages gcc-aarch64-linux-gnu pkg-config
    sysroot=$("$top/hacks/build-sysroot.sh")
    export CC="${cross_prefix}gcc --sysroot=$sysroot"
    # This machine's own are none of ours.
    export PKG_CONFIG_LIBDIR=$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig:$sysroot/usr/share/pkgconfig
    case $($CC -print-file-name=libc.a) in
    "$sysroot"/*) ;;
    *) die "the compiler prefers the libc of libc6-dev-arm64-cross, which gets no security updates: remove that package" ;;
    esac
}

# cross_meson_file FILE gcc|clang: what `meson setup --cross-file=` reads. clang needs nothing but itself and lld.
cross_meson_file() {
    local compiler="'${cross_prefix}gcc'" tools=$cross_prefix link=''
    [ "$2" = gcc ] || {
        compiler="'clang', '--target=aarch64-linux-gnu'" tools=llvm- link="c_ld = 'lld'"
    }
    [ "$2" = gcc ] && tools=${cross_prefix}gcc-
    cat >"$1" <<INI
[binaries]
c = [$compiler, '--sysroot=$sysroot']
ar = '${tools}ar'
strip = '${tools}strip'
pkgconfig = 'pkg-config'
$link
[properties]
pkg_config_libdir = '$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig:$sysroot/usr/share/pkgconfig'
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
INI
}
