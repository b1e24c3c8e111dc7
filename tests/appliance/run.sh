#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Boots the appliance tests' machine, emulated but with a KVM inside, and runs scenarios in it.
#
#   tests/appliance/run.sh --image FILE --certificate FILE [--results FILE] [--output DIRECTORY] [SCENARIO...]
#
# Without names all of scenarios/ but measure-* run, APPLIANCE_PARALLEL (2) at a time. FILE of --results gets
# "pass NAME", "fail NAME" and "skip NAME: REASON" lines.
# DIRECTORY (default: a temporary one, removed) gets each scenario's console, log and journals.
set -uo pipefail
# shellcheck source=../../hacks/lib/common.sh
. "$(dirname "$0")/../../hacks/lib/common.sh"

here=$(cd "$(dirname "$0")" && pwd)
image='' certificate='' results='' output=''
: "${APPLIANCE_TIMEOUT:=420}"
while [ $# -gt 0 ]; do
    case $1 in
    --image) image=$2 && shift ;;
    --certificate) certificate=$2 && shift ;;
    --results) results=$2 && shift ;;
    --output) output=$2 && shift ;;
    -*) die "unknown argument $1" ;;
    *) break ;;
    esac
    shift
done
if [ ! -f "$image" ] || [ ! -f "$certificate" ]; then die "usage: run.sh --image FILE --certificate FILE [SCENARIO...]"; fi
scenarios=("$@")
if [ ${#scenarios[@]} = 0 ]; then
    # The longest first, so that none of them runs alone in the end.
    scenarios=(update reboot)
    for file in "$here"/scenarios/*.sh; do
        name=$(basename "$file" .sh)
        if [[ $name != measure-* && " ${scenarios[*]} " != *" $name "* ]]; then scenarios+=("$name"); fi
    done
fi
machine=$("$here/build-machine.sh") || die "there is no machine to boot"
# Of Debian 12 the emulator is not good enough to run a KVM inside; ours is Debian 13's.
qemu=$("$top/hacks/build-qemu.sh") || die "there is no emulator"
need_packages e2fsprogs
temporary=$(mktemp -d /var/tmp/cloudhv-appliance.XXXXXX)
trap 'rm -rf "$temporary"' EXIT
output=${output:-$temporary/output}
if [ -n "$results" ]; then exec 3>>"$results"; else exec 3>&1; fi

kernel_arguments=(console=ttyS0 quiet panic=-1 oops=panic tsc=reliable no_timer_check mitigations=off audit=0 nokaslr
    lsm=capability random.trust_cpu=on cryptomgr.notests 8250.nr_uarts=1 systemd.unit=appliance.target
    systemd.show_status=no)
for unit in systemd-hwdb-update.service systemd-timesyncd.service modprobe@efi_pstore.service modprobe@fuse.service \
    modprobe@configfs.service systemd-network-generator.service systemd-networkd.socket dev-hugepages.mount \
    dev-mqueue.mount systemd-udev-load-credentials.service systemd-journal-catalog-update.service \
    systemd-networkd.service systemd-networkd-wait-online.service systemd-resolved.service systemd-nsresourced.socket \
    systemd-mountfsd.socket systemd-pcrextend.socket \
    e2scrub_reap.service getty.target fstrim.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer; do
    kernel_arguments+=("systemd.mask=$unit")
done

# boot DIRECTORY: one run of the machine, with the disks in DIRECTORY
boot() {
    timeout -k 10 "$APPLIANCE_TIMEOUT" "$qemu/qemu-system-x86_64" -nodefaults -no-user-config -no-reboot -display none \
        -machine q35,smm=off,smbus=off,sata=off,i8042=off,graphics=off -cpu EPYC-Rome-v2 \
        -accel tcg,thread=multi,tb-size=1024 -smp "${APPLIANCE_CPUS:-1}" -m 3072 -serial "file:$1/console" \
        -kernel "$machine/vmlinuz" -initrd "$machine/initrd" -append "${kernel_arguments[*]}" \
        -drive "file=$machine/root.erofs,if=none,id=a,format=raw,readonly=on,file.locking=off" -device virtio-blk-pci,drive=a \
        -drive "file=$1/in.tar,if=none,id=b,format=raw,readonly=on" -device virtio-blk-pci,drive=b \
        -drive "file=$1/out.tar,if=none,id=c,format=raw" -device virtio-blk-pci,drive=c \
        -drive "file=$1/data,if=none,id=d,format=raw,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=d \
        -device virtio-rng-pci 2>"$1/out/emulator"
}

# run_scenario NAME: 0 when it ran to its end, 1 when it did not, 2 when the machine itself failed.
run_scenario() {
    local name=$1 work=$temporary/$1 status boots
    rm -rf "$work"
    mkdir -p "$work/in" "$work/out"
    cp "$here/guest/lib.sh" "$work/in/lib.sh"
    cp "$here"/scenarios/*.sh "$work/in/"
    install -m 755 "$here/scenarios/$name.sh" "$work/in/test"
    cp "$image" "$certificate" "$work/in/"
    if [ -x "$here/scenarios/$name.prepare" ]; then
        "$here/scenarios/$name.prepare" "$work/in" || return 1
    fi
    tar --owner=0 --group=0 -cf "$work/in.tar" -C "$work/in" .
    truncate -s %512 "$work/in.tar"
    truncate -s 2G "$work/data"
    mke2fs -q -t ext4 -O ^has_journal "$work/data"
    for ((boots = 1; boots <= 4; boots++)); do
        rm -f "$work/out.tar"
        truncate -s 64M "$work/out.tar"
        boot "$work"
        status=$?
        cat "$work/console" >>"$work/out/console"
        tar -xf "$work/out.tar" -C "$work/out" 2>/dev/null
        if grep -q -e 'Kernel panic' -e 'BUG: ' -e 'Oops' "$work/console"; then return 2; fi
        if [ "$status" != 0 ] || [ ! -f "$work/out/status" ]; then return 1; fi
        [ "$(cat "$work/out/status")" = 100 ] || break
        rm "$work/out/status"
    done
    [ "$(cat "$work/out/status")" = 0 ]
}

report() { # report NAME STATUS SECONDS
    local name=$1 work=$temporary/$1
    sed -n "s/^ok \(.*\)/pass appliance $name: \1/p; s/^not ok \(.*\)/fail appliance $name: \1/p; s/^skip \(.*\)/skip appliance $name \1/p" \
        "$work/out/results" 2>/dev/null >&3
    case $2 in
    1) echo "fail appliance $name: did not run to its end" >&3 ;;
    2) echo "skip appliance $name: the emulated machine panicked" >&3 ;;
    esac
    say "$name: status $2, $3 s"
    if [ "$2" != 0 ] || grep -q '^not ok' "$work/out/results"; then
        tail -n 80 "$work/out/log" 2>/dev/null
        tail -n 20 "$work/console"
        grep -v "TCG doesn't support" "$work/out/emulator"
    fi
    mkdir -p "$output/$name"
    cp -r "$work/out/." "$output/$name/"
    rm -rf "$work"
}

run_and_report() {
    local name=$1 status started=$SECONDS
    run_scenario "$name"
    status=$?
    if [ "$status" = 2 ]; then
        say "$name: the emulated machine panicked; once more"
        run_scenario "$name"
        status=$?
    fi
    report "$name" "$status" $((SECONDS - started))
    [ "$status" != 1 ] || touch "$temporary/failed"
}

# A machine has one processor, and mostly waits for it: as many at a time as there are processors here.
for name in "${scenarios[@]}"; do
    [ -f "$here/scenarios/$name.sh" ] || die "there is no scenario $name"
    while [ "$(jobs -pr | wc -l)" -ge "${APPLIANCE_PARALLEL:-2}" ]; do wait -n; done
    run_and_report "$name" &
done
wait
[ ! -e "$temporary/failed" ]
