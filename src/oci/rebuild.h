/* SPDX-License-Identifier: MIT */
#pragma once

/* The parts of a specification, each of which is built anew from the one that came with the bundle. All of
 * them do no I/O, except that mounts ask OciSettings.inspect. */

#include "oci/field.h"
#include "oci/plan.h"

/* New `process` object. */
int rebuild_process(json_t *process, const OciSettings *settings, json_t **ret, Error *e);

/* New `resources` object. `devices`: with its device rules; an update has none. */
int rebuild_resources(json_t *resources, bool devices, json_t **ret, Error *e);

/* New `resources.devices` array from the old one (NULL: none). */
int rebuild_device_rules(json_t *rules, json_t **ret, Error *e);

/* Whether the rules allow every device: what "privileged" comes down to in a specification. */
bool device_rules_allow_all(json_t *rules);

/* New `devices` array, NULL for none. Devices that a VM does not have are refused, or, with `privileged`,
 * left out. */
int rebuild_devices(json_t *devices, bool privileged, json_t **ret, Error *e);

/* New `seccomp` object. */
int rebuild_seccomp(json_t *seccomp, json_t **ret, Error *e);

/* New `namespaces` array; sets plan->share_pod_pid. `ret_own_uts`: the container has a host name of its own.
 */
int rebuild_namespaces(json_t *namespaces, const Bundle *bundle, const OciSettings *settings, OciPlan *plan,
                       json_t **ret, bool *ret_own_uts, Error *e);

/* The sandbox's or plain container's namespaces: none of the node's. */
int check_pod_namespaces(json_t *namespaces, Error *e);

/* New object of the sysctls that a pod may set. */
int rebuild_sysctls(json_t *sysctls, json_t **ret, Error *e);

/* New `mounts` array; fills the trees and volumes of `plan`. */
int rebuild_mounts(json_t *mounts, const OciSettings *settings, OciPlan *plan, json_t **ret, Error *e);
