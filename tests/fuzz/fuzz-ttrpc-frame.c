/* SPDX-License-Identifier: MIT */

/* Frames of ttrpc: however the bytes are cut into pieces, the frames are the same, and they are what the
 * bytes say. Descriptors that come with the pieces are handed out or closed, never lost. */

#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"
#include "ttrpc/frame.h"

/* Checks one frame against the bytes it was read from, of which `in` is the rest. */
static void check_frame(const Frame *f, Input *in)
{
    uint8_t header[FRAME_HEADER_SIZE];
    Input part;

    frame_header_pack(header, f->size, f->stream_id, (FrameType)f->type, f->flags);
    part = take(in, sizeof(header));
    REQUIRE(part.n == sizeof(header) && memcmp(part.bytes, header, sizeof(header)) == 0);
    part = take(in, f->size);
    REQUIRE(part.n == f->size);
    REQUIRE(f->oversized == (f->size > FRAME_PAYLOAD_MAX));
    if (f->oversized || f->size == 0)
        REQUIRE(!f->payload);
    else
        REQUIRE(memcmp(f->payload, part.bytes, part.n) == 0);
}

static void drop_fds(FrameParser *p)
{
    size_t n;
    int *fds = frame_parser_take_fds(p, &n);

    REQUIRE((fds != NULL) == (n > 0));
    REQUIRE(n <= FRAME_FDS_MAX);
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    free(fds);
}

/* Feeds everything, in pieces of `cut` bytes. Every second piece brings descriptors when `pipe_fd` is one. */
static unsigned feed(Input all, size_t cut, int pipe_fd)
{
    FrameParser p = FRAME_PARSER_INIT;
    Input rest = all;
    unsigned frames = 0;

    for (unsigned i = 0; all.n > 0; i++) {
        Input piece = take(&all, cut);
        int fds[FRAME_FDS_MAX + 1], r;
        size_t n_fds = pipe_fd >= 0 && i % 2 ? piece.bytes[0] % (FRAME_FDS_MAX + 2) : 0;
        Frame frame;

        for (size_t k = 0; k < n_fds; k++)
            REQUIRE((fds[k] = fcntl(pipe_fd, F_DUPFD_CLOEXEC, 3)) >= 0);
        REQUIRE(frame_parser_feed(&p, piece.bytes, piece.n, fds, n_fds) == 0);
        while ((r = frame_parser_next(&p, &frame)) == 0) {
            check_frame(&frame, &rest);
            frames++;
            if (frames % 2)
                drop_fds(&p);
        }
        REQUIRE(r == 1);
    }
    frame_parser_clear(&p);
    return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data, size};
    size_t cut = take_u8(&in);
    unsigned frames = feed(in, SIZE_MAX, -1);
    int fds[2];
    char c;

    REQUIRE(feed(in, cut + 1, -1) == frames);
    if (cut % 8 != 0)
        return 0;
    REQUIRE(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
    REQUIRE(feed(in, cut + 1, fds[1]) == frames);
    close(fds[1]);
    /* The end of file says that nobody has a descriptor left. */
    REQUIRE(read(fds[0], &c, 1) == 0);
    close(fds[0]);
    return 0;
}
