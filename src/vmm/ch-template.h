/* SPDX-License-Identifier: MIT */
#pragma once

/* A template's directory as the Cloud Hypervisor driver keeps it: `ram`, the guest's memory, which the VMM maps;
 * `config.json` and `state.json`, as its snapshot writes them, the first changed so that clones map the memory
 * copy-on-write. All paths in them are the jail's, so that clones need no copy of them.
 *
 * What is in the files is for their owner to watch over: only what clone and template have to agree on is checked. */

#include "vmm/ch.h"

/* Makes the file for the memory of a VM that is to become a template, and lets the VMM write to the directory. */
int ch_template_begin(Ch *ch, const VmmSpec *spec, Error *e);
/* Removes the files of one that was begun and is not complete. */
void ch_template_abandon(Ch *ch);

/* Checks a template, and that a VM as specified can be a clone of it. -ENOENT: there is none; -ESTALE: it is of no
 * use. */
int ch_template_check(const char *directory, const VmmSpec *spec, Error *e);

int ch_snapshot(Vmm *vmm, const char *directory, VmmOp *op, Error *e);
