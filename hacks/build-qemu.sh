#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the QEMU that the system extension carries where Cloud Hypervisor is not installed: static, from Debian 13's
# source package, with KVM and TCG and the devices that src/vmm/ names, nothing else. Prints the directory that
# holds qemu-system-x86_64 and, beside it, qemu/ with the firmware; the program finds it there wherever the two are.
# Cached by the sources' checksums and by this recipe. CLOUDHV_ARCH=arm64 cross-compiles qemu-system-aarch64, whose
# machine starts a kernel without any firmware.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/cross.sh
. "$(dirname "$0")/lib/cross.sh"

suite=trixie
# What the driver names, in the words of QEMU's Kconfig; the machine selects what it needs itself.
devices=(PCIE_PORT VIRTIO_{PCI,BLK,NET,SERIAL,RNG,BALLOON,MEM} VHOST_VSOCK)
case $arch in
x86-64)
    cpu=x86_64 more_options=()
    devices+=(Q35 PCIE_PCI_BRIDGE PCI_BRIDGE VIRTIO_PMEM ACPI_VMGENID SERIAL_ISA ISA_DEBUG TPM_TIS_ISA TPM_CRB)
    # For a kernel given with -kernel: the BIOS, the loader for it (pvh.bin for an ELF file), and the helper that the
    # interrupt controller asks for.
    firmware=(kvmvapic.bin linuxboot_dma.bin pvh.bin)
    ;;
arm64)
    cpu=aarch64 more_options=(--enable-fdt=system)
    devices+=(ARM_VIRT TPM_TIS_SYSBUS)
    firmware=()
    ;;
*) die "only for x86-64 and arm64" ;;
esac
program=qemu-system-$cpu

private_apt() { "$top/hacks/lib/apt-private.sh" "$suite" "$@"; }

# Meson of this machine may be too old for QEMU; Debian 13's is plain Python.
get_python() {
    private_apt download -qq meson
    dpkg-deb -x meson_*.deb python
    /usr/bin/python3 -m venv --without-pip --system-site-packages venv
    cp -r python/usr/lib/python3/dist-packages/. venv/lib/python3*/site-packages/
    printf '#!/bin/sh\nexec "%s/venv/bin/python3" -c "import sys; from mesonbuild.mesonmain import main; sys.exit(main())" "$@"\n' \
        "$PWD" >venv/bin/meson
    chmod 755 venv/bin/meson
}

get_sources() {
    private_apt source --download-only -qq qemu >/dev/null
    dpkg-source --no-check -x qemu_*.dsc source >/dev/null # apt has checked the signature
}

# Small, but for what emulation spends its time in.
write_compiler() {
    cat >cc <<SH
#!/bin/sh
case " \$* " in
*accel_tcg_* | *target_i386_tcg_* | *target_arm_tcg_* | *tcg_tcg* | *fpu_softfloat* | *' -E '*) exec ${CC:-cc} "\$@" ;;
*' -c '*) exec ${CC:-cc} "\$@" -Os ;;
*) exec ${CC:-cc} "\$@" ;;
esac
SH
    chmod 755 cc
}

compile() {
    local device
    write_compiler
    for device in "${devices[@]}"; do echo "CONFIG_$device=y"; done >"source/configs/devices/$cpu-softmmu/cloudhv.mak"
    mkdir build
    cd build
    # Position-independent, which costs some memory per VM: this is the program that a hostile guest attacks.
    # With bindir and datadir as they are, it looks for firmware in ./qemu beside itself.
    PKG_CONFIG=pkg-config ../source/configure ${cross_prefix:+--cross-prefix="$cross_prefix"} --cc="$work/cc" --host-cc=cc --python="$work/venv/bin/python3" --without-default-features --without-default-devices \
        --target-list="$cpu-softmmu" "--with-devices-$cpu=cloudhv" --prefix=/usr/lib --bindir=/usr/lib/cloudhv \
        --datadir=/usr/lib/cloudhv --enable-kvm --enable-tcg --enable-tpm --enable-seccomp --enable-vhost-kernel \
        --enable-vhost-net --enable-pie --static --disable-werror --disable-debug-info \
        --disable-download --disable-install-blobs --disable-qom-cast-debug "${more_options[@]}" \
        --extra-cflags="-g0 -ffunction-sections -fdata-sections -ffile-prefix-map=$work=." \
        --extra-ldflags="-Wl,--gc-sections -Wl,-z,pack-relative-relocs" >../log 2>&1 || {
        tail -n 30 ../log >&2
        die "QEMU's configure failed"
    }
    say "compiling $(cat ../source/VERSION) (about 5 minutes of 2 cores)"
    nice ninja -j"$JOBS" "$program" >>../log 2>&1 || {
        tail -n 30 ../log >&2
        die "QEMU does not build"
    }
    cd ..
}

get_firmware() { # get_firmware DIRECTORY LICENCES
    local directory=$1 licenses=$2
    private_apt download -qq seabios qemu-system-data
    dpkg-deb -x seabios_*.deb blobs
    dpkg-deb -x qemu-system-data_*.deb blobs
    install -m 644 -t "$directory" blobs/usr/share/seabios/bios-256k.bin "${firmware[@]/#/blobs/usr/share/qemu/}"
    cp blobs/usr/share/doc/seabios/copyright "$licenses/seabios"
    # shellcheck disable=SC2016 # dpkg's own variables
    for deb in seabios_*.deb qemu-system-data_*.deb; do
        dpkg-deb --show --showformat '${Package} ${Version} ${source:Package} ${source:Version}\n' "$deb"
    done >"$directory/../packages"
}

build() {
    local out=$1
    work=$(mktemp -d "$cache/qemu-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    cd "$work"
    say "getting QEMU's sources"
    get_python
    get_sources
    compile
    mkdir -p "$out/qemu" "$out/licenses"
    "${cross_prefix}strip" -s "build/$program" -o "$out/$program"
    : >"$out/packages"
    [ ${#firmware[@]} = 0 ] || get_firmware "$out/qemu" "$out/licenses"
    cp source/debian/copyright "$out/licenses/qemu"
    sed -n 's/^Version: \(.*\)/qemu \1/p' qemu_*.dsc | head -n 1 >"$out/version"
    cd /
    rm -rf "$work"
    trap - EXIT
    LC_ALL=C readelf -d "$out/$program" 2>&1 | grep -q NEEDED && die "QEMU is not static"
    [ -n "$cross_prefix" ] || "$out/$program" --version >&2
}

need_packages build-essential pkg-config ninja-build flex bison python3 python3-venv python3-setuptools dpkg-dev \
    libglib2.0-dev libpcre2-dev zlib1g-dev libseccomp-dev
sources=$(private_apt source --print-uris -qq qemu | sed "s/^'[^']*' //")
[ -n "$sources" ] || die "the sources of QEMU cannot be had from suite $suite"
cross_setup
cached "qemu$suffix" "$(content_key "$sources" "$("${cross_prefix}gcc" -dumpfullversion)" ${sysroot:+"$sysroot/packages"} "$0")" build
