# SPDX-License-Identifier: MIT
"""containerd's store deleted and filled again: the same snapshot paths and numbers now hold other content, and a cache
that knows content by path gives a wrong file system."""

import os
import shutil


def refill(node, order):
    node.remove_pods()
    node.stop()
    for name in ("root", "state"):
        shutil.rmtree(os.path.join(node.root, name))
    node.start()
    for name in order:
        node.import_image(name)


def test_wiped_and_refilled(node, runtime):
    usual = [n for n in node.images if n not in ("one", "two")]
    refill(node, usual + ["one"])
    with node.pod(runtime) as pod:
        assert pod.sh("cat /marker", image="one") == "one\n"
        assert pod.sh("cat /l24", image="layers") == "layer 24\n"
    # Layer for layer the paths of "one".
    refill(node, usual + ["two"])
    with node.pod(runtime) as pod:
        assert pod.sh("cat /marker", image="two") == "two\n"
        assert pod.sh("cat /l24", image="layers") == "layer 24\n"
    refill(node, ["two", "layers", "odd", "pause"] + [n for n in usual if n not in ("layers", "odd", "pause")])
    with node.pod(runtime) as pod:
        assert pod.sh("cat /marker", image="two") == "two\n"
        assert pod.sh("cat /l24; ls -d /marker 2>/dev/null || true", image="layers") == "layer 24\n"
        assert pod.sh("ls -d /odd /marker /data 2>/dev/null || true", image="busybox") == ""
    node.remove_image(node.image_ref("two"))
