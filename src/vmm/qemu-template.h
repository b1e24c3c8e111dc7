/* SPDX-License-Identifier: MIT */
#pragma once

/* A template's directory as the QEMU driver keeps it: `ram`, the guest's memory; `state`, all else of the VM,
 * as QEMU's migration writes it; `qemu.json`, written last, what a clone has to agree on and how the other two
 * are recognised. Files only; the talk with QEMU is in qemu-migrate.c.
 *
 * The memory is not hashed here, which would take longer than starting the clone: its inode, size and time are
 * compared. Nothing is synced: a template does not outlive the host's boot. */

#include "vmm/vmm.h"

typedef struct QemuTemplate QemuTemplate;

/* What a clone has to know of the VM that was saved. */
typedef struct QemuTemplateOrigin {
    char *qemu_version;
    unsigned used_slots; /* the first so many had a device, and have to rest */
} QemuTemplateOrigin;

/* Makes the file for the memory of a VM that is to become a template, the VM's own until it is saved. */
int qemu_template_new(const VmmSpec *spec, unsigned n_slots, QemuTemplate **ret, Error *e);
/* Removes the files, unless the template is complete. */
QemuTemplate *qemu_template_free(QemuTemplate *t);
DEFINE_CLEANUP_FUNC(QemuTemplate *, qemu_template_free)

const char *qemu_template_directory(const QemuTemplate *t);
/* The path of the memory in a template's directory; the caller frees it. */
char *qemu_template_memory_path(const char *directory);

/* A file for QEMU to write the state into; the descriptor can do nothing else. */
int qemu_template_create_state(QemuTemplate *t, int *ret_fd, Error *e);
/* The state is written: takes the files from the VMM, and notes what they are. */
int qemu_template_complete(QemuTemplate *t, const QemuTemplateOrigin *origin, Error *e);
/* There will be no state. */
void qemu_template_remove_state(QemuTemplate *t);

/* Checks a template, and that a VM as specified can be a clone of it. Gives the state, for reading from its
 * begin, and where it comes from; the caller frees the version. -ENOENT: there is none; -ESTALE: it is of no
 * use. */
int qemu_template_open(const char *directory, const VmmSpec *spec, unsigned n_slots, int *ret_state_fd,
                       QemuTemplateOrigin *ret, Error *e);
