# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Sourced by the scripts in hacks/: the cache, single flight, messages, packages.

# shellcheck disable=SC2034 # used by the scripts
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${CLOUDHV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudhv}
mkdir -p "$cache"
export CLOUDHV_CACHE=$cache
: "${JOBS:=$(nproc)}"

# What is compiled for, in the words of systemd and mkosi: CLOUDHV_ARCH, or what this machine is.
case $(uname -m) in
x86_64) machine_arch=x86-64 ;;
aarch64) machine_arch=arm64 ;;
*) machine_arch=$(uname -m) ;;
esac
arch=${CLOUDHV_ARCH:-$machine_arch}
# Caches of each architecture are apart; x86-64's have the plain names.
suffix=${arch/#x86-64/}
suffix=${suffix:+-$suffix}

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# need_packages PACKAGE...: installs those that are missing, and says so.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "these packages are missing, and only root can install them: ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}"
}

# content_key FILE-OR-TEXT...: a short hash of the content of files and of other arguments as they are.
content_key() {
    local item
    for item in "$@"; do
        if [ -f "$item" ]; then
            sha256sum <"$item"
        else
            printf '%s\n' "$item"
        fi
    done | sha256sum | cut -c1-16
}

# cached NAME KEY COMMAND...: prints the directory cache/NAME-KEY. Where it does not exist, COMMAND is run with a
# new directory as its last argument, which takes its place when COMMAND succeeds. One process at a time.
cached() {
    local directory=$cache/$1-$2 lock
    lock=$cache/$1.lock
    shift 2
    if [ ! -d "$directory" ]; then
        exec {lock_fd}>"$lock"
        flock "$lock_fd"
        if [ ! -d "$directory" ]; then
            local new=$directory.new.$$
            rm -rf "$directory".new.*
            mkdir -p "$new"
            # A subshell that no || follows: only there does set -e hold for the commands of COMMAND.
            local status
            set +e
            (
                set -e
                "$@" "$new"
            ) >&2
            status=$?
            set -e
            [ "$status" = 0 ] || {
                rm -rf "$new"
                return "$status"
            }
            mv "$new" "$directory"
        fi
        exec {lock_fd}>&-
    fi
    echo "$directory"
}
