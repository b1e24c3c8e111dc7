#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Unpacks what compiling for arm64 on another machine needs of Debian 12 for arm64 (libc, libsystemd, and the libraries
# that are linked statically), and prints the directory: a root for a compiler's --sysroot, with a list `packages` of
# what is in it. Nothing is installed, no program of it is run, and the machine's apt learns nothing of another
# architecture. Cached by the packages' versions.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/mkosi.sh
. "$(dirname "$0")/lib/mkosi.sh"

suite=bookworm
# The last line is what libsystemd.so is linked with: the linker wants to see it all.
packages=(libc6 libc6-dev linux-libc-dev libgcc-12-dev libgcc-s1 libcrypt1
    libsystemd-dev libprotobuf-c-dev libjansson-dev libnl-3-dev libcmocka-dev libcmocka0
    libcap-dev libseccomp-dev liblz4-dev zlib1g-dev libglib2.0-dev libpcre2-dev libfdt-dev
    libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 liblz4-1 libzstd1)

root=$cache/apt/$suite-arm64
apt_arm64() {
    apt-get -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::Etc="$root/etc/apt" \
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$root/etc/apt/sources.list.d" \
        -o Dir::Etc::Parts="$root/etc/apt/apt.conf.d" -o Dir::State="$root/state" \
        -o Dir::State::status="$root/state/status" -o Dir::Cache="$root/cache" -o APT::Sandbox::User=root "$@"
}

# Lists are good for a day, as in apt-private.sh.
update_lists() {
    mkdir -p "$root"/state/lists/partial "$root"/cache/archives/partial
    : >>"$root/state/status"
    [ -z "$(find "$root/state/lists" -maxdepth 1 -name '*_Packages*' -mmin -1440 2>/dev/null | head -n 1)" ] || return 0
    exec 9>"$root/lock"
    flock 9
    mkosi_sandbox "$root" "$suite"
    apt_arm64 update -qq >&2
    exec 9>&-
}

build() {
    local out=$1 link work
    work=$(mktemp -d "$cache/sysroot-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "rm -rf '$work'" EXIT
    cd "$work"
    say "getting ${#packages[@]} packages for arm64"
    apt_arm64 download -qq "${packages[@]}"
    for deb in *.deb; do
        dpkg-deb -x "$deb" "$out"
        # shellcheck disable=SC2016 # dpkg's own variables
        dpkg-deb --show --showformat '${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n' "$deb"
    done | LC_ALL=C sort >"$out/packages"
    # Debian's systems have one directory for both, and so say the packages' files for pkg-config.
    cp -a "$out/lib/." "$out/usr/lib/"
    rm -rf "${out:?}/lib"
    ln -s usr/lib "$out/lib"
    # Relative to the file: the directory is moved once it is complete.
    # shellcheck disable=SC2016 # pkg-config's own variable
    find "$out/usr/lib" -name '*.pc' -exec sed -i 's|=/usr\>|=${pcfiledir}/../../..|' {} +
    # shellcheck disable=SC2016 # pkg-config's own variable
    find "$out/usr/share" -name '*.pc' -exec sed -i 's|=/usr\>|=${pcfiledir}/../..|' {} +
    # Absolute links lead into the machine's own root.
    while IFS= read -r -d '' link; do
        ln -sfr "$out$(readlink "$link")" "$link"
    done < <(find "$out" -type l -lname '/*' -print0)
    find "$out/usr/share" -mindepth 1 -maxdepth 1 ! -name doc ! -name pkgconfig -exec rm -rf {} +
    cd /
    rm -rf "$work"
    trap - EXIT
}

need_packages dpkg-dev debian-archive-keyring
update_lists
versions=$(apt_arm64 download --print-uris -qq "${packages[@]}" | sed "s/^'[^']*' //")
[ "$(wc -l <<<"$versions")" = ${#packages[@]} ] || die "the mirror lacks some of these packages for arm64: ${packages[*]}"
cached sysroot-arm64 "$(content_key "$versions" "$0")" build
