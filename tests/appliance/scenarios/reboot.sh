#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A host with the image installed for good is switched off with a pod running: at the next boot all of it comes back
# by itself, and what the pod left is cleaned up.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

first_boot() {
    modprobe kvm-amd
    install_image
    echo kvm-amd >/etc/modules-load.d/kvm.conf
    systemctl enable systemd-sysext.service
    systemctl start systemd-sysext.service
    is_merged
    until_true 240 has_runtime
    import_image
    start_pod before
    exec_works before
}
has_runtime() { grep -rq cloudhv /run/cloudhv/containerd/config.toml && systemctl is-active containerd; }

comes_back() {
    is_merged
    systemctl is-active cloudhv-sandbox-daemon.socket containerd.service
    until_true 120 has_runtime
    [ "$(systemctl show -P NRestarts containerd)" = 0 ]
}
pod_is_gone() {
    until_true 60 no_task
    no_pod_vm
    ctr containers rm before
    if ctr snapshots ls | grep -w before; then return 1; fi
    find /var/lib/cloudhv /run/cloudhv
    [ -z "$(find /var/lib/cloudhv /run/cloudhv -name '*before*')" ]
}
no_task() { [ -z "$(ctr tasks ls -q)" ]; }
pods_run() {
    import_image
    start_pod after
    exec_works after
    remove_pod after
    until_true 20 no_pod_vm
}

if [ "$BOOT" = 1 ]; then
    check "a pod runs before the reboot" first_boot
    sync
    exit 100
fi
check "after a reboot all of it is back by itself" comes_back
check "the pod of before is cleaned up" pod_is_gone
check "pods start after the reboot" pods_run
