/* SPDX-License-Identifier: MIT */

/* Takes the place of mkfs.erofs in the tests of its confinement: static, since it finds no libraries there.
 * What is in the file "view/do" says what it does: nothing, "fail", "sleep", "grow"; otherwise it writes to
 * the output what it sees and may do, one finding a line. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(FILE *out, const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *de;
    char *names[64];
    size_t n = 0;

    fprintf(out, "%s:", path);
    while (dir && (de = readdir(dir)) && n < 64)
        if (de->d_name[0] != '.')
            names[n++] = strdup(de->d_name);
    qsort(names, n, sizeof(names[0]), compare);
    for (size_t i = 0; i < n; i++)
        fprintf(out, " %s", names[i]);
    fprintf(out, "\n");
}

static const char *outcome(int r)
{
    return r < 0 ? strerrorname_np(errno) : "ok";
}

static unsigned long long capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) < 0)
        return ~0ULL;
    return (unsigned long long)data[1].effective << 32 | data[0].effective;
}

static const char *loopback(void)
{
    struct ifreq ifr = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
        return "none";
    return ifr.ifr_flags & IFF_UP ? "up" : "down";
}

static int report(const char *path)
{
    FILE *out = fopen(path, "w");
    struct rlimit limit;
    char text[64] = "";
    int fd;

    if (!out)
        return 1;
    list(out, "/");
    list(out, "/view");
    fprintf(out, "uid %u gid %u groups %i\n", getuid(), getgid(), getgroups(0, NULL));
    fprintf(out, "capabilities %llx\n", capabilities());
    fprintf(out, "no-new-privileges %i\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    fprintf(out, "loopback %s\n", loopback());
    getrlimit(RLIMIT_FSIZE, &limit);
    fprintf(out, "file-size %llu\n", (unsigned long long)limit.rlim_cur);
    getrlimit(RLIMIT_CORE, &limit);
    fprintf(out, "core %llu\n", (unsigned long long)limit.rlim_cur);
    fprintf(out, "write to view %s\n", outcome(open("/view/new", O_WRONLY | O_CREAT, 0600)));
    fprintf(out, "write to root %s\n", outcome(open("/new", O_WRONLY | O_CREAT, 0600)));
    fprintf(out, "write to program %s\n", outcome(open("/mkfs.erofs", O_WRONLY)));
    fprintf(out, "mount %s\n", outcome(mount("tmpfs", "/tmp", "tmpfs", 0, NULL)));
    fd = open("/view/secret", O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
        text[strcspn(text, "\n")] = 0;
    fprintf(out, "secret %s\n", fd < 0 ? strerrorname_np(errno) : text);
    return fclose(out) == 0 ? 0 : 1;
}

static int grow(const char *path)
{
    static char block[65536];
    int fd = open(path, O_WRONLY);

    while (write(fd, block, sizeof(block)) > 0)
        continue;
    return 1;
}

int main(int argc, char **argv)
{
    FILE *f = fopen("/view/do", "r");
    char what[16] = "";

    if (f && !fgets(what, sizeof(what), f))
        what[0] = 0;
    if (argc < 3)
        return 2;
    if (strcmp(what, "fail") == 0) {
        fprintf(stderr, "first words\nno luck with %s\n\n", argv[argc - 1]);
        return 3;
    }
    if (strcmp(what, "sleep") == 0)
        for (;;)
            pause();
    if (strcmp(what, "grow") == 0)
        return grow(argv[argc - 2]);
    return report(argv[argc - 2]);
}
