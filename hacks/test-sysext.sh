#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Boots the image in Flatcar and runs its demo there. Needs a network, for the bakery and Flatcar's image, and docker,
# which the bakery uses; where they are missing it says so and ends with 77. tests/appliance/ needs neither and is what
# hacks/test.sh runs.
#
#   hacks/test-sysext.sh [--bakery DIRECTORY]     a checkout of flatcar/sysext-bakery; otherwise it is cloned
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

: "${FLATCAR_TIMEOUT:=1200}" # seconds, download included
bakery=''
while [ $# -gt 0 ]; do
    case $1 in
    --bakery) bakery=${2:?--bakery needs a directory} && shift ;;
    *) die "usage: test-sysext.sh [--bakery DIRECTORY]" ;;
    esac
    shift
done

not_run() {
    say "not run: $*"
    exit 77
}

image=$top/build/containerd-cloudhypervisor.raw certificate=$top/build/containerd-cloudhypervisor.crt
[ -f "$image" ] || "$top/hacks/build-sysext.sh"
command -v docker >/dev/null || not_run "the bakery needs docker"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$bakery" ]; then
    bakery=$work/bakery
    git clone --quiet --depth 1 https://github.com/flatcar/sysext-bakery "$bakery" ||
        not_run "there is no network to fetch the bakery from"
fi
[ -x "$bakery/bakery.sh" ] || die "$bakery is no checkout of the bakery"
curl -fsSIL -o /dev/null https://alpha.release.flatcar-linux.net/ || not_run "there is no network to fetch Flatcar from"

# The demo runs by itself, and the machine ends with it: what it says is on the console.
"$top/hacks/make-ignition.sh" --certificate "$certificate" --butane "$top/butane/local.bu" >"$work/test.bu"
cat >>"$work/test.bu" <<'END'
    - name: cloudhv-test.service
      enabled: true
      contents: |
        [Unit]
        Wants=containerd.service network-online.target
        After=containerd.service network-online.target systemd-sysext.service
        [Service]
        Type=oneshot
        Environment=DEMO_TIMEOUT=300
        ExecStart=/bin/sh -c 'cloudhvctl check; if /usr/share/cloudhv/demo/demo.sh; then echo CLOUDHV-TEST-PASSED; fi'
        ExecStopPost=systemctl poweroff
        StandardOutput=journal+console
        StandardError=journal+console
        [Install]
        WantedBy=multi-user.target
END
(cd "$bakery" && timeout "$FLATCAR_TIMEOUT" ./bakery.sh boot "$image" --butane "$work/test.bu") </dev/null |
    tee "$work/console" || true
grep -q CLOUDHV-TEST-PASSED "$work/console" || die "the demo did not run to its end in Flatcar"
say "the demo ran to its end in Flatcar"
