#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the CNI plugins of the system extension as one static program, from Debian 13's source packages and with
# its Go compiler, unpacked and not installed. Apart they are 3 to 4 MB each, of which most is the same. Prints the
# directory that holds `cni`, to be linked to under each plugin's name, and `names`. Cached by the sources' checksums
# and by this recipe. CLOUDHV_ARCH=arm64 is all that Go needs to compile for it.
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"

case $arch in
x86-64) export GOARCH=amd64 ;;
arm64) export GOARCH=arm64 ;;
*) die "cannot compile for $arch" ;;
esac
suite=trixie
plugins=(main/bridge main/loopback ipam/host-local meta/portmap)
source_package=golang-github-containernetworking-plugins
libraries=(golang-golang-x-sys-dev golang-github-alexflint-go-filemutex-dev golang-github-appc-cni-dev
    golang-github-coreos-go-iptables-dev golang-github-safchain-ethtool-dev golang-github-vishvananda-netns-dev
    golang-github-vishvananda-netlink-dev golang-github-networkplumbing-go-nft-dev golang-github-mattn-go-shellwords-dev)
path=github.com/containernetworking/plugins

private_apt() { "$top/hacks/lib/apt-private.sh" "$suite" "$@"; }

get_sources() {
    private_apt source --download-only -qq "$source_package" >/dev/null
    dpkg-source --no-check -x "$source_package"_*.dsc source >/dev/null # apt has checked the signature
    private_apt download -qq "${libraries[@]}" golang-1.24-go golang-1.24-src
    for deb in *.deb; do dpkg-deb -x "$deb" root; done
    mkdir -p "root/usr/share/gocode/src/$path"
    cp -r source/. "root/usr/share/gocode/src/$path/"
}

# Each plugin is a package main of its own; as packages of other names they can stand side by side in one program.
join_plugins() {
    local plugin name
    mkdir -p "$1/joined"
    {
        printf 'package main\n\nimport (\n\t"fmt"\n\t"os"\n\t"path/filepath"\n\n'
        for plugin in "${plugins[@]}"; do printf '\t%s "%s/plugins/%s"\n' "$(package_of "$plugin")" "$path" "$plugin"; done
        printf ')\n\nfunc main() {\n\tswitch filepath.Base(os.Args[0]) {\n'
        for plugin in "${plugins[@]}"; do printf '\tcase "%s":\n\t\t%s.Main()\n' "${plugin#*/}" "$(package_of "$plugin")"; done
        printf '\tdefault:\n\t\tfmt.Fprintln(os.Stderr, "cni: to be called by the name of a plugin")\n\t\tos.Exit(1)\n\t}\n}\n'
    } >"$1/joined/main.go"
    for plugin in "${plugins[@]}"; do
        name=$(package_of "$plugin")
        rm -f "$1/plugins/$plugin"/*_test.go
        sed -i -e "s/^package main$/package $name/" -e 's/^func main() {$/func Main() {/' "$1/plugins/$plugin"/*.go
    done
}

package_of() {
    local name=${1#*/}
    echo "${name//-/}"
}

build() {
    local out=$1 work version
    work=$(mktemp -d "$cache/cni-build.XXXXXX")
    # shellcheck disable=SC2064 # now, while the variable is in scope
    trap "chmod -R u+w '$work'; rm -rf '$work'" EXIT
    cd "$work"
    say "getting the CNI plugins' sources and a Go compiler"
    get_sources
    version=$(sed -n 's/^Version: //p' "$source_package"_*.dsc | head -n 1)
    join_plugins "root/usr/share/gocode/src/$path"
    say "compiling the CNI plugins $version"
    (
        cd "root/usr/share/gocode/src/$path"
        export GOROOT=$work/root/usr/lib/go-1.24 GOPATH=$work/root/usr/share/gocode GOCACHE=$work/gocache
        export GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local CGO_ENABLED=0 GOPROXY=off
        nice "$GOROOT/bin/go" build -p "$JOBS" -trimpath -buildvcs=false \
            -ldflags "-s -w -buildid= -X $path/pkg/utils/buildversion.BuildVersion=v${version%%+*}" -o "$out/cni" ./joined
    )
    for plugin in "${plugins[@]}"; do echo "${plugin#*/}"; done >"$out/names"
    mkdir "$out/licenses"
    cp source/debian/copyright "$out/licenses/containernetworking-plugins"
    for package in "${libraries[@]}" golang-1.24-src; do
        cp "root/usr/share/doc/$package/copyright" "$out/licenses/$package"
    done
    echo "$source_package $version" >"$out/version"
    # shellcheck disable=SC2016 # dpkg's own variables
    for deb in *.deb; do
        dpkg-deb --show --showformat '${Package} ${Version} ${source:Package} ${source:Version}\n' "$deb"
    done >"$out/packages"
    cd /
    chmod -R u+w "$work"
    rm -rf "$work"
    trap - EXIT
}

need_packages dpkg-dev
sources=$(private_apt source --print-uris -qq "$source_package" | sed "s/^'[^']*' //")
[ -n "$sources" ] || die "the sources of $source_package cannot be had from suite $suite"
cached "cni$suffix" "$(content_key "$sources" "$0")" build
