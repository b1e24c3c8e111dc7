# SPDX-License-Identifier: MIT
"""containerd's store deleted and filled again in another order: the same snapshot paths and numbers now hold other
content, and a cache that knows content by path gives a wrong file system."""

import os
import shutil


def test_wiped_and_refilled(node, runtime):
    node.import_image("one")
    with node.pod(runtime) as pod:
        assert pod.sh("cat /marker", image="one") == "one\n"
        assert pod.sh("cat /l24", image="layers") == "layer 24\n"
    node.remove_pods()
    node.stop()
    for name in ("root", "state"):
        shutil.rmtree(os.path.join(node.root, name))
    node.start()
    # Before, "pause" and "busybox" had the first numbers, and "one" came late.
    order = ["two", "layers", "odd", "pause"] + [n for n in node.images if n not in ("one", "two", "layers", "odd", "pause")]
    for name in order:
        node.import_image(name)
    with node.pod(runtime) as pod:
        assert pod.sh("cat /marker", image="two") == "two\n"
        assert pod.sh("cat /l24; ls -d /marker 2>/dev/null || true", image="layers") == "layer 24\n"
        assert pod.sh("ls -d /odd /marker /data 2>/dev/null || true", image="busybox") == ""
    node.remove_image(node.image_ref("two"))
