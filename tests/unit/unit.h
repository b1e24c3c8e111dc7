/* SPDX-License-Identifier: MIT */
#pragma once

/* What every cmocka test file needs, in the order cmocka wants it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
