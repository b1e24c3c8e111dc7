# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # top comes from common.sh
# Sourced: a node for a demo or a measurement on this machine, apart from any containerd that it runs already:
# a private containerd and a private cloudhv-sandbox-daemon below one directory.

node_pids=()

# node_start DIRECTORY BUILD GUEST: starts both, with the programs of BUILD and the guest in GUEST. NODE_QEMU is another
# QEMU than Debian's; one that has templates may have a pool of NODE_POOL_SIZE.
node_start() {
    local directory=$1 build=$2 guest=$3 tools
    tools=$("$top/hacks/build-tools.sh")
    mkdir -p "$directory"/{bin,config}
    ln -s "$build/src/shim/containerd-shim-cloudhv-v1" "$directory/bin/"
    cat >"$directory/containerd.toml" <<TOML
version = 2
root = "$directory/root"
state = "$directory/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$directory/containerd.sock"
[timeouts]
  "io.containerd.timeout.shim.cleanup" = "30s"
  "io.containerd.timeout.shim.load" = "30s"
  "io.containerd.timeout.shim.shutdown" = "30s"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$directory/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.cloudhv]
  runtime_type = "io.containerd.cloudhv.v1"
  pod_annotations = ["io.cloudhv.*", "io.katacontainers.*"]
  container_annotations = ["io.cloudhv.*", "io.katacontainers.*"]
TOML
    node_configuration "$directory" "$guest" "$tools" '"pool_size": '"${NODE_POOL_SIZE:-0}"', "templates_dir": "'"$directory"'/templates", "socket_path": "'"$directory"'/daemon.sock", "state_dir": "'"$directory"'/daemon"' \
        >"$directory/config/daemon.json"
    node_configuration "$directory" "$guest" "$tools" '"daemon_socket": "'"$directory"'/daemon.sock", "erofs_cache_dir": "'"$directory"'/erofs-cache", "mkfs_erofs_binary": "'"$tools"'/mkfs.erofs"' \
        >"$directory/config/config.json"
    export CLOUDHV_CONFIG_DIR=$directory/config
    "$build/src/daemon/cloudhv-sandbox-daemon" 2>"$directory/daemon.log" &
    node_pids+=($!)
    PATH=$directory/bin:$PATH containerd --config "$directory/containerd.toml" 2>"$directory/containerd.log" &
    node_pids+=($!)
    node_wait_for "$directory/daemon.sock"
    node_wait_for "$directory/containerd.sock"
}

# What shapes a VM, and the fields of $4. Emulation is allowed: a demo must run where there is no KVM.
node_configuration() {
    cat <<JSON
{
  "vmm": "qemu", "qemu_binary": "${NODE_QEMU:-/usr/bin/qemu-system-x86_64}", "allow_emulation": true,
  "kernel_path": "$2/vmlinux", "rootfs_path": "$2/rootfs.erofs",
  "boot_timeout_secs": 120, "operation_timeout_secs": 60, "log_level": "${NODE_LOG_LEVEL:-info}",
  $4
}
JSON
}

node_wait_for() {
    local socket=$1 i
    for ((i = 0; i < 300; i++)); do
        [ ! -S "$socket" ] || return 0
        sleep 0.1
    done
    die "nothing listens on $socket after 30 seconds"
}

node_show_logs() {
    local log
    for log in "$1"/*.log; do
        [ -f "$log" ] || continue
        printf -- '--- %s\n' "$log" >&2
        tail -n 40 "$log" >&2
    done
}

# Ends both; VMs have gone with their pods.
node_stop() {
    local pid
    for pid in "${node_pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    node_pids=()
}
