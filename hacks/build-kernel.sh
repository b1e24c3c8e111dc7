#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the guest's kernel from Debian's linux-source with the fragments of guest/kernel/, and prints the directory
# that holds vmlinux (on arm64, what VMMs boot by the name Image) and the .config it was built from. Cached by the
# content of all that goes in. CLOUDHV_ARCH=arm64 cross-compiles it.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/cross.sh
. "$(dirname "$0")/lib/cross.sh"

package=linux-source-6.12
fragments=("$top"/guest/kernel/{base,containers,fs,net,virt,"$arch"}.config)
case $arch in
x86-64) make_options=(ARCH=x86) target=vmlinux inputs=("$top/guest/kernel/shrink-elf.py") ;;
arm64) make_options=(ARCH=arm64 CROSS_COMPILE="$cross_prefix") target=Image inputs=("$top/guest/kernel/arm64.bootconfig") ;;
*) die "the guest's kernel is for x86-64 or arm64, not $arch" ;;
esac

# What was asked for must be what was built: an option whose dependencies are missing disappears silently.
check_config() {
    local line missing=()
    while read -r line; do
        grep -qxF "$line" .config || missing+=("$line")
    done < <(grep -h '^CONFIG_' "${fragments[@]}")
    [ ${#missing[@]} = 0 ] || die "these options did not survive make (dependencies missing?): ${missing[*]}"
}

build() {
    local out=$1 work
    work=$(mktemp -d "$cache/kernel-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    say "getting $package $version"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package=$version")
    dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb | tar -xO "./usr/src/$package.tar.xz" |
        tar -xJ -C "$work" --no-same-owner
    cd "$work/$package"
    cat "${fragments[@]}" >"$work/guest.config"
    export KBUILD_BUILD_USER=cloudhv KBUILD_BUILD_HOST=cloudhv KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP=@0
    export SOURCE_DATE_EPOCH=0 LOCALVERSION=-cloudhv
    [ "$arch" != arm64 ] || cp "${inputs[0]}" . # where CONFIG_BOOT_CONFIG_EMBED_FILE looks
    make -s "${make_options[@]}" allnoconfig KCONFIG_ALLCONFIG="$work/guest.config" >/dev/null
    check_config
    say "compiling $package $version for $arch (about 5 minutes of 2 cores)"
    nice make -s "${make_options[@]}" -j"$JOBS" "$target" >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        die "the kernel does not build"
    }
    if [ "$arch" = arm64 ]; then
        cp arch/arm64/boot/Image "$out/vmlinux"
    else
        strip -s vmlinux -o "$work/stripped"
        python3 "${inputs[0]}" "$work/stripped" "$out/vmlinux"
    fi
    cp .config "$out/config"
    rm -rf "$work"
    trap - EXIT
}

[ -z "$cross_prefix" ] || need_packages gcc-aarch64-linux-gnu
need_packages build-essential flex bison bc libelf-dev libssl-dev cpio rsync xz-utils kmod python3
version=$(apt-cache show "$package" 2>/dev/null | sed -n 's/^Version: //p' | head -n 1)
[ -n "$version" ] || {
    apt-get update -qq
    version=$(apt-cache show "$package" | sed -n 's/^Version: //p' | head -n 1)
}
[ -n "$version" ] || die "this machine's apt has no $package"
key=$(content_key "$version" "$("${cross_prefix}gcc" -dumpfullversion)" "${fragments[@]}" "${inputs[@]}" "$0")
cached "kernel$suffix" "$key" build
