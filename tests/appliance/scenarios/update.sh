#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The image is updated, taken back and refreshed under running pods, as docs/install.md has it: they stay usable, new
# ones start, nothing is left behind; and no image that is too old comes by way of systemd-sysupdate.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

loops=$(cat ./loops) base=$(cat ./base.version) next=$(cat ./next.version)
source=/var/lib/cloudhv-updates
target=/opt/extensions/cloudhv
transfer=/etc/sysupdate.cloudhv.d/cloudhv.conf
link=/etc/extensions/$name.raw

sysupdate() { /usr/lib/systemd/systemd-sysupdate -C cloudhv "$@"; }

starts() {
    modprobe kvm-amd
    trust_certificate "./$name.crt"
    set_policy
    mkdir -p "$source" "$target" /etc/extensions "${transfer%/*}"
    cp ./sysupdate.conf "$transfer"
    mv "./$name.raw" "$source/$name-$base.raw"
    sysupdate update
    systemctl start systemd-sysext.service
    [ "$(merged_version)" = "$base" ]
    # It restarts containerd, where it has to.
    until_true 240 systemctl is-active cloudhv-containerd.service
    until_true 240 has_runtime
    import_image
    start_pod old
    exec_works old
}
has_runtime() { grep -rq cloudhv /run/cloudhv/containerd/config.toml && systemctl is-active containerd; }

merged_version() { sed -n 's/^SYSEXT_VERSION_ID=//p' "/usr/lib/extension-release.d/extension-release.$name"; }

merge_anew() {
    systemctl reload systemd-sysext.service
    systemctl restart cloudhv-sandbox-daemon.service
    merged_version
}

# The next version has another key, whose certificate is there before it.
update() {
    trust_certificate ./next.crt
    mv ./next.raw "$source/$name-$next.raw"
    sysupdate update
    merge_anew
    [ "$(merged_version)" = "$next" ]
}

roll_back() {
    ln -sfn "$target/$name-$base.raw" "$link"
    merge_anew
    [ "$(merged_version)" = "$base" ]
}

# The source has the old one only, as that of somebody who wants it back on the host.
too_old() {
    rm "$source/$name-$next.raw" "$target/$name-$base.raw"
    sed -i "s/^Verify=no/&\nMinVersion=$next/" "$transfer"
    sysupdate update
    if sysupdate update "$base" 2>"$OUT/too-old"; then return 1; fi
    cat "$OUT/too-old"
    grep "Selected update '$base' is obsolete, refusing" "$OUT/too-old"
    [ "$(ls "$target")" = "$name-$next.raw" ]
    # Without the line it would have come.
    sed -i /^MinVersion=/d "$transfer"
    sysupdate update "$base"
    [ -f "$target/$name-$base.raw" ]
}

# Two are kept, and the oldest goes first, unless it is protected.
protected() {
    sed -i "s/^Verify=no/&\nProtectVersion=$base/" "$transfer"
    truncate -s 4096 "$source/$name-1000.0.0.raw"
    sysupdate update
    ls "$target"
    [ -f "$target/$name-$base.raw" ]
    [ ! -e "$target/$name-$next.raw" ]
    ln -sfn "$target/$name-$base.raw" "$link"
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
            until_true 120 start_pod "loop$i"
        fi
        remove_pod "loop$i"
    done
    touch /run/stop-refreshing
    wait
    echo "$failed of $loops were tried again"
}

nothing_left() {
    remove_pod old
    until_true 20 no_pod_vm
    [ -z "$(ctr containers ls -q)" ]
    [ -z "$(pgrep -f containerd-shim-cloudhv)" ]
}

check "systemd-sysupdate installs the image, and a pod runs" starts
check "the next version replaces the image" update
check "the pod of before answers an exec" exec_works old
check "a new pod starts" new_pod new
check "the way back" roll_back
check "the pod of before answers an exec after the way back" exec_works old
check "a new pod starts after the way back" new_pod again
check "systemd-sysupdate installs nothing older than MinVersion=" too_old
check "systemd-sysupdate keeps what ProtectVersion= names" protected
check "pods start and end while the image is refreshed all the time" refresh_loop
check "the pod of before still answers" exec_works old
check "nothing is left of all that" nothing_left
