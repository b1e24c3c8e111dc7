#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What a strict host refuses: images that were tampered with, that are not signed, or signed by another key; and
# what it accepts beside them: a second certificate, and one that has expired.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

# refused NAME PATTERN: the variant does not merge, and what the user sees says why.
refused() {
    patched "$1"
    mv "/data/$1.raw" "$image"
    ! refresh 2>"$OUT/refused-$1" || is_not_merged
    cat "$OUT/refused-$1"
    is_not_merged
    [ ! -e /usr/bin/containerd-shim-cloudhv-v1 ]
    grep -qE "$2" "$OUT/refused-$1"
}

refused_without_certificate() {
    rm -f /etc/verity.d/*
    cp "./$name.raw" "$image"
    if refresh; then return 1; fi
    is_not_merged
}

# Two certificates side by side, as when a key is changed: an image signed with either merges.
rotation() {
    trust_certificate ./other.crt
    patched other-key
    mv /data/other-key.raw "$image"
    refresh
    is_merged
    rm "$image"
    refresh
    cp "./$name.raw" "$image"
    refresh
    is_merged
    rm "$image" /etc/verity.d/other.crt
    refresh
}

# Neither the kernel nor systemd looks at the dates of a certificate: trust ends when it is taken away.
expired_is_accepted() {
    trust_certificate ./expired.crt
    patched expired-key
    mv /data/expired-key.raw "$image"
    refresh
    is_merged
    rm "$image" /etc/verity.d/expired.crt
    refresh
    is_not_merged
}

# A block that is damaged and was not read at the merge: reading it is an error, and no wrong data.
damaged_block() {
    patched data-later
    mv /data/data-later.raw "$image"
    if ! refresh; then
        is_not_merged
        return
    fi
    if find /usr/share/cloudhv /usr/lib/cloudhv /usr/bin/c*cloudhv* -type f -exec cat {} + >/dev/null; then return 1; fi
    journalctl --no-pager -b -k -o cat | grep 'device-mapper: verity.*corrupted'
    rm "$image"
    refresh
    is_not_merged
}

install_image
rm "$image"
check "refused: one byte of the superblock changed" refused data-superblock .
check "refused: one byte of the hash tree changed" refused hash-tree .
check "refused: one byte of the signature changed" refused signature .
check "refused: another root hash" refused root-hash .
check "refused: no signature" refused unsigned .
check "refused: no hash tree" refused no-verity .
check "refused: signed with another key" refused other-key .
check "refused: no certificate" refused_without_certificate
trust_certificate "./$name.crt"
check "two certificates side by side" rotation
check "an expired certificate still counts, as documented" expired_is_accepted
check "a damaged block is an error when it is read" damaged_block
