#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A host that was provisioned by butane/cloudhv.bu before its first boot: the image merges while it boots, and
# containerd starts with the runtime, once.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

if [ -f ./no-ignition ]; then
    skip "all of it" "$(cat ./no-ignition)"
    exit 0
fi

merged_at_boot() {
    is_merged
    systemctl show -P ExecStart systemd-sysext.service | grep -F -- "--image-policy=$policy"
    systemctl is-active cloudhv-sandbox-daemon.socket
}

containerd_started_once() {
    until_true 60 systemctl is-active containerd
    tr '\0' ' ' <"/proc/$(systemctl show -P MainPID containerd)/cmdline" | grep -F /run/cloudhv/containerd/config.toml
    [ "$(journalctl --no-pager -b -u containerd -o cat | grep -c 'containerd successfully booted')" = 1 ]
}

checked() {
    local found status=0
    found=$(cloudhvctl check) || status=$?
    echo "$found"
    [ "$status" = 0 ]
    if grep -qv -e '^ok ' -e '^This host can run pods' <<<"$found"; then return 1; fi
}

demo_runs() {
    DEMO_TIMEOUT=120 DEMO_CLIENT=ctr /usr/share/cloudhv/demo/demo.sh
    /usr/share/cloudhv/demo/demo.sh cleanup
}

if [ "$BOOT" = 1 ]; then
    tar -xf host.tar -C /
    allow_time
    while read -r unit; do systemctl enable "$unit"; done <host.enable
    echo kvm-amd >/etc/modules-load.d/kvm.conf # a host with a real processor does this by itself
    sync
    exit 100
fi
check "the image merges at boot, with the strict policy" merged_at_boot
check "containerd starts once, with the runtime" containerd_started_once
check "cloudhvctl check finds nothing that is missing" checked
check "the demo runs to its end" demo_runs
