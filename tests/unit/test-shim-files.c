/* SPDX-License-Identifier: MIT */

/* The trees of a plan in messages of bounded size, as a fake agent puts them together again. */

#include "unit.h"

#define FAKE_STDIO
#include "fake-shim.h"
#include "shim/files.h"

enum { LARGE = 1300 * 1024, SMALL_FILES = 600 };

typedef struct Job {
    FakeShim f;
    FilesSender *sender;
    bool done;
    int number;
    char text[200];
} Job;

static int setup(void **state)
{
    Job *j = calloc(1, sizeof(*j));

    *state = j;
    fake_shim_start(&j->f, false);
    return 0;
}

static int teardown(void **state)
{
    Job *j = *state;

    files_sender_free(j->sender);
    fake_shim_stop(&j->f);
    free(j);
    return 0;
}

static void on_done(FilesSender *sender, const Error *e, void *userdata)
{
    Job *j = userdata;

    assert_ptr_equal(sender, j->sender);
    assert_false(j->done);
    j->done = true;
    j->number = e ? e->number : 0;
    snprintf(j->text, sizeof(j->text), "%s", e ? error_message(e) : "");
    j->sender = files_sender_free(sender);
}

static void begin(Job *j, const OciPlan *plan)
{
    assert_int_equal(
        files_send(j->f.shim.loop, j->f.agent, "c1", plan, 60 * USEC_PER_SEC, on_done, j, &j->sender, NULL),
        0);
    assert_false(j->done);
    fake_settle(&j->f, 1000);
}

static const Cloudhv__Agent__V1__AddFilesRequest *waiting(const Job *j)
{
    assert_int_equal(j->f.n_calls, 1);
    assert_string_equal(j->f.calls[0].method, "AddFiles");
    return (const Cloudhv__Agent__V1__AddFilesRequest *)j->f.calls[0].request;
}

static void answer(Job *j)
{
    fake_reply(&j->f, 0, NULL);
    fake_settle(&j->f, 1000);
}

static void test_nothing(void **state)
{
    OciPlan plan = {0};
    FileTree empty = {0};
    OciTree tree = {.name = (char *)"t", .files = &empty};
    Job *j = *state;

    begin(j, &plan);
    assert_true(j->done);
    assert_int_equal(j->number, 0);
    j->done = false;
    plan.trees = &tree;
    plan.n_trees = 1;
    begin(j, &plan);
    assert_true(j->done);
}

static void test_fields(void **state)
{
    FileTreeEntry entries[] = {
        {.path = (char *)"",
         .type = FILE_TREE_DIRECTORY,
         .mode = 0755,
         .uid = 1,
         .gid = 2,
         .data = (char *)""},
        {.path = (char *)"link",
         .type = FILE_TREE_SYMLINK,
         .mode = 0777,
         .data = (char *)"..data/x",
         .size = 8},
        {.path = (char *)"file", .mode = 0640, .mtime_sec = 12345, .data = (char *)"a\0b", .size = 3},
    };
    FileTree files = {.entries = entries, .n_entries = 3};
    OciTree tree = {.name = (char *)"tree-1", .files = &files};
    OciPlan plan = {.trees = &tree, .n_trees = 1};
    const Cloudhv__Agent__V1__AddFilesRequest *request;
    Job *j = *state;

    begin(j, &plan);
    request = waiting(j);
    assert_string_equal(request->tree, "tree-1");
    assert_string_equal(request->container_id, "c1");
    assert_int_equal(request->n_entries, 3);
    assert_int_equal(request->entries[0]->type, CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__DIRECTORY);
    assert_int_equal(request->entries[0]->uid, 1);
    assert_int_equal(request->entries[0]->gid, 2);
    assert_int_equal(request->entries[1]->type, CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__SYMLINK);
    assert_memory_equal(request->entries[1]->data.data, "..data/x", 8);
    assert_int_equal(request->entries[2]->type, CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__REGULAR);
    assert_int_equal(request->entries[2]->mode, 0640);
    assert_int_equal(request->entries[2]->mtime_sec, 12345);
    assert_int_equal(request->entries[2]->data.len, 3);
    assert_memory_equal(request->entries[2]->data.data, "a\0b", 3);
    answer(j);
    assert_true(j->done);
    assert_int_equal(j->number, 0);
}

