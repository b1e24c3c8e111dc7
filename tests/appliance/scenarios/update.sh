#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The image is refreshed and replaced under running pods: they stay usable, new ones start, nothing is left behind.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

loops=$(cat ./loops)

starts() {
    modprobe kvm-amd
    install_image
    systemctl start systemd-sysext.service
    is_merged
    until_true 60 has_runtime
    import_image
    start_pod old
    exec_works old
}
has_runtime() { grep -rq cloudhv /run/cloudhv/containerd/config.toml && systemctl is-active containerd; }

merged_version() { sed -n 's/^SYSEXT_VERSION_ID=//p' "/usr/lib/extension-release.d/extension-release.$name"; }

update() {
    cp ./next.raw "$image.new"
    mv "$image.new" "$image"
    systemctl reload systemd-sysext
    merged_version
    [ "$(merged_version)" = "$(cat ./next.version)" ]
}

roll_back() {
    cp "./$name.raw" "$image.new"
    mv "$image.new" "$image"
    systemctl reload systemd-sysext
    merged_version
    [ "$(merged_version)" != "$(cat ./next.version)" ]
}

new_pod() { # new_pod NAME
    start_pod "$1"
    exec_works "$1"
    remove_pod "$1"
}

# A pod can fail to start only in the moment without the extension, and then the next attempt works.
refresh_loop() {
    local i failed=0
    (while [ ! -e /run/stop-refreshing ]; do refresh >/dev/null 2>&1 || true; done) &
    for ((i = 0; i < loops; i++)); do
        if ! start_pod "loop$i"; then
            failed=$((failed + 1))
            ctr containers rm "loop$i" || true
            until_true 30 start_pod "loop$i"
        fi
        remove_pod "loop$i"
    done
    touch /run/stop-refreshing
    wait
    echo "$failed of $loops were tried again"
}

nothing_left() {
    remove_pod old
    until_true 20 no_vmm
    [ -z "$(ctr containers ls -q)" ]
    [ -z "$(pgrep -f containerd-shim-cloudhv)" ]
}

check "a pod runs" starts
check "the next version replaces the image" update
check "the pod of before answers an exec" exec_works old
check "a new pod starts" new_pod new
check "the way back" roll_back
check "the pod of before answers an exec after the way back" exec_works old
check "a new pod starts after the way back" new_pod again
check "pods start and end while the image is refreshed all the time" refresh_loop
check "the pod of before still answers" exec_works old
check "nothing is left of all that" nothing_left
