#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs a web server as a pod in a microVM of its own, asks it for a page over the pod's IP, and shows that its
# kernel is not the host's.
#
#   demo.sh [IMAGE-ARCHIVE | IMAGE]   run the demo; what it made stays, to be looked at
#   demo.sh cleanup                   remove all of it
#
# With an OCI archive nothing is fetched from a network. Uses crictl where it is installed, otherwise ctr and the
# CNI plugins. The environment may say where things are:
#   CONTAINERD_ADDRESS   containerd's socket (/run/containerd/containerd.sock)
#   CNI_BIN              the CNI plugins' directory
#   DEMO_TIMEOUT         seconds to wait for the server's first answer (60)
#   DEMO_CLIENT          crictl or ctr, to choose one
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
: "${CONTAINERD_ADDRESS:=/run/containerd/containerd.sock}" "${DEMO_TIMEOUT:=60}"
export CONTAINERD_ADDRESS
name=cloudhv-demo
runtime=io.containerd.cloudhv.v1
namespace=k8s.io # the one that crictl sees
state=/run/cloudhv-demo
network_namespace=/run/netns/$name

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}
now_ms() { date +%s%3N; }

# step TEXT COMMAND...: says what is done, does it, and says how long it took.
step() {
    local text=$1 start
    shift
    say "$text"
    start=$(now_ms)
    "$@"
    printf '   took %s ms\n' "$(($(now_ms) - start))"
}

client() {
    if [ -n "${DEMO_CLIENT:-}" ]; then
        echo "$DEMO_CLIENT"
    elif command -v crictl >/dev/null; then
        echo crictl
    else
        echo ctr
    fi
}

ctr_() { ctr --namespace "$namespace" "$@"; }
crictl_() { crictl --runtime-endpoint "unix://$CONTAINERD_ADDRESS" --timeout 300s "$@"; }

# http_get ADDRESS: the body of http://ADDRESS:80/ on standard output. Needs nothing but bash.
http_get() {
    exec 3<>"/dev/tcp/$1/80" || return 1
    printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" >&3
    sed '1,/^\r\{0,1\}$/d' <&3
    exec 3>&-
} 2>/dev/null

# wait_for_answer ADDRESS: asks until the server answers; a refused connection means that it is still starting.
wait_for_answer() {
    local deadline=$(($(now_ms) + DEMO_TIMEOUT * 1000)) page
    while true; do
        page=$(http_get "$1" || true)
        [ -z "$page" ] || break
        [ "$(now_ms)" -lt "$deadline" ] || die "no answer from http://$1/ within $DEMO_TIMEOUT seconds"
        sleep 0.05
    done
    printf '%s\n' "$page" | sed 's/^/   | /' | head -n 12
}

# The name under which containerd imports an archive: what ctr prints of it differs between releases.
image_name() {
    tar -xOf "$1" index.json |
        sed -n 's/.*"io.containerd.image.name": *"\([^"]*\)".*/\1/p; t; s/.*"org.opencontainers.image.ref.name": *"\([^"]*\)".*/\1/p'
}

get_image() {
    if [ -f "$1" ]; then
        ctr_ images import "$1" >/dev/null
        image=$(image_name "$1")
    else
        image=$1
        if ! ctr_ images ls -q | grep -qxF "$image"; then
            ctr_ images pull "$image" >/dev/null
        fi
    fi
    [ -n "$image" ] || die "there is no image in $1"
    echo "   image: $image"
    echo "$image" >"$state/image"
}

# ------------------------------------------------------------------------------------------------ with ctr

cni() { # cni ADD|DEL: runs the bridge plugin for the pod's network namespace
    CNI_COMMAND=$1 CNI_CONTAINERID=$name CNI_NETNS=$network_namespace CNI_IFNAME=eth0 CNI_PATH=$CNI_BIN \
        "$CNI_BIN/bridge" <"$here/bridge.json"
}

find_cni() {
    local directory
    if [ -z "${CNI_BIN:-}" ]; then
        for directory in /usr/lib/cloudhv/cni /opt/cni/bin /usr/libexec/cni /usr/lib/cni; do
            [ ! -x "$directory/bridge" ] || CNI_BIN=$directory
        done
    fi
    [ -n "${CNI_BIN:-}" ] || die "no CNI plugins found; set CNI_BIN"
}

make_network() {
    local result
    ip netns add "$name"
    result=$(cni ADD)
    address=$(printf '%s\n' "$result" | sed -n 's/.*"address": *"\([0-9.]*\)\/.*/\1/p' | head -n 1)
    [ -n "$address" ] || die "the CNI plugin gave no IPv4 address: $result"
    echo "   pod IP: $address"
}

