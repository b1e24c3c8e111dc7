#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The scenario `demo` with containerd 2.
set -euo pipefail
# shellcheck source=../guest/lib.sh
. ./lib.sh

if [ -f ./no-containerd ]; then
    skip "all of it" "$(cat ./no-containerd)"
    exit 0
fi
systemctl stop containerd
cp ./containerd/* /usr/bin/
containerd --version
# Debian's file is of another version.
rm -f /etc/containerd/config.toml
systemctl start containerd
exec ./demo.sh
