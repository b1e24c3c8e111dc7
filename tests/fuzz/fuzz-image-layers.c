/* SPDX-License-Identifier: MIT */

/* The mount of a root file system as containerd describes it: each layer is an absolute path that the options
 * named. Type, source and options end with a NUL each. */

#include "fuzz.h"
#include "image/layers.h"

enum { OPTIONS_MAX = 16 };

static void check(const Layers *l)
{
    REQUIRE(l->n_lower > 0 || l->upper);
    REQUIRE(l->n_lower <= LAYERS_MAX);
    REQUIRE(!l->upper || l->upper[0] == '/');
    for (size_t i = 0; i < l->n_lower; i++)
        REQUIRE(l->lower[i][0] == '/');
}

/* The same layers in overlayfs' notation, which takes a backslash before what would end a name. */
static char *write_lowerdir(const Layers *l)
{
    size_t n = sizeof("lowerdir=");
    char *text, *p;

    for (size_t i = 0; i < l->n_lower; i++)
        n += 2 * strlen(l->lower[i]) + 1;
    text = p = malloc(n);
    REQUIRE(text);
    p = stpcpy(p, "lowerdir=");
    for (size_t i = 0; i < l->n_lower; i++) {
        if (i > 0)
            *p++ = ':';
        for (const char *s = l->lower[i]; *s; s++) {
            if (*s == ':' || *s == '\\')
                *p++ = '\\';
            *p++ = *s;
        }
    }
    *p = 0;
    return text;
}

static void check_round_trip(const Layers *l)
{
    _cleanup_free_ char *lowerdir = write_lowerdir(l);
    const char *options[] = {lowerdir};
    ImageMount mount = {.type = "overlay", .source = "overlay", .options = options, .n_options = 1};
    _cleanup_layers_ Layers again = {0};

    REQUIRE(layers_parse(&mount, 1, &again, NULL) == 0);
    REQUIRE(again.n_lower == l->n_lower && !again.upper);
    for (size_t i = 0; i < l->n_lower; i++)
        REQUIRE(strcmp(again.lower[i], l->lower[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1), *p = copy, *end = copy + size;
    const char *strings[2 + OPTIONS_MAX] = {"", ""};
    _cleanup_layers_ Layers l = {0};
    _cleanup_error_ Error e = ERROR_INIT;
    ImageMount mount;
    size_t n = 0;
    int r;

    REQUIRE(copy);
    if (size > 0)
        memcpy(copy, data, size);
    *end = 0;
    for (; p < end && n < ELEMENTSOF(strings); p += strlen(p) + 1)
        strings[n++] = p;
    mount = (ImageMount){
        .type = strings[0], .source = strings[1], .options = strings + 2, .n_options = n > 2 ? n - 2 : 0};
    r = layers_parse(&mount, 1, &l, &e);
    REQUIRE((r < 0) == (e.number < 0) && (r >= 0 || e.message));
    if (r < 0)
        REQUIRE(!l.lower && !l.upper);
    else {
        check(&l);
        if (l.n_lower > 0)
            check_round_trip(&l);
    }
    free(copy);
    return 0;
}
