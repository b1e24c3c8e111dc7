# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # top and cache come from common.sh
# Sourced after common.sh: mkosi 27, unpacked into the cache and not installed, and what it is given: package lists
# of Debian suites (from the mirrors that this machine's apt uses), a copy of the sources, and a tools tree. Nothing
# is written into the work tree.

# Debian 12's mkosi is too old for signed extension images, Debian 13's for Debian 12's tools, so it is sid's.
mkosi_get() {
    "$top/hacks/lib/apt-private.sh" sid download -qq mkosi
    dpkg-deb -x mkosi_*.deb "$1"
}

mkosi_download() {
    local work
    work=$(mktemp -d "$cache/mkosi-get.XXXXXX")
    (cd "$work" && mkosi_get "$1")
    rm -rf "$work"
}

# mkosi_run DIRECTORY ARGUMENT...: runs it with DIRECTORY's mkosi.conf.
mkosi_run() {
    local directory=$1 program
    shift
    need_packages python3 python3-pefile dpkg-dev debian-archive-keyring openssl uidmap zstd
    program=$(cached mkosi-program 27 mkosi_download)
    PYTHONPATH=$program/usr/lib/python3/dist-packages PYTHONDONTWRITEBYTECODE=1 \
        nice /usr/bin/python3 -m mkosi --directory "$directory" "$@"
}

# mkosi_mirror PATTERN: the address of the first suite of this machine's apt whose name matches (awk).
mkosi_mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v pattern="$1" '$1 ~ pattern { print $2; exit }'
}

# mkosi_sandbox DIRECTORY SUITE: writes what mkosi lays over its sandbox, apt's sources for SUITE. The file must have
# this name, or mkosi writes one of its own with repositories that a mirror may lack.
mkosi_sandbox() {
    local etc=$1/etc/apt suite=$2 main security
    main=$(mkosi_mirror '^[^-]*$')
    if [ -z "$main" ]; then
        apt-get update -qq
        main=$(mkosi_mirror '^[^-]*$')
    fi
    [ -n "$main" ] || die "this machine's apt has no package list to take a mirror from"
    security=$(mkosi_mirror '-security$')
    mkdir -p "$etc"/{sources.list.d,apt.conf.d,preferences.d}
    {
        mkosi_stanza "$main" "$suite $suite-updates"
        [ -z "$security" ] || mkosi_stanza "$security" "$suite-security"
    } >"$etc/sources.list.d/mkosi.sources"
    apt-config dump | grep -E '^Acquire::(https?|Check)' >"$etc/apt.conf.d/50host" || true
}

mkosi_stanza() {
    printf '%s\n' "Types: deb" "URIs: ${1%/}" "Suites: $2" "Components: main" \
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" ""
}

# mkosi_stage DIRECTORY: brings DIRECTORY into step with the files that git knows or would add, with modes that do
# not depend on the umask. What mkosi keeps there (mkosi.tools and the like) stays.
mkosi_stage() {
    local directory=$1
    mkdir -p "$directory"
    find "$directory" -mindepth 1 -maxdepth 1 ! -name '.cache' ! -name 'mkosi.tools*' -exec rm -rf {} +
    (cd "$top" && git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
        tar -c --no-recursion --null --files-from=- --owner=0 --group=0 --mode='u+rwX,go+rX,go-w') |
        tar -x -C "$directory" --no-same-owner
    find "$directory" -mindepth 1 -maxdepth 3 -type d -exec chmod 755 {} +
}
