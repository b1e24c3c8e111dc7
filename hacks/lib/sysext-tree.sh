#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs in mkosi's container (mkosi.images/build): compiles everything and lays out the extension's files in
# $BUILDDIR/dest/root, and what is known about them in $BUILDDIR/dest: components.tsv (file pattern, package,
# version, licence, source package, its version, suite), build-packages (what is installed here), sources.
set -euo pipefail
# A cache of its own: what this machine has compiled outside (crun, say) is not bit for bit what is compiled in here.
# And what is cached by its content must not hold the time of the commit that it was first built for.
export HOME=/root LC_ALL=C CLOUDHV_CACHE=$SRCDIR/.cache/container SOURCE_DATE_EPOCH=0
with_qemu=yes
# shellcheck source=/dev/null
. "$SRCDIR/.options" # with_qemu, JOBS, CLOUDHV_ARCH
export CLOUDHV_ARCH
# shellcheck source=common.sh
. "$SRCDIR/hacks/lib/common.sh"
# shellcheck source=cross.sh
. "$SRCDIR/hacks/lib/cross.sh"

dest=$BUILDDIR/dest
root=$dest/root
lib=$root/usr/lib/cloudhv
share=$root/usr/share/cloudhv
licenses=$root/usr/share/licenses/cloudhv
vmm=$SRCDIR/.vmm/cloud-hypervisor

# The container has the package manager but neither its sources nor lists; the lists are kept from run to run.
set_up_apt() {
    rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* # mkosi's, with repositories that a mirror may lack
    cp -r "$SRCDIR/.apt/etc/apt/." /etc/apt/
    mkdir -p "$BUILDDIR/apt-lists/partial"
    rm -rf /var/lib/apt/lists
    ln -s "$BUILDDIR/apt-lists" /var/lib/apt/lists
    if [ -z "$(find "$BUILDDIR/apt-lists" -maxdepth 1 -name '*_Packages*' -mmin -720 2>/dev/null | head -n 1)" ]; then
        apt-get update -qq
    fi
}

compile_programs() {
    local build=$BUILDDIR/meson options libnl
    libnl=$("$top/hacks/build-libnl.sh")
    # As in hacks/build.sh.
    options=(--buildtype=release -Doptimization=s -Db_lto=true -Dtests=false --pkg-config-path="$libnl")
    if [ -n "$cross_prefix" ]; then
        sysroot=$("$top/hacks/build-sysroot.sh")
        cross_meson_file "$BUILDDIR/cross.ini" gcc
        options+=(--cross-file="$BUILDDIR/cross.ini")
    fi
    if [ ! -f "$build/build.ninja" ] || [ "$(cat "$build/.options" 2>/dev/null)" != "${options[*]}" ]; then
        rm -rf "$build"
        meson setup "$build" "$SRCDIR" "${options[@]}" >/dev/null
        echo "${options[*]}" >"$build/.options"
    fi
    say "compiling the programs"
    nice ninja -C "$build" -j"$JOBS" --quiet >&2
}

# share FROM TO: the two that take long, where they exist: they are freestanding or static, with one compiler.
share() {
    local directory
    mkdir -p "$2"
    for directory in "$1"/kernel-*[0-9a-f] "$1"/qemu-*[0-9a-f]; do
        [ ! -f "$directory/vmlinux" ] && [ ! -f "$directory/version" ] && continue
        [ -e "$2/${directory##*/}" ] || cp -al "$directory" "$2/"
    done
}

# component PATTERN PACKAGE VERSION LICENCE SOURCE SOURCE-VERSION SUITE
component() {
    local IFS=$'\t'
    printf '%s\n' "$*" >>"$dest/components.tsv"
}

# linked PATTERN LICENCE PACKAGE: a library of this container, or of what is compiled against, that a program holds a
# copy of
linked() {
    local version source source_version
    # shellcheck disable=SC2016 # dpkg's own variables
    read -r version source source_version < <(
        if [ -n "$sysroot" ]; then
            awk -v package="$3" '$1 == package { print $2, $4, $5 }' "$sysroot/packages"
        else
            dpkg-query -W -f '${Version} ${source:Package} ${source:Version}\n' "$3"
        fi | head -n 1
    )
    component "$1" "$3" "$version" "$2" "$source" "$source_version" bookworm
    cp "$sysroot/usr/share/doc/$3/copyright" "$licenses/${3%-dev}"
}

# The copyright files of packages whose sources were compiled, from their binary packages.
get_copyrights() {
    local package
    cd "$1"
    for package in crun erofs-utils; do "$top/hacks/lib/apt-private.sh" trixie download -qq "$package"; done
    "$top/hacks/lib/apt-private.sh" bookworm download -qq busybox-static
    for package in crun erofs-utils busybox-static; do
        dpkg-deb --fsys-tarfile "$package"_*.deb | tar -xO "./usr/share/doc/$package/copyright" >"$package"
        # shellcheck disable=SC2016 # dpkg's own variables
        dpkg-deb --show --showformat '${Version} ${source:Package} ${source:Version}\n' "$package"_*.deb >"$package.version"
        rm "$package"_*.deb
    done
}

