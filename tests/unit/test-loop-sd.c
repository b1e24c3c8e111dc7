/* SPDX-License-Identifier: MIT */

#include "test-loop.h"
