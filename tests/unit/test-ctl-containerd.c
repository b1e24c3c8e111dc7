/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "ctl/containerd.h"

#define ARGUMENTS(text) text, sizeof(text)

static void test_config_argument(void **state)
{
    assert_null(containerd_config_argument(ARGUMENTS("/usr/bin/containerd")));
    assert_string_equal(containerd_config_argument(ARGUMENTS("containerd\0--config\0/a")), "/a");
    assert_string_equal(containerd_config_argument(ARGUMENTS("containerd\0--config=/a")), "/a");
    assert_string_equal(containerd_config_argument(ARGUMENTS("containerd\0-c\0/a\0--log-level\0debug")),
                        "/a");
    /* The last one counts. */
    assert_string_equal(containerd_config_argument(ARGUMENTS("containerd\0--config\0/a\0--config\0/b")),
                        "/b");
    assert_null(containerd_config_argument(ARGUMENTS("containerd\0--configuration\0/a")));
    assert_null(containerd_config_argument("containerd\0--config", sizeof("containerd\0--config")));
    assert_null(containerd_config_argument("", 0));
}

static void test_dumps(void **state)
{
    static const char old_dump[] =
        "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n"
        "        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.cloudhv]\n"
        "          pod_annotations = [\"io.cloudhv.*\"]\n"
        "          runtime_type = \"io.containerd.cloudhv.v1\"\n"
        "          [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.cloudhv.options]\n"
        "        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n";
    static const char new_dump[] =
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'cloudhv']\n"
        "  runtime_type = 'io.containerd.runc.v2'\n  pod_annotations = []\n"
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.other]\n"
        "  runtime_type = 'io.containerd.cloudhv.v1'\n  pod_annotations = ['io.cloudhv.*']";
    ContainerdRuntime r = containerd_dump_runtime(old_dump, "cloudhv");

    assert_true(r.cri && r.found && r.type_ours && r.annotations);
    r = containerd_dump_runtime(new_dump, "cloudhv");
    assert_true(r.cri && r.found && !r.type_ours && !r.annotations);
    r = containerd_dump_runtime(new_dump, "cloud");
    assert_true(r.cri && !r.found && !r.type_ours);
    r = containerd_dump_runtime(new_dump, "other");
    assert_true(r.found && r.type_ours && r.annotations);
    r = containerd_dump_runtime("version = 2\n[plugins]\n  [plugins.\"io.containerd.gc.v1.scheduler\"]\n",
                                "cloudhv");
    assert_false(r.cri || r.found);
    r = containerd_dump_runtime("", "cloudhv");
    assert_false(r.cri || r.found);
}

/* Any process that listens is one: here this test itself. */
static void test_find(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_containerd_ Containerd c = {0};
    _cleanup_close_ int fd = -EBADF;
    char path[] = "/tmp/test-ctl-containerd.XXXXXX";

    assert_non_null(mkdtemp(path));
    assert_int_equal(containerd_find("/tmp/no/such.sock", &c, &e), -ENOENT);
    assert_non_null(strstr(error_message(&e), "/tmp/no/such.sock"));
    assert_int_equal(rmdir(path), 0);
    fd = fd_listen_unix(path, 0600);
    assert_true(fd >= 0);
    assert_int_equal(containerd_find(path, &c, &e), 0);
    assert_int_equal(c.pid, getpid());
    assert_non_null(strstr(c.binary, "test-ctl-containerd"));
    assert_null(c.config);
    assert_false(c.has_dropin);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_argument),
        cmocka_unit_test(test_dumps),
        cmocka_unit_test(test_find),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
