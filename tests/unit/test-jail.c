/* SPDX-License-Identifier: MIT */

/* A shell in the jail looks around. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"
#include "vmm/jail.h"

#define TEST_ID 1879048201

static char directory[] = "/tmp/test-jail-XXXXXX";

/* Runs a script in the jail and gives what it printed. */
static char *run(Jail *jail, const char *script)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int pidfd = -EBADF;
    struct pollfd p;
    char *output;
    int fds[2], status;
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    if (process_spawn(&(ProcessSpec){.argv = argv,
                                     .stdin_fd = -1,
                                     .stdout_fd = fds[1],
                                     .stderr_fd = fds[1],
                                     .prepare = jail_enter,
                                     .userdata = jail},
                      &pid, &pidfd, &e) < 0)
        fail_msg("%s", error_message(&e));
    close(fds[1]);
    assert_int_equal(fd_read_all(fds[0], 65536, &output, NULL), 0);
    close(fds[0]);
    p = (struct pollfd){.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(process_reap(pidfd, &status), 1);
    return output;
}

static void expect_output(Jail *jail, const char *script, const char *expected)
{
    _cleanup_free_ char *output = run(jail, script);

    assert_string_equal(output, expected);
}

static Jail jail_new(void)
{
    Jail jail;

    assert_int_equal(jail_init(&jail, TEST_ID, TEST_ID, NULL), 0);
    return jail;
}

static void add_proc(Jail *jail)
{
    static const JailFile file = {.source = "/proc", .target = "/proc"};

    assert_int_equal(jail_add_file(jail, &file, NULL), 0);
}

static void test_root(void **state)
{
    Jail jail = jail_new();
    _cleanup_free_ char *listing = run(&jail, "cd / && echo *");

    assert_null(strstr(listing, "root"));
    assert_null(strstr(listing, "tmp"));
    assert_null(strstr(listing, "proc"));
    assert_null(strstr(listing, "home"));
    assert_non_null(strstr(listing, "usr"));
    expect_output(&jail, "cd /dev && echo *", "null\n");
    expect_output(&jail, "cd /etc && echo *", "ld.so.cache\n");
    expect_output(&jail, "echo x >/dev/null && echo fine", "fine\n");
    expect_output(&jail, "for d in / /etc /dev /usr /usr/share; do touch $d/x 2>/dev/null && echo $d; done",
                  "");
    expect_output(&jail, "pwd", "/\n");
}

static void test_identity(void **state)
{
    Jail jail = jail_new();

    expect_output(&jail, "id -u; id -g; id -G", "1879048201\n1879048201\n1879048201\n");
    jail.device_gid = 4242;
    expect_output(&jail, "id -G", "1879048201 4242\n");
    jail.device_gid = JAIL_NO_GID;
    add_proc(&jail);
    expect_output(&jail, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t0' ' ' | tr -d '\\n'",
                  "CapInh: CapPrm: CapEff: CapBnd: CapAmb: NoNewPrivs: 1");
    expect_output(&jail, "ulimit -c; ulimit -Hc; umask", "0\n0\n0077\n");
    expect_output(&jail, "grep -c : /proc/net/dev", "1\n"); /* lo */
    expect_output(&jail, "read -r _ _ _ _ _ session _ </proc/$$/stat; test $session = $$ && echo leader",
                  "leader\n");
}

static void test_files(void **state)
{
    Jail jail = jail_new();
    char path[64], secret[64], script[256];

    snprintf(path, sizeof(path), "%s/file", directory);
    snprintf(secret, sizeof(secret), "%s/secret", directory);
    assert_int_equal(fs_write_file_atomic(path, "content\n", 8, 0666), 0);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(fs_write_file_atomic(secret, "content\n", 8, 0666), 0);
    assert_int_equal(jail_add_file(&jail, &(JailFile){.source = path, .target = "/kernel"}, NULL), 0);
    assert_int_equal(jail_add_file(&jail, &(JailFile){.source = path}, NULL), 0);
    assert_int_equal(
        jail_add_file(&jail, &(JailFile){.source = path, .target = "/w/able", .writable = true}, NULL), 0);
    assert_int_equal(jail_add_device(&jail, "/dev/zero", NULL), 0);
    snprintf(script, sizeof(script), "cat /kernel %s; test -e %s || echo hidden", path, secret);
    expect_output(&jail, script, "content\ncontent\nhidden\n");
    expect_output(&jail, "echo x 2>/dev/null >/kernel || echo refused", "refused\n");
    expect_output(&jail, "echo new >/w/able && cat /kernel", "new\n");
    expect_output(&jail, "head -c 3 /dev/zero | tr '\\0' 0", "000");
}

static void test_refused(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char path[64];
    Jail jail;
    int r = 0;

    assert_int_equal(jail_init(&jail, 0, 1, &e), -EINVAL);
    assert_int_equal(jail_init(&jail, 1, 0, &e), -EINVAL);
    jail = jail_new();
    assert_int_equal(jail_add_file(&jail, &(JailFile){.source = "relative"}, &e), -EINVAL);
    assert_int_equal(jail_add_file(&jail, &(JailFile){.source = "/a/../b"}, &e), -EINVAL);
    assert_int_equal(jail_add_file(&jail, &(JailFile){.source = "/a", .target = "/x/../../b"}, &e), -EINVAL);
    assert_int_equal(jail_add_device(&jail, "/dev/no-such", &e), -ENOENT);
    assert_int_equal(jail_add_device(&jail, "/etc/passwd", &e), -ENODEV);
    snprintf(path, sizeof(path), "%s/device", directory);
    assert_int_equal(mknod(path, S_IFCHR | 0600, makedev(1, 3)), 0);
    assert_int_equal(jail_add_device(&jail, path, &e), -EACCES);
    assert_non_null(strstr(error_message(&e), path));
    assert_int_equal(chmod(path, 0660), 0);
    assert_int_equal(chown(path, 0, 77), 0);
    assert_int_equal(jail_add_device(&jail, path, &e), 0);
    assert_int_equal(jail.device_gid, 77);
    for (int i = 0; i < 20 && r == 0; i++)
        r = jail_add_file(&jail, &(JailFile){.source = "/dev/null"}, &e);
    assert_int_equal(r, -E2BIG);
}

static void test_missing_file(void **state)
{
    const char *argv[] = {"/bin/true", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    Jail jail = jail_new();
    int pidfd;
    pid_t pid;

    assert_int_equal(jail_add_file(&jail, &(JailFile){.source = "/no/such/file"}, NULL), 0);
    assert_int_equal(process_spawn(&(ProcessSpec){.argv = argv,
                                                  .stdin_fd = -1,
                                                  .stdout_fd = -1,
                                                  .stderr_fd = -1,
                                                  .prepare = jail_enter,
                                                  .userdata = &jail},
                                   &pid, &pidfd, &e),
                     -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root),    cmocka_unit_test(test_identity),     cmocka_unit_test(test_files),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_missing_file),
    };
    int r;

    if (geteuid() != 0)
        return 77;
    if (!mkdtemp(directory))
        return 1;
    r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)fs_remove_tree(directory);
    return r;
}
