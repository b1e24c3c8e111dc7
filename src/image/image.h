/* SPDX-License-Identifier: MIT */
#pragma once

/* Root file systems of containers as erofs images.
 *
 * image_prepare() takes the mounts that containerd's snapshotter gave for a container and ends with a
 * descriptor of a read-only erofs image with the same content, from the cache or converted now. Key of the
 * cache is the identity of each lower directory (layers.h), never a tag, a name or a path alone; what was
 * written to the upper directory before makes the image a private one, which is never cached.
 *
 * All of the work is done in a forked child, whose pidfd the loop watches, so that waiting for another
 * process that converts the same image, hashing and converting block nobody. The child, and the confined
 * mkfs.erofs below it, are killed when the deadline passes, when the job is freed, and when this process
 * dies. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/loop.h"

/* A mount as containerd gives it: of type "overlay" (options lowerdir=, upperdir=, workdir=) or
 * "bind"/"rbind" (source and options ro, rw). */
typedef struct ImageMount {
    const char *type;
    const char *source;
    const char *const *options;
    size_t n_options;
} ImageMount;

/* Strings stay the caller's and must live as long as the job. */
typedef struct ImageConfig {
    const char *cache_dir;  /* made if missing, 0700 */
    uint64_t cache_max;     /* bytes of all images together */
    uint64_t image_max;     /* bytes of one image */
    const char *mkfs_erofs; /* absolute path, statically linked, 1.8 or later */
    const char *mke2fs;     /* absolute path; only needed for a scratch disk */
    uid_t converter_uid;    /* of the tools; 0: IMAGE_CONVERTER_UID */
    uint64_t timeout_usec;  /* for the whole job */
} ImageConfig;

/* Just below the default range of the VMMs' uids: nobody else's. */
#define IMAGE_CONVERTER_UID ((uid_t)1879048191)

/* A scratch disk to be made in the same job; see scratch.h. */
typedef struct ImageScratch {
    const char *directory; /* where its file goes; NULL: into the snapshot's upper directory */
    uint64_t size;         /* bytes; 0: no scratch disk */
    uid_t uid;             /* owner: the VMM's, with mode 0600 */
    gid_t gid;
} ImageScratch;

typedef struct ImageResult {
    int image_fd;       /* O_RDONLY */
    char *image_path;   /* NULL for a private image, which has no name */
    char digest[65];    /* SHA-256 of the image file */
    uint64_t size;      /* bytes, a multiple of 4096 */
    bool cached;        /* it was there before */
    int scratch_fd;     /* O_RDWR; -EBADF without a scratch disk */
    char *scratch_path; /* NULL without one */
    char *upper_dir;    /* of the snapshot; NULL where the mounts name none (read-only) */
} ImageResult;

#define IMAGE_RESULT_INIT ((ImageResult){.image_fd = -EBADF, .scratch_fd = -EBADF})

/* Closes and frees what it holds, not itself. */
void image_result_clear(ImageResult *result);
#define _cleanup_image_result_ _cleanup_(image_result_clear)

typedef struct ImageJob ImageJob;

/* Called once, from the loop. On success `e` is NULL and the callback may take what `result` holds (with
 * TAKE_FD, TAKE_PTR); what it leaves is freed afterwards. On failure `result` is NULL. The job may be freed
 * here. */
typedef void (*ImageDoneFn)(ImageJob *job, ImageResult *result, const Error *e, void *userdata);

/* Starts the work. Errors that can be told at once (mounts of another kind, a bad configuration) come back
 * here, and the callback is not called then. `scratch` may be NULL. */
int image_prepare(Loop *loop, const ImageConfig *config, const ImageMount *mounts, size_t n_mounts,
                  const ImageScratch *scratch, ImageDoneFn callback, void *userdata, ImageJob **ret,
                  Error *e);

/* Ends the work if it still goes on, without a call of the callback. NULL is fine; always returns NULL. */
ImageJob *image_job_free(ImageJob *job);
DEFINE_CLEANUP_FUNC(ImageJob *, image_job_free)
#define _cleanup_image_job_ _cleanup_(image_job_freep)

/* Removes what is not needed: temporary files of processes that died, images that no index entry names, and
 * the least recently used entries until all images together have at most `cache_max` bytes. Blocks; runs in
 * the job's child after each conversion anyway. An image that a VM has open lives on until it is closed. */
int image_gc(const ImageConfig *config, Error *e);
