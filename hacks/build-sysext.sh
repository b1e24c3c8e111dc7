#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the signed system extension containerd-cloudhypervisor.raw, all of it in a container with Debian 12, and puts
# it into build/ with its certificate, SHA256SUMS, an SPDX document, a manifest and the list of corresponding sources.
# Needs root and a Debian package mirror, nothing else. docs/releasing.md says how a release is made with it.
#
#   hacks/build-sysext.sh [--arch x86-64|arm64] [--without-qemu] [--output DIRECTORY] [--clean]
#                         [--compare MANIFEST]
#
#   --without-qemu     leave QEMU out; then CLOUD_HYPERVISOR must name a VMM, or the host brings one
#   --output           instead of build/
#   --clean            compile the programs anew
#   --compare          name the packages that differ from those of an earlier build's manifest, and fail if any does
#
# The environment may say:
#   CLOUD_HYPERVISOR   a static cloud-hypervisor to add; CLOUD_HYPERVISOR_SHA256 what its checksum must be
#   SIGNING_KEY        PEM file or PKCS #11 URI (pkcs11:...); SIGNING_CERTIFICATE its certificate. Without them a key
#                      for development is made (hacks/make-key.sh)
#   PKCS11_PROVIDER_MODULE, SOFTHSM2_CONF   of that token, if OpenSC is not its module; both below /run
#   IMAGE_VERSION      instead of meson.build's version
#   SOURCE_DATE_EPOCH  instead of the time of the last commit
set -euo pipefail
umask 022
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/mkosi.sh
. "$(dirname "$0")/lib/mkosi.sh"

name=containerd-cloudhypervisor
arch=x86-64 with_qemu=yes output=$top/build clean='' compare=''
while [ $# -gt 0 ]; do
    case $1 in
    --arch) arch=$2 && shift ;;
    --without-qemu) with_qemu=no ;;
    --output) output=$2 && shift ;;
    --clean) clean=yes ;;
    --compare) compare=$2 && shift ;;
    -h | --help)
        sed -n '4,22s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) die "unknown argument $1 (--help shows what there is)" ;;
    esac
    shift
done
case $arch in
x86-64) ;;
arm64) die "not yet: guest/kernel/ has no fragment for arm64, and hacks/build-qemu.sh none of its devices" ;;
*) die "unknown architecture $arch: x86-64 or arm64" ;;
esac
[ "$(uname -m)" = x86_64 ] || die "an image for x86-64 is built on such a machine"
need_packages git jq fdisk cryptsetup-bin

# Another VMM, where there is one. Whether it runs anywhere is seen in the finished image.
if [ -n "${CLOUD_HYPERVISOR:-}" ]; then
    if [ ! -f "$CLOUD_HYPERVISOR" ] || [ ! -x "$CLOUD_HYPERVISOR" ]; then die "there is no program $CLOUD_HYPERVISOR"; fi
    sum=$(sha256sum <"$CLOUD_HYPERVISOR" | cut -d ' ' -f 1)
    [ "${CLOUD_HYPERVISOR_SHA256:-$sum}" = "$sum" ] || die "$CLOUD_HYPERVISOR has the checksum $sum, not the one demanded"
elif [ -n "${CLOUD_HYPERVISOR_SHA256:-}" ]; then
    die "CLOUD_HYPERVISOR_SHA256 is the checksum of a CLOUD_HYPERVISOR, and none is given"
fi

# The key: a development one unless the caller brings one.
if [ -n "${SIGNING_KEY:-}" ]; then
    key=$SIGNING_KEY certificate=${SIGNING_CERTIFICATE:?a SIGNING_KEY needs a SIGNING_CERTIFICATE}
else
    { read -r key && read -r certificate; } < <("$top/hacks/make-key.sh")
fi
[ -s "$certificate" ] || die "there is no certificate $certificate"
signing=(--verity-key="$key" --verity-certificate="$(realpath "$certificate")")
case $key in
pkcs11:*)
    signing+=(--verity-key-source=provider:pkcs11)
    # mkosi's tools have OpenSC's module, and see nothing of this machine but /run.
    for variable in PKCS11_PROVIDER_MODULE SOFTHSM2_CONF; do
        case ${!variable:-} in
        '') continue ;;
        /run/*) [ -f "${!variable}" ] || die "there is no ${!variable}, which $variable names" ;;
        *) die "$variable names ${!variable}: what signs sees files below /run only" ;;
        esac
        signing+=(--environment="$variable=${!variable}")
    done
    ;;
*) [ -s "$key" ] || die "there is no key $key" ;;
esac

version=${IMAGE_VERSION:-$(sed -n "s/^ *version: '\(.*\)',/\1/p" "$top/meson.build" | head -n 1)}
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct)}
state=$cache/mkosi/sysext
stage=$state/stage
mkdir -p "$state"/{cache,packages,build,output}
exec 8>"$state/lock"
flock 8

[ -z "$clean" ] || rm -rf "$state"/build/*/meson
mkosi_stage "$stage"
mkdir -p "$stage/sysext" "$stage/.cache"
mkosi_sandbox "$stage/.apt" bookworm
mkosi_sandbox "$state/tools-apt" trixie
[ -z "${CLOUD_HYPERVISOR:-}" ] || install -D -m 755 "$CLOUD_HYPERVISOR" "$stage/.vmm/cloud-hypervisor"

# mkosi hands no environment to the container's build script.
printf 'with_qemu=%s JOBS=%s\n' "$with_qemu" "$JOBS" >"$stage/.options"

say "building $name $version (log: $state/log)"
started=$SECONDS
mkosi_run "$stage" --force --architecture="$arch" --image-version="$version" \
    --build-directory="$state/build" --cache-directory="$state/cache" --package-cache-directory="$state/packages" \
    --output-directory="$state/output" --build-sources="$cache:.cache" --sandbox-tree="$stage/.apt" \
    --tools-tree-sandbox-tree="$state/tools-apt" \
    --source-date-epoch="$epoch" "${signing[@]}" build >"$state/log" 2>&1 || {
    tail -n 60 "$state/log" >&2
    die "mkosi failed"
}

mkdir -p "$output"
python3 "$top/hacks/lib/pack-image.py" "$state/output/$name.raw" "$output/$name.raw"
install -m 644 "$certificate" "$output/$name.crt"
built=$(find "$state/build" -maxdepth 2 -type d -name dest | head -n 1)
# What makes the file system and the signature has a say in what comes out, too.
# shellcheck disable=SC2016 # dpkg's own variables
dpkg-query --admindir="$stage/mkosi.tools/var/lib/dpkg" -W -f '${Package} ${Version} ${Architecture}\n' |
    LC_ALL=C sort >"$built/tools-packages"
"$top/hacks/check-sysext.sh" "$output/$name.raw" "$output/$name.crt"
python3 "$top/hacks/lib/sysext-report.py" --image "$output/$name.raw" --facts "$built" --version "$version" \
    --epoch "$epoch" --fsck "$("$top/hacks/build-tools.sh")/fsck.erofs" --output "$output/$name"
# Under the name that systemd-sysupdate looks for, too.
rm -f "$output/$name"-*.raw
ln "$output/$name.raw" "$output/$name-$version.raw"
(cd "$output" && sha256sum "$name".{raw,crt,manifest.json,spdx.json,sources} "$name-$version.raw" >SHA256SUMS)
say "$output/$name.raw: $(stat -c %s "$output/$name.raw") bytes, $((SECONDS - started)) s"
if [ -n "$compare" ]; then
    python3 "$top/hacks/lib/sysext-report.py" --compare "$compare" "$output/$name.manifest.json"
fi
