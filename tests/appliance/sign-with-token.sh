#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A key on a token, for which SoftHSM stands, signs what the same key in a file signs, byte for byte: by the
# systemd-repart, the provider and the definitions that hacks/build-sysext.sh uses, and which it has got by then. Root.
set -euo pipefail
# shellcheck source=../../hacks/lib/common.sh
. "$(dirname "$0")/../../hacks/lib/common.sh"

tools=$cache/mkosi/sysext/stage/mkosi.tools
definitions=$(echo "$cache"/mkosi-program-*/usr/lib/python3/dist-packages/mkosi/resources/repart/definitions/sysext.repart.d)
[ -x "$tools/usr/bin/systemd-repart" ] || die "mkosi's tools are not there: run hacks/build-sysext.sh first"
[ -d "$definitions" ] || die "there is no $definitions"

get_softhsm() {
    local work
    work=$(mktemp -d "$cache/softhsm.XXXXXX")
    (cd "$work" && "$top/hacks/lib/apt-private.sh" trixie download -qq softhsm2 libsofthsm2)
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    install -t "$1" "$work/root/usr/bin/softhsm2-util" "$work/root/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"
    rm -rf "$work"
}

# In mkosi's tools, with this machine's /run, as mkosi has it.
in_tools() { chroot "$tools" "$@"; }

# sign NAME ARGUMENT...: an image of $run/tree
sign() {
    local name=$1
    shift
    in_tools systemd-repart --empty=create --size=auto --offline=yes --seed=0c5a2d86-5a0e-4c55-9f43-6b1c8cf8f6a4 \
        --definitions="$run/sysext.repart.d" --copy-source="$run/tree" --certificate "$run/crt" "$@" "$run/$name.raw"
}

inside() {
    mount --make-rprivate /
    mount --rbind "$tools" "$tools"
    for name in run proc dev; do mount --rbind "/$name" "$tools/$name"; done
    for name in tmp var/tmp; do mount -t tmpfs tmpfs "$tools/$name"; done
    printf 'directories.tokendir = %s\nobjectstore.backend = file\n' "$run/tokens" >"$run/softhsm2.conf"
    export SOFTHSM2_CONF=$run/softhsm2.conf PKCS11_PROVIDER_MODULE=$run/libsofthsm2.so SOURCE_DATE_EPOCH=1
    in_tools "$run/softhsm2-util" --module "$run/libsofthsm2.so" --init-token --free --label release --pin 1234 --so-pin 5678
    in_tools "$run/softhsm2-util" --module "$run/libsofthsm2.so" --import "$run/key" --token release --label cloudhv --id a1 \
        --pin 1234
    sign file --private-key "$run/key"
    rm "$run/key"
    sign token --private-key-source provider:pkcs11 \
        --private-key "pkcs11:token=release;object=cloudhv;type=private?pin-source=file:$run/pin"
    cmp "$run/file.raw" "$run/token.raw"
}

if [ "${1:-}" = inside ]; then
    run=$2
    inside
    exit
fi
softhsm=$(cached softhsm "$(content_key trixie)" get_softhsm)
run=$(mktemp -d /run/cloudhv-token.XXXXXX)
trap 'rm -rf "$run"' EXIT
mkdir -p "$run"/tokens "$run"/tree/usr/lib/extension-release.d
echo ID=_any >"$run/tree/usr/lib/extension-release.d/extension-release.test"
cp -r "$definitions" "$run/"
cp "$softhsm"/* "$run/"
printf 1234 >"$run/pin"
# PKCS #8, which SoftHSM imports.
openssl req -new -x509 -newkey rsa:2048 -sha256 -nodes -days 2 -subj /CN=test/ -keyout "$run/key" -out "$run/crt" 2>/dev/null
unshare --mount "$0" inside "$run"
