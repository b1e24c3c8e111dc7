#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the guest's kernel from Debian's linux-source with the fragments of guest/kernel/, and prints the directory
# that holds vmlinux and the .config it was built from. Cached by the content of all that goes in.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

package=linux-source-6.12
fragments=("$top"/guest/kernel/*.config)

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
    make -s allnoconfig KCONFIG_ALLCONFIG="$work/guest.config" >/dev/null
    check_config
    say "compiling $package $version (about 5 minutes of 2 cores)"
    nice make -s -j"$JOBS" vmlinux >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        die "the kernel does not build"
    }
    strip -s vmlinux -o "$work/stripped"
    python3 "$top/guest/kernel/shrink-elf.py" "$work/stripped" "$out/vmlinux"
    cp .config "$out/config"
    rm -rf "$work"
    trap - EXIT
}

need_packages build-essential flex bison bc libelf-dev libssl-dev cpio rsync xz-utils kmod python3
version=$(apt-cache show "$package" 2>/dev/null | sed -n 's/^Version: //p' | head -n 1)
[ -n "$version" ] || {
    apt-get update -qq
    version=$(apt-cache show "$package" | sed -n 's/^Version: //p' | head -n 1)
}
[ -n "$version" ] || die "this machine's apt has no $package"
key=$(content_key "$version" "$(gcc -dumpfullversion)" "${fragments[@]}" "$top/guest/kernel/shrink-elf.py" "$0")
cached kernel "$key" build