run_with_ctr() {
    find_cni
    step "A network namespace for the pod, with CNI's bridge plugin" make_network
    step "The pod: a microVM, and the image's server in it" \
        ctr_ run --detach --null-io --runtime "$runtime" --with-ns "network:$network_namespace" "$image" "$name"
    step "A page from http://$address/" wait_for_answer "$address"
    say "Tasks of containerd"
    ctr_ tasks ls | sed 's/^/   /'
    step "A second pod, in a VM of its own, that prints its kernel's release" show_kernel_with_ctr
}

show_kernel_with_ctr() {
    local guest
    guest=$(ctr_ run --rm --runtime "$runtime" "$image" "$name-kernel" cat /proc/sys/kernel/osrelease)
    compare_kernels "$guest"
}

# ----------------------------------------------------------------------------------------------- with crictl

make_sandbox() {
    pod=$(crictl_ runp --runtime=cloudhv "$here/pod.json")
    echo "$pod" >"$state/pod"
    address=$(crictl_ inspectp "$pod" | sed -n 's/.*"ip": *"\([0-9.]*\)".*/\1/p' | head -n 1)
    echo "   pod $pod, IP $address"
}

# make_container SPEC: prints the id of the container that it started.
make_container() {
    local id
    id=$(crictl_ create "$pod" "$1" "$here/pod.json")
    crictl_ start "$id" >/dev/null
    echo "$id"
}

make_web() {
    container=$(make_container "$state/container.json")
    echo "   container $container"
}

run_with_crictl() {
    sed "s#@IMAGE@#$image#" "$here/container.json" >"$state/container.json"
    step "The pod sandbox: a microVM" make_sandbox
    step "The container in it" make_web
    step "A page from http://$address/" wait_for_answer "$address"
    say "The container's log"
    crictl_ logs "$container" 2>&1 | sed 's/^/   | /' | tail -n 5
    step "A second container in the pod's VM, that prints its kernel's release" show_kernel_with_crictl
}

show_kernel_with_crictl() {
    local id
    sed -e 's#"name": *"web"#"name": "kernel"#' -e 's#"log_path": *"web.log"#"log_path": "kernel.log"#' \
        -e 's#"linux": *{#"command": ["cat", "/proc/sys/kernel/osrelease"], "linux": {#' \
        "$state/container.json" >"$state/kernel.json"
    id=$(make_container "$state/kernel.json")
    while crictl_ ps -q --id "$id" | grep -q .; do sleep 0.1; done
    compare_kernels "$(crictl_ logs "$id")"
}

compare_kernels() {
    printf '   kernel of the pod:  %s\n   kernel of the host: %s\n' "$1" "$(uname -r)"
    [ "$1" != "$(uname -r)" ] || die "the pod runs on the host's kernel"
}

# --------------------------------------------------------------------------------------------------- cleanup

cleanup() {
    if [ -f "$state/pod" ]; then
        crictl_ rmp --force "$(cat "$state/pod")" >/dev/null
    fi
    ctr_ tasks kill --signal SIGKILL "$name" 2>/dev/null || true
    ctr_ tasks rm --force "$name" >/dev/null 2>&1 || true
    ctr_ containers rm "$name" "$name-kernel" >/dev/null 2>&1 || true
    if [ -e "$network_namespace" ]; then
        find_cni
        cni DEL || true
        ip netns del "$name"
    fi
    ip link del cloudhv-demo0 2>/dev/null || true
    if [ -f "$state/image" ]; then
        ctr_ images rm "$(cat "$state/image")" >/dev/null 2>&1 || true
    fi
    rm -rf "$state" "/var/log/pods/cloudhv-demo"
}

[ "$(id -u)" = 0 ] || die "must be run as root"
case ${1:-} in
cleanup)
    step "Removing what the demo made" cleanup
    exit 0
    ;;
-h | --help)
    sed -n '4,15s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

[ -S "$CONTAINERD_ADDRESS" ] || die "no containerd listens on $CONTAINERD_ADDRESS"
source_image=${1:-}
if [ -z "$source_image" ] && [ -f "$here/image.tar" ]; then
    source_image=$here/image.tar
fi
[ -n "$source_image" ] || source_image=docker.io/library/nginx:alpine
cleanup
mkdir -p "$state"
image='' address='' pod='' container=''
step "The image, from $source_image" get_image "$source_image"
if [ "$(client)" = crictl ]; then
    run_with_crictl
else
    run_with_ctr
fi
say "Done. To remove it all: $0 cleanup"