install_programs() {
    local program file
    for program in shim/containerd-shim-cloudhv-v1 daemon/cloudhv-sandbox-daemon ctl/cloudhvctl; do
        file=$BUILDDIR/meson/src/$program
        if [ ! -x "$file" ]; then
            say "there is no $program yet"
            continue
        fi
        install -D -m 755 -t "$root/usr/bin" "$file"
        "${cross_prefix}strip" "$root/usr/bin/${program#*/}"
    done
    component 'usr/bin/*' cloudhv "$IMAGE_VERSION" MIT cloudhv "$IMAGE_VERSION" ''
    component 'usr/*' cloudhv "$IMAGE_VERSION" MIT cloudhv "$IMAGE_VERSION" ''
    install -D -m 644 "$SRCDIR/LICENSE" "$licenses/cloudhv"
    linked 'usr/bin/*' BSD-2-Clause libprotobuf-c-dev
    linked 'usr/bin/*' MIT libjansson-dev
    linked 'usr/bin/*' LGPL-2.1-only libnl-3-dev
}

# units/ and the static files of sysext/ (which mkosi adds itself) are plain files of the repository.
install_units() {
    local file target
    if [ -d "$SRCDIR/units" ]; then
        while IFS= read -r file; do
            case $file in
            modules-load.conf) target=usr/lib/modules-load.d/cloudhv.conf ;;
            *) target=usr/lib/systemd/system/$file ;;
            esac
            install -D -m 644 "$SRCDIR/units/$file" "$root/$target"
        done < <(cd "$SRCDIR/units" && find . -type f ! -name '*.md' -printf '%P\n')
    fi
    for file in "$SRCDIR"/docs/man/*.[1-8]; do
        [ -f "$file" ] || continue
        install -D -m 644 -t "$root/usr/share/man/man${file##*.}" "$file"
    done
}

install_guest() {
    local kernel_version
    install -D -m 644 -t "$share/guest" "$guest/vmlinux" "$guest/rootfs.erofs"
    kernel_version=$(apt-cache show linux-source-6.12 | sed -n 's/^Version: //p' | head -n 1)
    component usr/share/cloudhv/guest/vmlinux linux "$kernel_version" 'GPL-2.0-only WITH Linux-syscall-note' \
        linux-6.12 "$kernel_version" bookworm-security
    cp /usr/share/doc/linux-libc-dev/copyright "$licenses/linux"
    component usr/share/cloudhv/guest/rootfs.erofs cloudhv-agent "$IMAGE_VERSION" MIT cloudhv "$IMAGE_VERSION" ''
    shipped usr/share/cloudhv/guest/rootfs.erofs crun GPL-2.0-or-later trixie
    linked usr/share/cloudhv/guest/rootfs.erofs LGPL-2.1-or-later libc6-dev
    linked usr/share/cloudhv/guest/rootfs.erofs LGPL-2.1-only libseccomp-dev
    linked usr/share/cloudhv/guest/rootfs.erofs BSD-3-Clause libcap-dev
    linked usr/share/cloudhv/guest/rootfs.erofs LGPL-2.1-only libnl-3-dev
}

# shipped PATTERN PACKAGE LICENCE SUITE: a program compiled from that package's sources, or taken from it
shipped() {
    local version source source_version
    read -r version source source_version <"$copyrights/$2.version"
    component "$1" "$2" "$version" "$3" "$source" "$source_version" "$4"
    cp "$copyrights/$2" "$licenses/$2"
}

install_mkfs() {
    install -D -m 755 -t "$lib" "$tools/mkfs.erofs"
    shipped usr/lib/cloudhv/mkfs.erofs erofs-utils 'GPL-2.0-or-later OR Apache-2.0' trixie
    linked usr/lib/cloudhv/mkfs.erofs 'BSD-2-Clause' liblz4-dev
    linked usr/lib/cloudhv/mkfs.erofs 'Zlib' zlib1g-dev
    linked usr/lib/cloudhv/mkfs.erofs LGPL-2.1-or-later libc6-dev
}

install_cni() {
    local name package version source source_version
    install -D -m 755 -t "$lib/cni" "$cni/cni"
    while read -r name; do ln -s cni "$lib/cni/$name"; done <"$cni/names"
    install -m 644 -t "$licenses" "$cni"/licenses/*
    read -r package version <"$cni/version"
    component 'usr/lib/cloudhv/cni/*' containernetworking-plugins "$version" Apache-2.0 "$package" "$version" trixie
    while read -r package version source source_version; do
        case $package in
        golang-1.24-src | *-x-sys-dev) licence=BSD-3-Clause ;;
        golang-1.24-go) continue ;;
        *-go-shellwords-dev) licence=MIT ;;
        *) licence=Apache-2.0 ;;
        esac
        component 'usr/lib/cloudhv/cni/*' "$package" "$version" "$licence" "$source" "$source_version" trixie
    done <"$cni/packages"
}

install_qemu() {
    local program package version source source_version
    program=$(basename "$qemu"/qemu-system-*)
    install -D -m 755 -t "$lib" "$qemu/$program"
    [ -z "$(ls "$qemu/qemu")" ] || install -D -m 644 -t "$lib/qemu" "$qemu"/qemu/*
    install -m 644 -t "$licenses" "$qemu"/licenses/*
    read -r package version <"$qemu/version"
    component "usr/lib/cloudhv/$program" qemu "$version" GPL-2.0-or-later "$package" "$version" trixie
    linked "usr/lib/cloudhv/$program" LGPL-2.1-or-later libglib2.0-dev
    linked "usr/lib/cloudhv/$program" BSD-3-Clause libpcre2-dev
    linked "usr/lib/cloudhv/$program" LGPL-2.1-only libseccomp-dev
    linked "usr/lib/cloudhv/$program" LGPL-2.1-or-later libc6-dev
    [ "$arch" != arm64 ] || linked "usr/lib/cloudhv/$program" 'GPL-2.0-or-later OR BSD-2-Clause' libfdt-dev
    while read -r package version source source_version; do
        case $package in
        seabios) component usr/lib/cloudhv/qemu/bios-256k.bin "$package" "$version" LGPL-3.0-only "$source" "$source_version" trixie ;;
        *) component 'usr/lib/cloudhv/qemu/[klp]*.bin' "$package" "$version" GPL-2.0-or-later "$source" "$source_version" trixie ;;
        esac
    done <"$qemu/packages"
}

install_vmm() {
    local version
    install -D -m 755 "$vmm" "$lib/cloud-hypervisor"
    version=$([ -n "$cross_prefix" ] || "$vmm" --version 2>/dev/null | sed -n 's/^cloud-hypervisor v\{0,1\}//p' || true)
    component usr/lib/cloudhv/cloud-hypervisor cloud-hypervisor "${version:-unknown}" 'Apache-2.0 AND BSD-3-Clause' \
        cloud-hypervisor "${version:-unknown}" ''
}

install_demo() {
    install -D -m 755 -t "$share/demo" "$SRCDIR/demo/demo.sh"
    install -D -m 644 -t "$share/demo" "$SRCDIR"/demo/*.json
    install -m 644 "$image" "$share/demo/image.tar"
    shipped usr/share/cloudhv/demo/image.tar busybox-static GPL-2.0-only bookworm
}

# Licence texts that the copyright files point to: other distributions have no /usr/share/common-licenses.
install_common_licenses() {
    mkdir -p "$licenses/common"
    for name in Apache-2.0 GPL-2 GPL-3 LGPL-2 LGPL-2.1 LGPL-3; do
        install -m 644 -t "$licenses/common" "/usr/share/common-licenses/$name"
    done
    chmod 644 "$licenses"/*[!n]
}

# What the GPL asks for: which files hold the sources of what is shipped. Addresses are left out on purpose; a
# source package's name, version and checksums find it in any Debian archive.
list_sources() {
    local source version suite
    cut -f 5-7 "$dest/components.tsv" | sort -u | while IFS=$'\t' read -r source version suite; do
        [ -n "$suite" ] || continue
        printf '%s %s (Debian %s)\n' "$source" "$version" "$suite"
        "$top/hacks/lib/apt-private.sh" "${suite%-security}" source --print-uris -qq "$source=$version" 2>/dev/null |
            awk '{ printf "    %s %s bytes %s\n", $2, $3, $4 }' || true
    done >"$1/sources"
}

share "$SRCDIR/.cache" "$CLOUDHV_CACHE"
set_up_apt
compile_programs
guest=$("$top/hacks/build-guest.sh" "$BUILDDIR/meson/src/agent/cloudhv-agent")
tools=$("$top/hacks/build-tools.sh")
cni=$("$top/hacks/build-cni.sh")
image=$("$top/hacks/make-image.sh" busybox)
copyrights=$(cached copyrights "$(content_key "$(cat "$tools"/*.version)" "$0")" get_copyrights)
[ "$with_qemu" != yes ] || qemu=$("$top/hacks/build-qemu.sh")
share "$CLOUDHV_CACHE" "$SRCDIR/.cache"

rm -rf "$dest"
mkdir -p "$root" "$licenses"
install_programs
install_units
install_guest
install_mkfs
install_cni
[ "$with_qemu" != yes ] || install_qemu
[ ! -f "$vmm" ] || install_vmm
install_demo
install_common_licenses
find "$root" -type d -exec chmod 755 {} +
# shellcheck disable=SC2016 # dpkg's own variables
{
    dpkg-query -W -f '${Package} ${Version} ${Architecture}\n'
    [ -z "$sysroot" ] || cut -d ' ' -f 1-3 "$sysroot/packages"
} | sort >"$dest/build-packages"
sources=$(cached sources "$(content_key "$(cut -f 5-7 "$dest/components.tsv" | sort -u)" "$0")" list_sources)
cp "$sources/sources" "$dest/sources"
