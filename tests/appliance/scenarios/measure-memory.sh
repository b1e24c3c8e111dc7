#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A measurement, which CI does not make: what an idle pod costs in private memory with the image's own QEMU and with
# Debian's, with the same guest, driver and arguments, under KVM.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

starts() {
    modprobe kvm-amd
    tar -xf qemu.tar -C / --keep-directory-symlink
    ldconfig
    /usr/bin/qemu-system-x86_64 --version
    cat /sys/kernel/mm/transparent_hugepage/enabled
    install_image
    systemctl start systemd-sysext.service
    is_merged
    until_true 240 systemctl is-active cloudhv-sandbox-daemon.socket
    # It restarts containerd, where it has to.
    until_true 240 systemctl is-active cloudhv-containerd.service
    until_true 240 systemctl is-active containerd
    import_image
}

# Memory that is the VMM's alone. Guest memory is the mapping of the guest's size, the rest is the program's own.
private_memory() { # private_memory PID
    awk '/^[0-9a-f]+-[0-9a-f]+ / { name = $6 }
        /^Size:/ { size = $2 }
        /^Private_(Clean|Dirty):/ { if (size >= 65536 && name == "") guest += $2; else own += $2 }
        /^Private_Dirty:/ { if (!(size >= 65536 && name == "")) dirty += $2 }
        /^Pss:/ { if (!(size >= 65536 && name == "")) pss += $2 }
        /^AnonHugePages:/ { if (!(size >= 65536 && name == "")) huge += $2 }
        END { printf "own private %d KiB (dirty %d, of it huge pages %d), own Pss %d KiB, guest memory %d KiB\n",
              own, dirty, huge, pss, guest }' \
        "/proc/$1/smaps"
}

measure() { # measure NAME PROGRAM
    local pod pid
    printf '{ "vmm": "qemu", "qemu_binary": "%s", "boot_timeout_secs": 180 }\n' "$2" >/etc/cloudhv/daemon.json
    systemctl restart cloudhv-sandbox-daemon.service
    for pod in "$1-1" "$1-2" "$1-3"; do start_pod "$pod"; done
    sleep 10
    for pid in $(pgrep -f "^$2"); do
        echo "$1: $(private_memory "$pid")" | tee -a "$OUT/memory"
        grep -E '^(Rss|Pss|Private_Clean|Private_Dirty):' "/proc/$pid/smaps_rollup"
    done
    for pod in "$1-1" "$1-2" "$1-3"; do remove_pod "$pod"; done
    [ "$(grep -c "^$1: " "$OUT/memory")" = 3 ]
}

check "both QEMUs are there" starts
check "the image's own" measure image /usr/lib/cloudhv/qemu-system-x86_64
check "Debian's" measure debian /usr/bin/qemu-system-x86_64
cat "$OUT/memory"
