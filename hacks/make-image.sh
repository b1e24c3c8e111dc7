#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Makes a real image, as an OCI archive, from Debian packages, and prints its path. Needs no registry.
#   hacks/make-image.sh busybox|web
#     busybox   Debian's static busybox, with its httpd as the command: two layers, 2 MB
#     web       Debian's nginx with its libraries: four layers, 20 MB
# CLOUDHV_ARCH=arm64 makes it of that architecture's packages.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

suite=bookworm
packages=$suite
[ "$arch" = "$machine_arch" ] || packages=$suite:$arch
libraries=(libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g libgcc-s1)
server=(nginx nginx-common)

unpack() { # unpack DIRECTORY PACKAGE...
    unpack_from "$packages" "$@"
}

unpack_from() { # unpack_from SUITE DIRECTORY PACKAGE...
    local from=$1 directory=$2 package
    shift 2
    rm -rf deb
    mkdir -p "$directory"/usr/{bin,lib,lib64,sbin} deb
    # What a merged /usr looks like; packages still name /lib and /bin.
    for name in bin lib lib64 sbin; do ln -s "usr/$name" "$directory/$name"; done
    (cd deb && "$top/hacks/lib/apt-private.sh" "$from" download -qq "$@")
    for package in "$@"; do
        dpkg-deb --fsys-tarfile deb/"$package"_*.deb | tar -x --keep-directory-symlink -C "$directory"
    done
    rm -rf "$directory"/usr/share/{doc,man,locale,lintian} "$directory"/usr/lib/*/gconv
}

build() {
    local out=$1 work
    work=$(mktemp -d "$cache/image-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    cd "$work"
    say "making the image $kind from Debian packages"
    unpack busybox busybox-static
    [ "$packages" = "$suite" ] || unpack_from "$suite" native busybox-static
    if [ "$kind" = web ]; then
        unpack libraries "${libraries[@]}"
        unpack server "${server[@]}"
    fi
    python3 "$top/hacks/make-image.py" "$kind" "$work" "$out/$kind.tar"
    cd /
    rm -rf "$work"
    trap - EXIT
}

kind=${1:-}
case $kind in
busybox | web) ;;
*) die "usage: make-image.sh busybox|web" ;;
esac
need_packages python3 dpkg-dev
directory=$(cached "image-$kind$suffix" "$(content_key "$kind" "$suite" "$0" "${0%.sh}.py" "$top/hacks/lib/oci_image.py")" build)
echo "$directory/$kind.tar"
