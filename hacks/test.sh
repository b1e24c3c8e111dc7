#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs every test on this machine, after installing what they need: static checks, unit tests and fuzz targets with
# sanitizers, and the integration tests with the real programs in real VMs (emulated where there is no KVM).
#
#   sudo hacks/test.sh               all of it
#   sudo hacks/test.sh STAGE...      some: static unit fuzz build demo sysext integration sanitizer appliance
#
# The last line is "N passed, N failed, N skipped". A skip that tests/expected-skips does not list is a failure.
# FUZZ_RUNS sets the iterations of each fuzz target (default 20000), FUZZ_SECONDS how long they may take (20).
set -uo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

: "${FUZZ_RUNS:=20000}" "${FUZZ_SECONDS:=20}"
work=$(mktemp -d /var/tmp/cloudhv-test.XXXXXX)
trap 'rm -rf "$work"' EXIT
results=$work/results
: >"$results"

# check NAME COMMAND...: a check that passes or fails as a whole; its output is shown when it fails.
check() {
    local name=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        echo "pass $name" >>"$results"
    else
        echo "fail $name" >>"$results"
        printf 'FAILED: %s\n' "$name"
        tail -n 60 "$work/output"
    fi
}

stage() { printf '\n=== %s (%s)\n' "$1" "$(date -u +%T)"; }

# configure DIRECTORY OPTION...: a meson build directory, made anew when its options differ from the last time.
configure() {
    local directory=$1
    shift
    if [ ! -f "$directory/build.ninja" ] || [ "$(cat "$directory/.options" 2>/dev/null)" != "$*" ]; then
        rm -rf "$directory"
        meson setup "$directory" "$top" --werror "$@" || return 1
        echo "$*" >"$directory/.options"
    fi
    nice ninja -C "$directory" -j"$JOBS" --quiet
}

test_static() {
    local scripts
    mapfile -t scripts < <(cd "$top" && git ls-files '*.sh' .ci/run)
    check "shellcheck" shellcheck "${scripts[@]/#/$top/}"
    check "no program without a licence line" check_licence_lines
}

check_licence_lines() {
    local file status=0
    while read -r file; do
        head -n 3 "$top/$file" | grep -q 'SPDX-License-Identifier: MIT' || {
            echo "$file has no SPDX line"
            status=1
        }
    done < <(cd "$top" && git ls-files '*.c' '*.h' '*.py' '*.sh' '*.proto' '*/meson.build')
    return "$status"
}

# Runs the unit tests of a build directory; cmocka prints a TAP line for each case.
run_unit_tests() {
    local program name
    for program in "$1"/tests/unit/test-*; do
        if [ ! -x "$program" ] || [ ! -f "$program" ]; then continue; fi
        name=$(basename "$program")
        CMOCKA_MESSAGE_OUTPUT=TAP timeout 300 "$program" >"$work/tap" 2>"$work/stderr"
        local status=$?
        sed -n "s/^not ok [0-9]* # SKIP \(.*\)/skip $name:\1: \1 is not possible here/p; t; s/^ok [0-9]* - \(.*\)/pass $name:\1/p; s/^not ok [0-9]* - \(.*\)/fail $name:\1/p" \
            "$work/tap" >>"$results"
        if [ "$status" != 0 ]; then
            # A crash may come after, or instead of, the line that says so.
            grep '^not ok' "$work/tap" | grep -qv '# SKIP' || echo "fail $name" >>"$results"
            printf 'FAILED: %s (status %s)\n' "$name" "$status"
            tail -n 40 "$work/tap" "$work/stderr"
        fi
    done
}

test_unit() {
    check "programs compile with clang" env CC=clang bash -c "$(declare -f configure); top=$top JOBS=$JOBS; configure $top/build-clang -Dtests=true"
    check "unit tests compile with sanitizers" configure "$top/build-sanitize" -Db_sanitize=address,undefined \
        -Db_lundef=false -Dfault_injection=true
    run_unit_tests "$top/build-sanitize"
}

