#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A signed image put onto a running host: it merges, its socket listens, the demo runs a pod with KVM and activates
# the daemon; and when it is unmerged, the host is as it was.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

prepare_kvm() {
    modprobe kvm-amd
    [ -c /dev/kvm ]
}

merges() {
    install_image
    systemctl start systemd-sysext
    systemd-sysext status
    is_merged
    [ -x /usr/bin/containerd-shim-cloudhv-v1 ]
}

is_dissected() { systemd-dissect --image-policy="$policy" --validate "$image" && systemd-dissect --mtree "$image" | head -n 5; }

units_are_valid() {
    local found
    found=$(systemd-analyze verify --man=no /usr/lib/systemd/system/cloudhv-* 2>&1)
    echo "$found"
    [ -z "$found" ]
    systemd-analyze security --no-pager cloudhv-sandbox-daemon.service | tail -n 1
}

has_runtime() { containerd_configuration | grep -q 'io.containerd.cloudhv.v1'; }

# What containerd that runs was given.
containerd_configuration() {
    local file
    file=$(tr '\0' '\n' <"/proc/$(systemctl show -P MainPID containerd)/cmdline" | sed -n '/^--config/{s/^--config=//;/^--config$/{n;};p;}')
    containerd ${file:+--config "$file"} config dump
}

socket_listens() {
    until_true 20 systemctl is-active cloudhv-sandbox-daemon.socket
    [ -S /run/cloudhv/daemon.sock ]
    [ "$(systemctl is-active cloudhv-sandbox-daemon.service)" = inactive ]
}

demo_runs() { DEMO_TIMEOUT=120 DEMO_CLIENT=ctr /usr/share/cloudhv/demo/demo.sh; }

vmm_uses_kvm() {
    local pid found=1
    for pid in $(vmm_pids); do
        tr '\0' ' ' <"/proc/$pid/cmdline"
        grep -E '^(Rss|Pss|Private_Dirty|Anonymous):' "/proc/$pid/smaps_rollup"
        find "/proc/$pid/fd" -lname 'anon_inode:kvm-vm*' | grep -q . || return 1
        found=0
    done
    return "$found"
}

daemon_is_active() { systemctl is-active cloudhv-sandbox-daemon.service; }

demo_cleans_up() {
    /usr/share/cloudhv/demo/demo.sh cleanup
    until_true 20 no_pod_vm
    [ -z "$(ctr tasks ls -q)" ]
    ! ip link show cloudhv-demo0 2>/dev/null
}

# Everything that could stay behind.
host_state() {
    systemctl list-units --all --plain --no-legend '*cloudhv*' | awk '$1 != "var-lib-cloudhv.mount" { print $1 }' # the machine's own
    systemctl list-unit-files --no-legend '*cloudhv*' || true # 1 where there is none
    grep cloudhv /proc/self/mountinfo | cut -d ' ' -f 5 | grep -v -e '^/data' -e '^/var/lib/cloudhv$' || true
    pgrep -fa 'cloudhv-sandbox|containerd-shim-cloudhv|/usr/lib/cloudhv' || true
    command -v containerd-shim-cloudhv-v1 || true
}

# docs/install.md, "Removal".
removal() {
    rm "$image"
    systemctl reload systemd-sysext.service
    is_not_merged
    # One that was never started is not known any more.
    systemctl stop cloudhv-containerd.service cloudhv-sandbox-daemon.socket cloudhv-sandbox-daemon.service || true
    systemctl restart containerd.service
    rm -rf /run/cloudhv /var/lib/cloudhv/*
    host_state >"$OUT/left"
    cat "$OUT/left"
    [ ! -s "$OUT/left" ]
}

# A configuration that somebody has cared for, in the version that this containerd writes.
configure_host() {
    local version plugin
    version=$(containerd config default | sed -n 's/^version = //p')
    plugin=io.containerd.cri.v1.runtime registry=io.containerd.cri.v1.images
    if [ "$version" = 2 ]; then plugin=io.containerd.grpc.v1.cri registry=$plugin; fi
    mkdir -p /etc/containerd/certs.d /etc/systemd/system/containerd.service.d
    cat >/etc/containerd/config.toml <<TOML
version = $version
[plugins."$registry".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."$plugin".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."$plugin".containerd.runtimes.runc.options]
    SystemdCgroup = true
[plugins."$plugin".containerd.runtimes.other]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = ["example.org/*"]
TOML
    printf '[Service]\nEnvironment=OF_THE_HOST=1\n' >/etc/systemd/system/containerd.service.d/20-host.conf
    systemctl daemon-reload
    systemctl restart containerd
    containerd_configuration >"$OUT/config-before"
    grep -q 'SystemdCgroup = true' "$OUT/config-before"
}

# Our runtime's table is what the configuration has more, and nothing is missing.
configuration_is_kept() {
    containerd_configuration >"$OUT/config-merged"
    diff "$OUT/config-before" "$OUT/config-merged" >"$OUT/config.diff" || true
    cat "$OUT/config.diff"
    if grep '^<' "$OUT/config.diff" | grep -v '^< imports = '; then return 1; fi
    grep -q '^> .*cloudhv' "$OUT/config.diff"
    tr '\0' '\n' <"/proc/$(systemctl show -P MainPID containerd)/environ" | grep -qx OF_THE_HOST=1
}

containerd_as_before() {
    until_true 30 systemctl is-active containerd
    containerd_configuration >"$OUT/config-after"
    diff "$OUT/config-before" "$OUT/config-after"
}

no_complaints() {
    local found
    found=$(our_complaints)
    [ -z "$found" ] || {
        echo "$found"
        return 1
    }
}

check "KVM is there" prepare_kvm
until_true 60 systemctl is-active containerd
check "the host has a configuration of its own" configure_host
check "a signed image merges at run time" merges
check "systemd-dissect accepts the image" is_dissected
check "systemd-analyze finds nothing wrong with the units" units_are_valid
check "the socket listens, the daemon does not run yet" socket_listens
check "containerd has the runtime" until_true 240 has_runtime
check "the host's configuration is kept" configuration_is_kept
check "the demo runs to its end" demo_runs
check "its VMM uses KVM" vmm_uses_kvm
check "the first pod activated the daemon" daemon_is_active
check "the journal has no error and no warning of ours" no_complaints
check "demo.sh cleanup leaves nothing" demo_cleans_up
check "removal leaves no unit, mount or process" removal
check "containerd is as before" containerd_as_before
