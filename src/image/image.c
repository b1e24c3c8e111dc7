/* SPDX-License-Identifier: MIT */

#include "image/image.h"

#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/process.h"
#include "image/layers.h"
#include "image/work.h"

#define MESSAGE_MAX 2048

/* What the child sends, as one message with the descriptors attached: image, then scratch disk. */
typedef struct Answer {
    int number; /* 0, or the negative errno of a failure that `text` describes */
    bool cached, has_scratch;
    uint64_t size;
    char digest[65];
    char text[MESSAGE_MAX];                                                 /* of a failure */
    char image_path[PATH_MAX], scratch_path[PATH_MAX], upper_dir[PATH_MAX]; /* empty: none */
} Answer;

struct ImageJob {
    Loop *loop;
    pid_t pid;
    int pidfd, socket;
    LoopSource *socket_source, *timer;
    uint64_t timeout_usec;
    ImageDoneFn callback;
    void *userdata;
};

void image_result_clear(ImageResult *result)
{
    fd_close(result->image_fd);
    fd_close(result->scratch_fd);
    free(result->image_path);
    free(result->scratch_path);
    free(result->upper_dir);
    *result = IMAGE_RESULT_INIT;
}

/* ----------------------------------------------------------------------------------------------- child */

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ?: "");
}

static int send_answer(int fd, const Answer *answer, const ImageResult *result)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)answer, .iov_len = sizeof(*answer)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[2] = {result->image_fd, result->scratch_fd};
    size_t n = answer->number < 0 ? 0 : answer->has_scratch ? 2 : 1;

    if (n > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

_Noreturn static void child_main(const ImageConfig *config, const Layers *layers, const ImageScratch *scratch,
                                 int fd, pid_t parent)
{
    ImageResult result = IMAGE_RESULT_INIT;
    Error e = ERROR_INIT;
    Answer answer = {0};
    sigset_t none;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGTERM, SIG_DFL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent)
        _exit(1);
    answer.number = image_work(config, layers, scratch, &result, &e);
    if (answer.number < 0)
        copy_text(answer.text, sizeof(answer.text), error_message(&e));
    else {
        answer.cached = result.cached;
        answer.has_scratch = result.scratch_fd >= 0;
        answer.size = result.size;
        memcpy(answer.digest, result.digest, sizeof(answer.digest));
        copy_text(answer.image_path, sizeof(answer.image_path), result.image_path);
        copy_text(answer.scratch_path, sizeof(answer.scratch_path), result.scratch_path);
        copy_text(answer.upper_dir, sizeof(answer.upper_dir), result.upper_dir);
    }
    _exit(send_answer(fd, &answer, &result) < 0);
}

/* ---------------------------------------------------------------------------------------------- parent */

static void job_kill(ImageJob *job)
{
    if (job->pidfd < 0)
        return;
    (void)process_kill(job->pidfd, SIGKILL);
    while (waitpid(job->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    job->pidfd = fd_close(job->pidfd);
}

ImageJob *image_job_free(ImageJob *job)
{
    if (!job)
        return NULL;
    loop_source_free(job->socket_source);
    loop_source_free(job->timer);
    job_kill(job);
    fd_close(job->socket);
    free(job);
    return NULL;
}

/* Ends the job; the callback may free it. */
static void job_finish(ImageJob *job, ImageResult *result, const Error *e)
{
    job->socket_source = loop_source_free(job->socket_source);
    job->timer = loop_source_free(job->timer);
    job_kill(job); /* it has nothing left to do */
    job->callback(job, e ? NULL : result, e, job->userdata);
}

static int take_strings(const Answer *answer, ImageResult *result)
{
    struct {
        const char *from;
        char **to;
    } all[] = {{answer->image_path, &result->image_path},
               {answer->scratch_path, &result->scratch_path},
               {answer->upper_dir, &result->upper_dir}};

    for (size_t i = 0; i < ELEMENTSOF(all); i++) {
        if (!all[i].from[0])
            continue;
        *all[i].to = strdup(all[i].from);
        if (!*all[i].to)
            return -ENOMEM;
    }
    memcpy(result->digest, answer->digest, sizeof(result->digest));
    result->size = answer->size;
    result->cached = answer->cached;
    return 0;
}

/* Reads the child's message. Its descriptors are in `result` whatever the outcome. */
static int receive(int fd, Answer *answer, ImageResult *result)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = answer, .iov_len = sizeof(*answer)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        int fds[2] = {-EBADF, -EBADF};

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
        result->image_fd = fds[0];
        result->scratch_fd = fds[1];
    }
    if (n == 0)
        return -EPIPE; /* it died */
    return n == sizeof(*answer) ? 0 : -EPROTO;
}

static void on_answer(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    _cleanup_image_result_ ImageResult result = IMAGE_RESULT_INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ Answer *answer = calloc(1, sizeof(*answer));
    ImageJob *job = userdata;
    int r = answer ? receive(fd, answer, &result) : -ENOMEM;

    if (r >= 0 && answer->number < 0)
        r = error_set(&e, answer->number, "%s", answer->text);
    else if (r >= 0)
        r = take_strings(answer, &result);
    if (r == -EPIPE)
        error_set(&e, -EIO, "the process that prepares images has died");
    else if (r < 0 && e.number == 0)
        error_set_errno(&e, r, "cannot hear of a prepared image");
    job_finish(job, &result, r < 0 ? &e : NULL);
}

static void on_timeout(LoopSource *source, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ImageJob *job = userdata;

    error_set(&e, -ETIMEDOUT, "the image was not ready within %llu seconds (conversion_timeout_secs)",
              (unsigned long long)(job->timeout_usec / USEC_PER_SEC));
    job_finish(job, NULL, &e);
}

static int start_child(ImageJob *job, const ImageConfig *config, const Layers *layers,
                       const ImageScratch *scratch)
{
    pid_t parent = getpid();
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    job->pid = fork();
    if (job->pid == 0)
        child_main(config, layers, scratch, pair[1], parent);
    fd_close(pair[1]);
    job->socket = pair[0];
    if (job->pid < 0)
        return -errno;
    job->pidfd = (int)syscall(SYS_pidfd_open, job->pid, 0);
    if (job->pidfd < 0) {
        r = -errno;
        (void)kill(job->pid, SIGKILL);
        (void)waitpid(job->pid, NULL, 0);
        return r;
    }
    r = loop_add_io(job->loop, job->socket, EPOLLIN, on_answer, job, &job->socket_source);
    if (r >= 0)
        r = loop_add_timer(job->loop, job->timeout_usec, on_timeout, job, &job->timer);
    return r;
}

int image_prepare(Loop *loop, const ImageConfig *config, const ImageMount *mounts, size_t n_mounts,
                  const ImageScratch *scratch, ImageDoneFn callback, void *userdata, ImageJob **ret, Error *e)
{
    _cleanup_layers_ Layers layers = {0};
    ImageJob *job;
    int r;

    r = layers_parse(mounts, n_mounts, &layers, e);
    if (r < 0)
        return r;
    job = calloc(1, sizeof(*job));
    if (!job)
        return error_set_errno(e, -ENOMEM, "cannot prepare an image");
    *job = (ImageJob){.loop = loop,
                      .pidfd = -EBADF,
                      .socket = -EBADF,
                      .timeout_usec = config->timeout_usec,
                      .callback = callback,
                      .userdata = userdata};
    r = start_child(job, config, &layers, scratch);
    if (r < 0) {
        image_job_free(job);
        return error_set_errno(e, r, "cannot start a process that prepares an image");
    }
    *ret = job;
    return 0;
}