test_fuzz() {
    local target name corpus
    check "fuzz targets compile" env CC=clang bash -c "$(declare -f configure); top=$top JOBS=$JOBS; configure $top/build-fuzz -Dfuzz=true -Dtests=false -Db_sanitize=address,undefined -Db_lundef=false"
    for target in "$top"/build-fuzz/tests/fuzz/fuzz-*; do
        if [ ! -x "$target" ] || [ ! -f "$target" ]; then continue; fi
        name=$(basename "$target")
        corpus=$work/corpus/$name
        mkdir -p "$corpus"
        cp -r "$top/tests/fuzz/corpus/${name#fuzz-}/." "$corpus/" 2>/dev/null || true
        check "$name" timeout $((FUZZ_SECONDS + 60)) "$target" -runs="$FUZZ_RUNS" -max_total_time="$FUZZ_SECONDS" -rss_limit_mb=2048 -close_fd_mask=1 "$corpus"
    done
}

guest=
test_build() {
    local libnl
    libnl=$("$top/hacks/build-libnl.sh") || {
        echo "fail libnl build" >>"$results"
        return
    }
    # Fault injection is what the tests need beyond a release; it reads two environment variables.
    check "release build" configure "$top/build-test" --buildtype=release -Doptimization=s -Db_lto=true -Dtests=false \
        -Dfault_injection=true --pkg-config-path="$libnl"
    check "the programs compile for arm64" compile_for_arm64
    guest=$("$top/hacks/build-guest.sh" "$top/build-test/src/agent/cloudhv-agent") || {
        echo "fail guest build" >>"$results"
        return
    }
    echo "pass guest build" >>"$results"
}

# The programs alone, by clang, which knows every architecture, against Debian's packages for arm64: seconds. Nothing of
# it is run; `hacks/lib/run-integration.sh --only arm64` runs guests.
compile_for_arm64() {
    (
        export CLOUDHV_ARCH=arm64
        arch=arm64
        # shellcheck source=lib/cross.sh
        . "$top/hacks/lib/cross.sh"
        sysroot=$("$top/hacks/build-sysroot.sh") && cross_meson_file "$work/arm64.ini" clang && configure \
            "$top/build-arm64-clang" --cross-file="$work/arm64.ini" -Dtests=false || return 1
        LC_ALL=C readelf -h "$top/build-arm64-clang/src/agent/cloudhv-agent" | grep -q 'Machine:.*AArch64'
    )
}

test_demo() {
    check "the demo" "$top/hacks/demo.sh"
    check "the demo leaves nothing" demo_left_nothing
}

demo_left_nothing() {
    ! pgrep -fa -- '-name cloudhv-cloudhv-demo' && [ ! -e /run/netns/cloudhv-demo ] && ! ip link show cloudhv-demo0
}

# The image's files, and the units with a real systemd; with a VM in the daemon's unit where the build stage ran.
test_sysext() {
    local arguments=() status=0
    [ -z "$guest" ] || arguments=(--build-dir="$top/build-test" --guest-dir="$guest")
    (cd "$top/tests/sysext" && nice /usr/bin/python3 -m pytest -q --tb=short -p no:cacheprovider \
        --results="$results" "${arguments[@]}" .) || status=$?
    [ "$status" -le 1 ] || echo "fail sysext: pytest ended with status $status" >>"$results"
}

test_integration() {
    [ -n "$guest" ] || test_build
    "$top/hacks/lib/run-integration.sh" --build "$top/build-test" --guest "$guest" --results "$results" ||
        echo "integration: ended with status $?"
}

test_sanitizer() {
    [ -n "$guest" ] || test_build
    check "QEMU driver, with the guest" env CLOUDHV_TEST_KERNEL="$guest/vmlinux" CLOUDHV_TEST_ROOTFS="$guest/rootfs.erofs" \
        "$top/build-sanitize/tests/unit/test-vmm-qemu"
    "$top/hacks/lib/run-integration.sh" --build "$top/build-sanitize" --guest "$guest" --results "$results" --only sanitizer ||
        echo "integration with sanitizers: ended with status $?"
    check "templates and clones: nothing of a VM's identity is shared" test_clones
}

