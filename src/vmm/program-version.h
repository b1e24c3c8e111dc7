/* SPDX-License-Identifier: MIT */
#pragma once

/* Asks a program what it is. */

#include <stdint.h>

#include "base/error.h"

#define PROGRAM_VERSION_MAX 4096

/* What "BINARY --version" prints, as a string, if it ends within the time. */
int program_version(const char *binary, uint64_t timeout_usec, char answer[static PROGRAM_VERSION_MAX], Error *e);
