/* SPDX-License-Identifier: MIT */
/*
 * What busybox can't do inside a container: die of a forced signal as PID 1 of its namespace, try
 * system calls that a seccomp profile or a missing capability blocks, fill memory, make many processes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *outcome(long r) {
    return r >= 0 ? "ok" : strerrorname_np(errno);
}

/* Each line: the call's name and ok or the error's name. Harmless where allowed. */
static int cmd_syscalls(void) {
    printf("keyctl %s\n", outcome(syscall(SYS_keyctl, 0, -3, 0, 0, 0)));
    printf("bpf %s\n", outcome(syscall(SYS_bpf, 9999, NULL, 0)));
    printf("mount %s\n", outcome(mount("none", "/nonexistent", "tmpfs", 0, NULL)));
    printf("getpid %s\n", outcome(syscall(SYS_getpid)));
    printf("mknod %s\n", outcome(mknod("/tmp/node", S_IFCHR | 0600, makedev(1, 3))));
    printf("chown %s\n", outcome(chown("/home", 1, 1)));
    return 0;
}

static int cmd_fill(size_t mib) {
    for (size_t i = 0; i < mib; i++) {
        char *p = malloc(1 << 20);
        if (!p)
            return 3;
        memset(p, (int) i + 1, 1 << 20);
    }
    printf("filled %zu\n", mib);
    return 0;
}

/* How many children can exist at once, up to n. */
static int cmd_forks(int n) {
    int made = 0;

    for (; made < n; made++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            pause();
            _exit(0);
        }
    }
    printf("forks %d %s\n", made, made < n ? strerrorname_np(errno) : "ok");
    signal(SIGTERM, SIG_IGN);
    fflush(stdout);
    kill(-1, SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}

/* Every byte value in a fixed pseudo-random order that the reader computes too, newlines included. */
static int cmd_bytes(size_t n) {
    unsigned x = 1;

    for (size_t i = 0; i < n; i++) {
        x = x * 1103515245u + 12345u;
        putchar_unlocked((int) ((x >> 16) & 0xff));
    }
    putchar('\n');
    return fflush(stdout) == 0 ? 0 : 1;
}

static int cmd_open(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC, 0600);
    printf("open %s %s\n", path, outcome(fd));
    return 0;
}

int main(int argc, char **argv) {
    const char *cmd = argc > 1 ? argv[1] : "";
    const char *arg = argc > 2 ? argv[2] : "0";

    if (strcmp(cmd, "segv") == 0)
        raise(SIGSEGV), *(volatile int *) 0 = 1;
    if (strcmp(cmd, "ill") == 0)
        __builtin_trap();
    if (strcmp(cmd, "syscalls") == 0)
        return cmd_syscalls();
    if (strcmp(cmd, "fill") == 0)
        return cmd_fill((size_t) atol(arg));
    if (strcmp(cmd, "forks") == 0)
        return cmd_forks(atoi(arg));
    if (strcmp(cmd, "bytes") == 0)
        return cmd_bytes((size_t) atol(arg));
    if (strcmp(cmd, "read") == 0)
        return cmd_open(arg, O_RDONLY);
    if (strcmp(cmd, "write") == 0)
        return cmd_open(arg, O_WRONLY);
    if (strcmp(cmd, "uid") == 0) {
        printf("Effective uid: %d\n", (int) geteuid());
        return 0;
    }
    fprintf(stderr, "probe: unknown command \"%s\"\n", cmd);
    return 64;
}
