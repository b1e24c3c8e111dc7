#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Can the tests fail? Breaks a copy of the tree on purpose, one place at a time, and shows which test notices.
#   sudo hacks/mutate.sh [NAME...]
# A mutation is tests/mutations/NAME.patch: a sentence, a line "Tests:" with what to run of tests/integration, and the
# patch. Ends with 1 when one goes unnoticed or can't be tried. Not part of CI: minutes for each.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

[ "$(id -u)" = 0 ] || die "must be run as root"
need_packages patch containerd runc containernetworking-plugins qemu-system-x86 busybox-static python3-grpcio \
    python3-protobuf python3-pytest protobuf-c-compiler binutils iproute2 e2fsprogs gcc libc6-dev
guest=$("$top/hacks/build.sh")
tools=$("$top/hacks/build-tools.sh")
work=$(mktemp -d /var/tmp/cloudhv-mutate.XXXXXX)
trap 'rm -rf "$work"' EXIT

mkdir "$work/tree"
(cd "$top" && git ls-files -z | tar -c --null -T -) | tar -x -C "$work/tree"

change() { patch -d "$work/tree" -p1 --quiet --no-backup-if-mismatch "$@"; }

# build: compiles the tree into one build directory for all mutations, so that little is compiled again.
build() {
    if [ ! -f "$work/build/build.ninja" ]; then
        meson setup "$work/build" "$work/tree" -Dtests=false -Dfault_injection=true
    fi
    ninja -C "$work/build" -j"$JOBS" --quiet
}

# run_tests SELECTION: the cases that failed, a line each, into $work/failed; the status is pytest's.
run_tests() {
    local selection
    # The patch is ours, and its selection is written as for a shell.
    eval "selection=($1)"
    (cd "$top/tests/integration" && /usr/bin/python3 -m pytest -q --tb=line -p no:cacheprovider --containerd 1.7 \
        --runtime cloudhv --bin-dir "$work/build" --guest-dir "$guest" --mkfs "$tools/mkfs.erofs" \
        "${selection[@]}") >"$work/output" 2>&1
}

unnoticed=0
try() {
    local name=$1 patch=$top/tests/mutations/$1.patch title selection status=0
    [ -f "$patch" ] || die "there is no mutation $name"
    title=$(head -n 1 "$patch")
    selection=$(sed -n 's/^Tests: //p' "$patch" | head -n 1)
    printf '\n%s: %s\n' "$name" "$title"
    change --dry-run <"$patch" || die "$patch does not apply any more"
    change <"$patch"
    build >"$work/output" 2>&1 || {
        tail -n 20 "$work/output"
        die "the tree does not compile with $patch"
    }
    run_tests "$selection" || status=$?
    change --reverse <"$patch"
    if [ "$status" = 1 ]; then
        sed -n 's/^\(FAILED\|ERROR\) /  noticed by /p' "$work/output" | cut -c1-160
    else
        printf '  NOT NOTICED by %s (pytest ended with %s)\n' "$selection" "$status"
        tail -n 5 "$work/output"
        unnoticed=$((unnoticed + 1))
    fi
}

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for patch in "$top"/tests/mutations/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi
for name in "${names[@]}"; do try "$name"; done
printf '\n%s mutations, %s not noticed\n' "${#names[@]}" "$unnoticed"
[ "$unnoticed" = 0 ]
