#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes an OCI archive from Debian packages that are unpacked below a directory: see hacks/make-image.sh."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from oci_image import Layer, write_archive  # noqa: E402

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
NGINX = """\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 256; }
http {
    access_log /dev/stdout;
    default_type text/html;
    server {
        listen 80;
        listen [::]:80;
        root /var/www/html;
    }
}
"""
PAGE = """<!doctype html>
<title>cloudhv</title>
<h1>A page from inside a microVM</h1>
"""


def base(busybox, runnable):
    """Directories, users, and busybox under the names of all its applets, which `runnable`, that of this machine,
    tells."""
    layer = Layer()
    for name in ("dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin",
                 "var", "var/www"):
        layer.directory(name)
    layer.directory("tmp", 0o1777)
    for name in ("bin", "lib", "lib64", "sbin"):
        layer.symlink(name, f"usr/{name}")
    with open(busybox, "rb") as f:
        layer.file("usr/bin/busybox", f.read(), 0o755)
    applets = subprocess.run([runnable, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            layer.symlink(f"usr/bin/{applet}", "busybox")
    layer.file("etc/passwd", PASSWD).file("etc/group", GROUP)
    return layer


def main(kind, unpacked, out):
    environment = {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"}
    busybox = os.path.join(unpacked, "busybox", "usr/bin/busybox")
    native = os.path.join(unpacked, "native", "usr/bin/busybox")
    layers = [base(busybox, native if os.path.exists(native) else busybox)]
    if kind == "busybox":
        page = Layer().directory("var").directory("var/www").directory("var/www/html")
        layers.append(page.file("var/www/html/index.html", PAGE))
        config = {**environment, "Cmd": ["httpd", "-f", "-v", "-p", "80", "-h", "/var/www/html"]}
    else:
        layers.append(Layer().tree(os.path.join(unpacked, "libraries")))
        layers.append(Layer().tree(os.path.join(unpacked, "server")))
        top = Layer().directory("var").directory("var/www").directory("var/www/html")
        top.file("var/www/html/index.html", PAGE)
        top.directory("var/lib").directory("var/lib/nginx", 0o755).directory("var/log").directory("var/log/nginx")
        top.directory("etc").directory("etc/nginx").file("etc/nginx/nginx.conf", NGINX)
        layers.append(top)
        config = {**environment, "Entrypoint": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"}
    write_archive(out, f"localhost/cloudhv/{kind}:demo", [layer.bytes() for layer in layers], config)


if __name__ == "__main__":
    main(*sys.argv[1:])
