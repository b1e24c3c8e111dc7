/* SPDX-License-Identifier: MIT */
#pragma once

/* From a container's bundle to what the guest is given: a new config.json, built from known fields and never
 * passed on, trees of files to be copied in, and volumes that live in the guest. What cannot take effect is
 * refused with a message that names it. docs/spec.md has the list. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "oci/bundle.h"
#include "oci/filetree.h"

/* Places in the guest (src/agent and agent.proto). */
#define OCI_GUEST_TREES "/run/cloudhv/trees"
#define OCI_GUEST_VOLUMES "/run/cloudhv/volumes"

/* What a path of the host is, as far as mounts have to know. */
typedef enum OciHostType {
    OCI_HOST_MISSING,
    OCI_HOST_REGULAR,
    OCI_HOST_DIRECTORY,
    OCI_HOST_OTHER, /* device, socket, FIFO, symbolic link */
} OciHostType;

typedef struct OciHostFile {
    OciHostType type;
    const char *type_name; /* static, for messages: "a block device" */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    bool empty;           /* directory without entries */
    bool memory;          /* on a tmpfs */
    uint64_t memory_size; /* of that tmpfs, bytes; 0: not limited */
} OciHostFile;

/* Looks at a path of the host. A path that does not exist is an answer (OCI_HOST_MISSING), not an error. */
typedef int (*OciInspectFn)(const char *path, OciHostFile *ret, void *userdata, Error *e);

/* The real one. */
int oci_host_inspect(const char *path, OciHostFile *ret, void *userdata, Error *e);

typedef struct OciSettings {
    const char *container_id;
    const char *sandbox_id; /* of the pod; the container's id for a plain container */
    const char *netns;    /* the network namespace of the pod as its spec named it; NULL: made by the shim */
    pid_t pod_pid;        /* the PID that containerd knows for the pod: /proc/PID/ns/… are the pod's */
    bool ignore_lsm;      /* drop AppArmor and SELinux labels instead of refusing them */
    uint64_t inline_max;  /* bytes of all trees together */
    OciInspectFn inspect; /* NULL: oci_host_inspect() */
    void *inspect_userdata;
} OciSettings;

/* Files to be copied to OCI_GUEST_TREES/NAME. */
typedef struct OciTree {
    char *name;
    char *source;      /* on the host */
    char *destination; /* in the container, for messages */
    bool read_only;
    bool copy_back;  /* a single file whose contents return to the host when the container has ended */
    FileTree *files; /* NULL until oci_plan_collect() */
} OciTree;

/* Directory at OCI_GUEST_VOLUMES/NAME: fields as of GuestVolume in agent.proto. */
typedef struct OciVolume {
    char *name;
    char *container_path; /* destination */
    bool copy_up;
    bool pod;
    bool memory;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size_limit; /* bytes; 0: none */
} OciVolume;

typedef struct OciPlan {
    char *spec; /* config.json for the guest: root.path is "rootfs", cgroupsPath "/containers/CONTAINER-ID" */
    size_t spec_size;
    OciTree *trees;
    size_t n_trees;
    OciVolume *volumes;
    size_t n_volumes;
    bool terminal;
    bool share_pod_pid;
    bool root_readonly;
} OciPlan;

/* Makes the plan of a plain container or of a container in a sandbox; touches the host only by `inspect`. */
int oci_plan_new(const Bundle *bundle, const OciSettings *settings, OciPlan **ret, Error *e);

/* Reads the trees. -EFBIG when they are larger than `inline_max`; the message names mount and size. */
int oci_plan_collect(OciPlan *plan, uint64_t inline_max, Error *e);

OciPlan *oci_plan_free(OciPlan *plan);
DEFINE_CLEANUP_FUNC(OciPlan *, oci_plan_free)
#define _cleanup_oci_plan_ _cleanup_(oci_plan_freep)

/* The pod's part of a sandbox container's or plain container's spec: refuses namespaces of the node and gives
 * the sysctls that the VM is to have (an object of strings, a new reference, never NULL). */
int oci_pod_check(const Bundle *bundle, const OciSettings *settings, json_t **ret_sysctls, Error *e);

/* Rebuilds the process object of an exec, and the resources object of an update (both JSON text). The caller
 * frees *ret. `ret_terminal` may be NULL. */
int oci_exec_rebuild(const void *text, size_t n, const OciSettings *settings, char **ret, bool *ret_terminal,
                     Error *e);
int oci_resources_rebuild(const void *text, size_t n, char **ret, Error *e);
