#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Checks a signed system extension without merging it: hash tree, signature, file system, which files it has, and
# whether its programs run on the hosts they are meant for.
#   hacks/check-sysext.sh IMAGE CERTIFICATE [DIRECTORY]
# With DIRECTORY the image's files are left there.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

image=${1:?usage: check-sysext.sh IMAGE CERTIFICATE [DIRECTORY]} certificate=${2:?no certificate given}
need_packages jq fdisk cryptsetup-bin openssl binutils
tools=$("$top/hacks/build-tools.sh") # its fsck.erofs knows compression that Debian 12's does not
work=$(mktemp -d /var/tmp/cloudhv-check.XXXXXX)
trap 'rm -rf "$work"' EXIT
files=${3:-$work/files}
# The newest glibc symbols that every supported host has: Flatcar's stable release.
glibc_most=2.38
declare -A data_types=([x86-64]=4f68bce3-e8cd-4db1-96e7-fbcaf984b709 [arm64]=b921b045-1df0-41c3-af44-4c6f280d3fae)
problems=0

problem() {
    say "$*"
    problems=$((problems + 1))
}

partition() { # partition NAME TYPE...: copies the partition of one of these types
    local name=$1 start size
    shift
    read -r start size < <(sfdisk -J "$image" | jq -r --args \
        '.partitiontable.partitions[] | select(.type as $t | $ARGS.positional | index($t)) | "\(.start) \(.size)"' \
        "${@^^}") || die "$image has no partition $name"
    dd if="$image" of="$work/$name" bs=512 skip="$start" count="$size" status=none
}

check_signature() {
    local root
    # Types for x86-64 and arm64, from the Discoverable Partitions Specification.
    partition data "${data_types[@]}"
    partition hash 2c7357ed-ebd2-46d9-aec1-23d437ec2bf5 df3300ce-d69f-4c92-978c-9bfb0f38d820
    partition signature 41092b05-9fc8-4523-994f-2def0408b176 6db69de6-29f4-4758-a7a5-962190f00ce3
    tr -d '\0' <"$work/signature" >"$work/signature.json"
    root=$(jq -r .rootHash "$work/signature.json")
    jq -r .signature "$work/signature.json" | base64 -d >"$work/signature.p7"
    veritysetup verify "$work/data" "$work/hash" "$root" || problem "the data does not match its hash tree"
    # As systemd does it: whether this certificate's key has signed, not whether the certificate is still valid.
    printf %s "$root" | openssl smime -verify -inform der -in "$work/signature.p7" -content /dev/stdin -binary \
        -certfile "$certificate" -nointern -noverify >/dev/null 2>&1 ||
        problem "the signature is not by the key of $certificate"
}

# What the image says it is for, and what systemd goes by.
check_architecture() {
    arch=$(sed -n 's/^ARCHITECTURE=//p' "$files"/usr/lib/extension-release.d/extension-release.*)
    case $arch in
    x86-64) machine=X86-64 ;;
    arm64) machine=AArch64 ;;
    *) die "$image says that it is for \"$arch\", not for x86-64 or arm64" ;;
    esac
    sfdisk -J "$image" | jq -r '.partitiontable.partitions[].type' | grep -qixF "${data_types[$arch]}" ||
        problem "$image has no partition for $arch"
}

check_elf() { # check_elf FILE: of the right architecture, needs libsystemd and libc at most, and no newer glibc than every host has
    local file=$1 name needed symbols newest allowed=' libsystemd.so.0 libc.so.6 '
    name=${file#"$files"}
    LC_ALL=C readelf -h "$file" | grep -q "Machine:.* $machine\$" || problem "$name is not for $arch"
    needed=$(LC_ALL=C readelf -d "$file" 2>&1 | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    case $name in
    /usr/bin/* | /usr/lib/systemd/*) ;;
    *) allowed=' ' ;;
    esac
    for library in $needed; do
        [[ $allowed == *" $library "* ]] || problem "$name needs $library"
    done
    symbols=$(LC_ALL=C readelf -V "$file" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV || true)
    newest=$(tail -n 1 <<<"$symbols")
    [ -z "$needed" ] || [ "$(printf '%s\n' "$newest" "$glibc_most" | sort -V | tail -n 1)" = "$glibc_most" ] ||
        problem "$name needs glibc $newest, and hosts may have $glibc_most"
    LC_ALL=C readelf -lW "$file" | grep -q 'GNU_STACK.*RWE' && problem "$name has an executable stack"
    return 0
}

check_files() {
    local file expected=$top/tests/appliance/files
    mkdir -p "$files"
    "$tools/fsck.erofs" --extract="$files" --overwrite "$work/data" >/dev/null || die "the file system is damaged"
    check_architecture
    while IFS= read -r -d '' file; do
        [ "$(head -c 4 "$file" | tr -d '\0')" != $'\177ELF' ] || [[ $file == */guest/vmlinux ]] || check_elf "$file"
    done < <(find "$files" -type f -print0)
    find "$files" ! -user 0 -o -perm /022 ! -type l | grep -q . &&
        problem "files that others than root own or may write: $(find "$files" ! -user 0 -o -perm /022 ! -type l | head -n 3)"
    find "$files" -type f -perm /6000 | grep -q . && problem "set-user-id files"
    [ ! -f "$expected" ] || compare_files "$expected"
}

# The expected list has one path a line; a ? after it marks what only some images have, then an architecture those of
# that one.
compare_files() {
    (cd "$files" && find . ! -type d ! -path './usr/share/licenses/*' -printf '%P\n') | LC_ALL=C sort >"$work/found"
    sed -e '/^#/d' -e "s/ $arch\$//" -e '/ /d' -e 's/?$//' "$1" | LC_ALL=C sort >"$work/allowed"
    sed -e '/^#/d' -e "s/ $arch\$//" -e '/ /d' -e '/?$/d' "$1" | LC_ALL=C sort >"$work/demanded"
    while read -r line; do problem "missing: $line"; done < <(LC_ALL=C comm -13 "$work/found" "$work/demanded")
    while read -r line; do problem "not expected: $line"; done < <(LC_ALL=C comm -23 "$work/found" "$work/allowed")
}

check_size() {
    local most=14 size
    size=$(stat -c %s "$image")
    if [ -e "$files/usr/lib/cloudhv/cloud-hypervisor" ] && compgen -G "$files/usr/lib/cloudhv/qemu-system-*" >/dev/null; then
        most=18
    fi
    [ "$size" -le $((most * 1000000)) ] || problem "$size bytes, and $most MB are the limit"
}

check_signature
check_files
check_size
[ "$problems" = 0 ] || die "$problems problems"
say "$(basename "$image") is signed, whole, and as expected"
