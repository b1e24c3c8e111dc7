#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the machine that the appliance tests boot, and prints the directory with its vmlinuz, initrd and root.erofs.
# Cached by the content of machine/ and of this script.
set -euo pipefail
# shellcheck source=../../hacks/lib/common.sh
. "$(dirname "$0")/../../hacks/lib/common.sh"
# shellcheck source=../../hacks/lib/mkosi.sh
. "$(dirname "$0")/../../hacks/lib/mkosi.sh"

here=$(cd "$(dirname "$0")" && pwd)
state=$cache/mkosi/machine

# The modules that the initrd needs, each after what it depends on.
copy_modules() { # copy_modules MODULES-DIRECTORY INITRD-DIRECTORY
    local module file n=10
    for module in virtio_blk erofs ext4 overlay; do
        while read -r file; do
            [ -z "$(find "$2" -name "*-$(basename "${file%.xz}")")" ] || continue
            n=$((n + 1))
            xz -dc "$1/$file" >"$2/$n-$(basename "${file%.xz}")"
        done < <(awk -F: -v name="/$module.ko" '{ path = $1; sub(/\.xz$/, "", path) }
            substr(path, length(path) - length(name) + 1) == name {
                n = split($2, needs, " "); while (n) print needs[n--]; print $1 }' "$1/modules.dep")
    done
}

# /dev/vda is the root, read-only; /dev/vdd holds all changes to it, and what may not lie on an overlay.
write_init() {
    cat >"$1/init" <<'INIT'
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
for m in /mod/*; do $bb insmod $m; done
while [ ! -b /dev/vda ] || [ ! -b /dev/vdd ]; do $bb usleep 10000; done
$bb mount -t erofs -o ro /dev/vda /lower
$bb mount -t ext4 /dev/vdd /data
$bb mkdir -p /data/upper /data/work /data/containerd /data/cloudhv
$bb mount -t overlay -o lowerdir=/lower,upperdir=/data/upper,workdir=/data/work overlay /root
$bb mkdir -p /root/data /root/var/lib/containerd /root/var/lib/cloudhv
$bb mount --move /data /root/data
$bb mount -o bind /root/data/containerd /root/var/lib/containerd
$bb mount -o bind /root/data/cloudhv /root/var/lib/cloudhv
$bb umount /proc /sys
$bb mount --move /dev /root/dev
exec $bb switch_root /root /usr/lib/systemd/systemd
INIT
    chmod 755 "$1/init"
}

make_initrd() { # make_initrd ROOT FILE
    local work modules
    work=$(mktemp -d)
    modules=$(echo "$1"/usr/lib/modules/*)
    mkdir -p "$work"/{bin,mod,dev,proc,sys,root,lower,data}
    cp "$1/usr/bin/busybox" "$work/bin/"
    copy_modules "$modules" "$work/mod"
    write_init "$work"
    (cd "$work" && find . -print0 | LC_ALL=C sort -z | cpio -o0 -H newc --quiet --reproducible) >"$2"
    rm -rf "$work"
}

# What a first boot and an update of the system would do costs seconds of emulation and tests nothing.
settle_root() {
    echo 5b0c2d516a0b4a0f9a6a3f3d3f0d5a11 >"$1/etc/machine-id"
    touch -d 2100-01-01 "$1/etc/.updated" "$1/var/.updated"
    mkdir -p "$1/data"
}

build() {
    local out=$1 root
    mkdir -p "$state"/{cache,packages,output}
    mkosi_stage "$state/stage"
    mkosi_sandbox "$state/apt" trixie
    say "building the appliance tests' machine (log: $state/log)"
    mkosi_run "$state/stage/tests/appliance/machine" --force --cache-directory="$state/cache" \
        --package-cache-directory="$state/packages" --output-directory="$state/output" --sandbox-tree="$state/apt" \
        build >"$state/log" 2>&1 || {
        tail -n 40 "$state/log" >&2
        die "mkosi failed"
    }
    root=$state/output/machine
    settle_root "$root"
    cp "$root"/usr/lib/modules/*/vmlinuz "$out/vmlinuz"
    make_initrd "$root" "$out/initrd"
    # Uncompressed: there is no time to spare for it in an emulated machine.
    mkfs.erofs --quiet "$out/root.erofs" "$root" >&2
    rm -rf "$root"
}

need_packages erofs-utils cpio xz-utils zstd
mapfile -t inputs < <(find "$here/machine" -type f | LC_ALL=C sort)
cached machine "$(content_key "${inputs[@]}" "$0" "$top/hacks/lib/mkosi.sh")" build