/* What one message cannot carry comes in several, in order, each byte once. */
static void test_large_and_many(void **state)
{
    FileTreeEntry *entries = calloc(SMALL_FILES + 1, sizeof(*entries));
    char *data = malloc(LARGE), *copy = calloc(1, LARGE), *names = malloc(SMALL_FILES * 8);
    FileTree one = {.entries = entries, .n_entries = 1},
             many = {.entries = entries + 1, .n_entries = SMALL_FILES};
    OciTree trees[] = {{.name = (char *)"one", .files = &one}, {.name = (char *)"many", .files = &many}};
    OciPlan plan = {.trees = trees, .n_trees = 2};
    unsigned messages = 0, seen = 0;
    size_t copied = 0;
    Job *j = *state;

    for (size_t i = 0; i < LARGE; i++)
        data[i] = (char)(i * 131 + (i >> 12));
    entries[0] = (FileTreeEntry){.path = (char *)"", .data = data, .size = LARGE};
    for (int i = 0; i < SMALL_FILES; i++) {
        snprintf(names + 8 * i, 8, "f%i", i);
        entries[i + 1] = (FileTreeEntry){.path = names + 8 * i, .data = (char *)"x", .size = (size_t)(i % 2)};
    }
    begin(j, &plan);
    while (!j->done) {
        const Cloudhv__Agent__V1__AddFilesRequest *request = waiting(j);
        size_t bytes = 0;

        assert_in_range(request->n_entries, 1, 256);
        for (size_t i = 0; i < request->n_entries; i++) {
            const Cloudhv__Agent__V1__FileEntry *e = request->entries[i];

            bytes += e->data.len;
            if (strcmp(request->tree, "one") == 0) {
                assert_int_equal(e->offset, copied);
                assert_true(e->data.len <= LARGE - copied);
                memcpy(copy + copied, e->data.data, e->data.len);
                copied += e->data.len;
            } else {
                assert_int_equal(copied, LARGE);
                assert_string_equal(e->path, names + 8 * seen);
                assert_int_equal(e->data.len, seen % 2);
                assert_int_equal(e->offset, 0);
                seen++;
            }
        }
        assert_in_range(bytes, 0, 512 * 1024);
        assert_true(++messages < 20);
        answer(j);
    }
    assert_int_equal(j->number, 0);
    assert_memory_equal(copy, data, LARGE);
    assert_int_equal(seen, SMALL_FILES);
    assert_int_equal(messages, 3 + 3);
    free(entries);
    free(data);
    free(copy);
    free(names);
}

static void test_refused(void **state)
{
    FileTreeEntry entry = {.path = (char *)"", .data = (char *)"x", .size = 1};
    FileTree files = {.entries = &entry, .n_entries = 1};
    OciTree trees[] = {{.name = (char *)"a", .files = &files}, {.name = (char *)"b", .files = &files}};
    OciPlan plan = {.trees = trees, .n_trees = 2};
    Job *j = *state;

    begin(j, &plan);
    (void)waiting(j);
    fake_refuse(&j->f, 0, TTRPC_RESOURCE_EXHAUSTED, "no space");
    fake_settle(&j->f, 1000);
    assert_true(j->done);
    assert_int_equal(j->number, ttrpc_code_to_errno(TTRPC_RESOURCE_EXHAUSTED));
    assert_string_equal(j->text, "the agent does not take the container's files: no space");
    assert_int_equal(j->f.n_calls, 0); /* nothing follows */
}

static void test_freed(void **state)
{
    FileTreeEntry entry = {.path = (char *)"", .data = (char *)"x", .size = 1};
    FileTree files = {.entries = &entry, .n_entries = 1};
    OciTree tree = {.name = (char *)"a", .files = &files};
    OciPlan plan = {.trees = &tree, .n_trees = 1};
    Job *j = *state;

    begin(j, &plan);
    j->sender = files_sender_free(j->sender);
    answer(j);
    assert_false(j->done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_and_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
