# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Sourced by the scenarios, which run in the machine as root with what run.sh handed over in the current directory.
# OUT is where results go: one line a test, "ok NAME", "not ok NAME" or "skip NAME: REASON".

name=containerd-cloudhypervisor
# shellcheck disable=SC2034 # used by the scenarios
image=/var/lib/extensions/$name.raw
policy='root=signed+absent:usr=signed+absent'
# The machine may be slow: ctr itself would wait ten seconds.
ctr() { command ctr --connect-timeout 120s --namespace k8s.io "$@"; }

ok() { echo "ok $1" | tee -a "$OUT/results"; }
not_ok() { echo "not ok $1" | tee -a "$OUT/results"; }
skip() { echo "skip $1: $2" | tee -a "$OUT/results"; }

# check NAME COMMAND...: one test; what the command prints goes to the log.
check() {
    local test=$1
    shift
    printf -- '--- %s [%s s]\n' "$test" "$(cut -d ' ' -f 1 /proc/uptime)"
    # A subshell that no || follows: only there does set -e hold.
    set +e
    (
        set -e
        "$@"
    )
    local status=$?
    set -e
    if [ "$status" = 0 ]; then ok "$test"; else not_ok "$test"; fi
}

# until_true SECONDS COMMAND...: tries until the command succeeds.
until_true() {
    local deadline=$(($(date +%s) + $1))
    shift
    while ! "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || {
            echo "not within the time: $*"
            return 1
        }
        sleep 0.2
    done
}

# The host's side of an installation, as docs/install.md has it: certificate, strict policy, image.
trust_certificate() { # trust_certificate FILE
    mkdir -p /etc/verity.d
    cp "$1" /etc/verity.d/
}

set_policy() {
    mkdir -p /etc/systemd/system/systemd-sysext.service.d
    cat >/etc/systemd/system/systemd-sysext.service.d/10-policy.conf <<UNIT
[Service]
ExecStart=
ExecStart=systemd-sysext refresh --image-policy=$policy
ExecReload=
ExecReload=systemd-sysext refresh --image-policy=$policy
UNIT
    systemctl daemon-reload
    allow_time
}

# A VM in a machine that is emulated itself, beside others, takes its time.
allow_time() {
    mkdir -p /etc/cloudhv
    echo '{ "boot_timeout_secs": 180, "operation_timeout_secs": 120 }' | tee /etc/cloudhv/config.json >/etc/cloudhv/daemon.json
}

# The state file and the host's programs say what is merged.
is_merged() { systemd-sysext status --json=short | grep -q "$name"; }
is_not_merged() { ! is_merged; }

refresh() { systemd-sysext refresh --image-policy="$policy"; }

# Everything that an installation on a running host takes.
install_image() {
    mkdir -p /var/lib/extensions
    cp "./$name.raw" "$image"
    trust_certificate "./$name.crt"
    set_policy
}

# patched NAME: a copy of the image with the changes of NAME.patch, in /data/NAME.raw
patched() {
    local offset bytes copy=/data/$1.raw
    cp "./$name.raw" "$copy"
    while read -r offset bytes; do
        # shellcheck disable=SC2001,SC2059 # the format is the data
        printf "$(sed 's/../\\x&/g' <<<"$bytes")" | dd of="$copy" bs=4096 seek=$((offset / 4096)) conv=notrunc status=none
    done <"./$1.patch"
}

# A pod without a network that stays: start_pod NAME
start_pod() {
    ctr run --detach --null-io --runtime io.containerd.cloudhv.v1 "$(cat /run/test-image)" "$1" sleep 100000
}

import_image() {
    ctr images import /usr/share/cloudhv/demo/image.tar >/dev/null
    ctr images ls -q | sed -n 1p >/run/test-image
    [ -s /run/test-image ]
}

exec_works() { # exec_works POD
    [ "$(ctr tasks exec --exec-id "e$RANDOM" "$1" echo in the pod)" = "in the pod" ]
}

remove_pod() {
    ctr tasks kill --signal SIGKILL "$1" || true
    until_true 120 is_stopped "$1"
    ctr tasks rm "$1"
    ctr containers rm "$1"
}
is_stopped() { ctr tasks ls | awk -v id="$1" '$1 == id { print $3 }' | grep -qx STOPPED; }

vmm_pids() { pgrep -f '^/usr/lib/cloudhv/(qemu-system|cloud-hyp)' || true; }
no_pod_vm() { cloudhvctl status --json | grep -q '"sandboxes": \[\]'; } # those of the pool stay

# The errors and warnings of ours since boot.
our_complaints() {
    journalctl --no-pager -b -p warning -o cat \
        -t cloudhv-sandbox-daemon -t containerd-shim-cloudhv-v1 -t cloudhv-containerd-generator -t containerd-config |
        grep -v '^-- ' || true
}
