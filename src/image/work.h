/* SPDX-License-Identifier: MIT */
#pragma once

/* What a job's child does: look into the cache, convert where needed, make the scratch disk. Blocks. */

#include "image/image.h"
#include "image/layers.h"

/* `result` gets what image_prepare() promises; on failure it is untouched and nothing that was made is left.
 */
int image_work(const ImageConfig *config, const Layers *layers, const ImageScratch *scratch,
               ImageResult *result, Error *e);
