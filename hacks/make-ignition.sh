#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Fills in one of butane/*.bu and prints Ignition's JSON, checked by Ignition's own validator.
#
#   hacks/make-ignition.sh --certificate FILE [--image FILE --url URL [--version V]] [--butane] BUTANE-FILE
#
#   --image FILE    the image, for its hash; it has to be called containerd-cloudhypervisor-V.raw below URL
#   --version V     of the image (default: that of meson.build)
#   --butane        print Butane instead, with the certificate in it
#   --tools         print the directory with butane and ignition-validate, which are built where they are missing
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

butane=v0.25.1 validate=v2.24.0

build_tools() {
    local out=$1 source
    source=$(mktemp -d)
    (
        cd "$source"
        # Its program is in an internal package, which go install takes only with a list of versions that not every
        # proxy has; so its module is built as the main one.
        directory=$(go mod download -json "github.com/coreos/butane@$butane" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
        cp -r "$directory" butane
        chmod -R u+w butane
        cd butane
        CGO_ENABLED=0 nice go build -mod=mod -p 1 -ldflags "-s -w -X github.com/coreos/butane/internal/version.Raw=$butane" \
            -o "$out/butane" ./internal
    )
    chmod -R u+w "$source"
    rm -rf "$source"
    CGO_ENABLED=0 GOBIN=$out nice go install -p 1 -ldflags "-s -w" "github.com/coreos/ignition/v2/validate@$validate"
    mv "$out/validate" "$out/ignition-validate"
}

tools() {
    command -v go >/dev/null || die "no Go compiler to build butane with"
    cached ignition-tools "$butane-$validate" build_tools || die "butane can't be built from the Go module proxy"
}

image='' url='' certificate='' version='' file='' as_butane=''
while [ $# -gt 0 ]; do
    case $1 in
    --tools)
        tools
        exit
        ;;
    --image) image=$2 && shift ;;
    --url) url=${2%/} && shift ;;
    --certificate) certificate=$2 && shift ;;
    --version) version=$2 && shift ;;
    --butane) as_butane=1 ;;
    -*) die "unknown option $1" ;;
    *) file=$1 ;;
    esac
    shift
done
[ -f "$file" ] || die "which file of butane/?"
[ -f "$certificate" ] || die "--certificate names no file"
: "${version:=$(sed -n "s/^ *version: '\(.*\)',/\1/p" "$top/meson.build")}"
hash=
if grep -q '@HASH@' "$file"; then
    [ -n "$url" ] || die "--url is missing"
    [ -f "$image" ] || die "--image names no file"
    case $url in *[!A-Za-z0-9:/._~%+-]*) die "this URL has characters that do not belong into one: $url" ;; esac
    hash=sha512-$(sha512sum "$image" | cut -d ' ' -f 1)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$certificate" "$work/certificate.crt"
# Of a comment's line nothing is wanted in the result. "@v" belongs to systemd-sysupdate.
sed -e '/^#/d' -e "s|@URL@|$url|g; s|@VERSION@|$version|g; s|@HASH@|$hash|g" "$file" >"$work/filled.bu"
if [ -n "$as_butane" ]; then
    awk -v certificate="$work/certificate.crt" '
        /^ *local: certificate.crt$/ {
            indent = $0; sub(/local.*/, "", indent)
            print indent "inline: |"
            while ((getline line < certificate) > 0) print indent "  " line
            next
        }
        { print }' "$work/filled.bu"
    exit
fi
programs=$(tools)
"$programs/butane" --strict --pretty --files-dir "$work" --output "$work/out.ign" "$work/filled.bu"
"$programs/ignition-validate" "$work/out.ign" >&2
cat "$work/out.ign"
