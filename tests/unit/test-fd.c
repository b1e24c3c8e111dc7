/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"

static void test_close(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    errno = EXDEV;
    assert_int_equal(fd_close(fd), -EBADF);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    errno = EXDEV;
    assert_int_equal(fd_close(-1), -EBADF);
    assert_int_equal(errno, EXDEV);
}

static void test_read_write(void **state)
{
    char buffer[20] = "";
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(fd_write_full(fds[1], "0123456789", 10), 0);
    assert_int_equal(fd_read_full(fds[0], buffer, 4), 4);
    assert_string_equal(buffer, "0123");
    fds[1] = fd_close(fds[1]);
    assert_int_equal(fd_read_full(fds[0], buffer, sizeof(buffer)), 6);
    assert_int_equal(fd_read_full(fds[0], buffer, sizeof(buffer)), 0);
    assert_int_equal(fd_write_full(fds[0], "x", 1), -EBADF);
    fd_close(fds[0]);
    assert_int_equal(fd_read_full(fds[0], buffer, 1), -EBADF);
}

static void test_read_all(void **state)
{
    char *text = NULL, *large;
    size_t n = 77;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    large = calloc(1, 10000);
    memset(large, 'x', 9999);
    assert_int_equal(fd_write_full(fds[1], large, 9999), 0);
    fds[1] = fd_close(fds[1]);
    assert_int_equal(fd_read_all(fds[0], 9999, &text, &n), 0);
    assert_int_equal(n, 9999);
    assert_string_equal(text, large);
    free(text);
    assert_int_equal(fd_read_all(fds[0], 9999, &text, NULL), 0);
    assert_string_equal(text, "");
    free(text);
    fd_close(fds[0]);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(fd_write_full(fds[1], large, 9999), 0);
    fds[1] = fd_close(fds[1]);
    text = NULL;
    assert_int_equal(fd_read_all(fds[0], 9998, &text, &n), -EFBIG);
    assert_null(text);
    fd_close(fds[0]);
    free(large);
}

static void test_flags(void **state)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    assert_int_equal(fd_set_nonblock(fd, true), 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fd_set_nonblock(fd, false), 0);
    assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fd_set_cloexec(fd, false), 0);
    assert_false(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(fd_set_cloexec(fd, true), 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    fd_close(fd);
    assert_int_equal(fd_set_nonblock(fd, true), -EBADF);
    assert_int_equal(fd_set_cloexec(fd, true), -EBADF);
}

static void test_unix_sockets(void **state)
{
    char directory[] = "/tmp/test-fd.XXXXXX", path[64], longer[200];
    struct stat st;
    mode_t before;
    int fd, client;

    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/socket", directory);
    assert_int_equal(fd_connect_unix(path), -ENOENT);
    before = umask(0);
    fd = fd_listen_unix(path, 0600);
    assert_true(fd >= 0);
    /* The mode holds whatever the umask was, and the umask is as before. */
    assert_int_equal(umask(before), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC && fcntl(fd, F_GETFL) & O_NONBLOCK);
    client = fd_connect_unix(path);
    assert_true(client >= 0);
    assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC && fcntl(client, F_GETFL) & O_NONBLOCK);
    fd_close(client);
    fd_close(fd);
    /* Nobody listens any more; a stale socket gives way. */
    assert_int_equal(fd_connect_unix(path), -ECONNREFUSED);
    fd = fd_listen_unix(path, 0660);
    assert_true(fd >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    fd_close(fd);
    memset(longer, 'x', sizeof(longer));
    longer[0] = '/';
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(fd_listen_unix(longer, 0600), -ENAMETOOLONG);
    assert_int_equal(fd_connect_unix(longer), -ENAMETOOLONG);
    snprintf(longer, sizeof(longer), "%s/none/socket", directory);
    assert_int_equal(fd_listen_unix(longer, 0600), -ENOENT);
    assert_int_equal(fs_remove_tree(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_close), cmocka_unit_test(test_read_write),   cmocka_unit_test(test_read_all),
        cmocka_unit_test(test_flags), cmocka_unit_test(test_unix_sockets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
