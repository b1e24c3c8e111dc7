#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Makes a key for development that signs the system extension, and its certificate: mkosi.key and mkosi.crt at the
# top of the repository, where git ignores them. Prints the two paths. What exists is kept.
#   hacks/make-key.sh [DIRECTORY]
# A release is signed with a key that is kept elsewhere: docs/releasing.md.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

directory=${1:-$top}
key=$directory/mkosi.key certificate=$directory/mkosi.crt
need_packages openssl
if [ ! -s "$key" ] || [ ! -s "$certificate" ]; then
    umask 077
    mkdir -p "$directory"
    rm -f "$key" "$certificate"
    # RSA, since its signatures (PKCS #1 v1.5) are deterministic: the same input gives the same image, bit for bit.
    openssl req -new -x509 -newkey rsa:3072 -sha256 -nodes -days 365 -subj "/CN=cloudhv development key/" \
        -keyout "$key" -out "$certificate" 2>/dev/null
    chmod 600 "$key"
    chmod 644 "$certificate"
    say "made $key"
    say "WARNING: this is a DEVELOPMENT key, unprotected on this disk. A host that has its certificate in"
    say "WARNING: /etc/verity.d runs, as root, anything that is signed with it. Never use it for a release."
fi
[ "$(stat -c %a "$key")" = 600 ] || die "$key must be readable by its owner only: chmod 600"
printf '%s\n%s\n' "$key" "$certificate"
