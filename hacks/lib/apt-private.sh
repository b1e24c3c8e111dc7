#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# apt-get with the package lists of another suite, kept in the cache and apart from the machine's own: nothing is
# added to its sources and nothing is installed. The mirror is the one this machine's apt uses.
#
#   hacks/lib/apt-private.sh SUITE download PACKAGE...           into the current directory
#   hacks/lib/apt-private.sh SUITE source --download-only PACKAGE
#   hacks/lib/apt-private.sh SUITE:arm64 download PACKAGE...     of that architecture
set -euo pipefail

suite=${1:?usage: apt-private.sh SUITE[:ARCHITECTURE] APT-GET-ARGUMENT...}
shift
root=${CLOUDHV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudhv}/apt/${suite/:/-main-}
foreign=()
if [[ $suite == *:* ]]; then
    foreign=(-o "APT::Architecture=${suite#*:}" -o "APT::Architectures::=${suite#*:}")
    suite=${suite%:*}
fi
mkdir -p "$root"/etc/{sources.list.d,apt.conf.d,preferences.d} "$root"/state/lists/partial "$root"/cache/archives/partial
: >>"$root/state/status"

# The first suite without a dash is the release itself, not its updates or security.
find_mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 !~ /-/ { print $2; exit }'
}
mirror=$(find_mirror)
if [ -z "$mirror" ]; then
    apt-get update -qq
    mirror=$(find_mirror)
fi
[ -n "$mirror" ] || {
    echo "apt-private: this machine's apt has no package list to take a mirror from" >&2
    exit 1
}

printf '%s\n' "Types: deb deb-src" "URIs: ${mirror%/}" "Suites: $suite" "Components: main" \
    "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" >"$root/etc/sources.list.d/suite.sources"
# The machine's proxy and TLS settings.
apt-config dump | grep -E '^Acquire::(https?|Check)' >"$root/etc/apt.conf.d/50host" || true

private_apt() {
    apt-get -o Dir::Etc="$root/etc" -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$root/etc/sources.list.d" -o Dir::Etc::Parts="$root/etc/apt.conf.d" \
        -o Dir::State="$root/state" -o Dir::State::status="$root/state/status" -o Dir::Cache="$root/cache" \
        -o APT::Sandbox::User=root "${foreign[@]}" "$@"
}

# Lists are good for a day: a package named in older ones may have left the mirror.
if [ -z "$(find "$root/state/lists" -maxdepth 1 -name '*_Packages*' -mmin -1440 2>/dev/null | head -n 1)" ]; then
    exec 9>"$root/lock"
    flock 9
    private_apt update -qq >&2
    exec 9>&-
fi
private_apt "$@"