# The driver itself, with the image's QEMU, since Debian 12's has no templates.
test_clones() {
    local qemu tools
    qemu=$("$top/hacks/build-qemu.sh") && tools=$("$top/hacks/build-tools.sh") || return 1
    "$top/tests/tools/clones.py" "$top/build-sanitize/tests/tools" "$qemu/qemu-system-x86_64" "$guest" "$tools/mkfs.erofs"
}

# The image that users get, and a machine that it is installed on. What makes the image again takes the processor that a
# machine leaves, most of all while the last of them runs.
test_appliance() {
    local image=$work/image/containerd-cloudhypervisor.raw
    # Given one, it is in the image, and the machines' pods run in its VMs.
    [ -n "${CLOUD_HYPERVISOR:-}" ] ||
        echo "skip appliance with Cloud Hypervisor: CLOUD_HYPERVISOR names no program" >>"$results"
    check "system extension: build and checks" "$top/hacks/build-sysext.sh" --output "$work/image"
    check "system extension: a key on a token signs what one in a file signs" "$top/tests/appliance/sign-with-token.sh"
    check_in_background "system extension: built again it is the same, bit for bit" image_is_reproducible "$image"
    if [ -f "$image" ]; then
        "$top/tests/appliance/run.sh" --image "$image" --certificate "${image%.raw}.crt" \
            --results "$results" || echo "appliance: ended with status $?"
    fi
    finish_background
}

# check_in_background NAME COMMAND...: as `check`, but the result comes with finish_background. One at a time.
check_in_background() {
    background_name=$1
    shift
    "$@" >"$work/background" 2>&1 &
    background_pid=$!
}

finish_background() { check "$background_name" background_result; }

background_result() {
    local status=0
    wait "$background_pid" || status=$?
    cat "$work/background"
    return "$status"
}

image_is_reproducible() {
    (umask 077 && TZ=Asia/Tokyo "$top/hacks/build-sysext.sh" --clean --output "$work/again") && cmp "$1" "$work/again/$(basename "$1")"
}

# What kinds of machine this one is, in the words of tests/expected-skips.
machine_kinds() {
    echo any
    if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then echo kvm; else echo no-kvm; fi
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo cgroup2; else echo cgroup1; fi
    if command -v go >/dev/null; then echo go; else echo no-go; fi
}

# A skip counts as one only when tests/expected-skips names its reason for this kind of machine.
judge_skips() {
    local line reason kind pattern expected=()
    while IFS= read -r line; do
        kind=${line%%: *} pattern=${line#*: }
        if [[ $line != "#"* && -n $line ]] && machine_kinds | grep -qxF -- "$kind"; then expected+=("$pattern"); fi
    done <"$top/tests/expected-skips"
    while IFS= read -r line; do
        reason=${line#skip *: }
        for pattern in "${expected[@]}"; do
            # shellcheck disable=SC2053 # the pattern's * is meant to match anything
            if [[ $reason == $pattern ]]; then
                echo "$line"
                continue 2
            fi
        done
        echo "fail ${line#skip } (an unexpected skip)"
    done < <(grep '^skip ' "$results")
}

[ "$(id -u)" = 0 ] || die "must be run as root"
need_packages build-essential meson ninja-build pkg-config clang libclang-rt-14-dev llvm lld libsystemd-dev libprotobuf-c-dev \
    protobuf-c-compiler libnl-3-dev libjansson-dev libcmocka-dev shellcheck git containerd runc \
    containernetworking-plugins qemu-system-x86 qemu-system-arm e2fsprogs iproute2 busybox-static python3-grpcio python3-grpc-tools \
    python3-pytest python3-pytest-timeout strace systemd man-db openssl procps
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(static unit fuzz build demo sysext integration sanitizer appliance)
for name in "${stages[@]}"; do
    declare -F "test_$name" >/dev/null || die "there is no stage $name"
    stage "$name"
    "test_$name"
done

stage "result"
skips=$(judge_skips)
grep '^fail ' "$results"
[ -z "$skips" ] || printf '%s\n' "$skips"
passed=$(grep -c '^pass ' "$results")
failed=$(($(grep -c '^fail ' "$results") + $(printf '%s\n' "$skips" | grep -c '^fail ')))
skipped=$(printf '%s\n' "$skips" | grep -c '^skip ')
printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
