/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <string.h>

#include "base/sha256.h"

/* Examples of FIPS 180-4 and of NIST's CAVP (short messages and one million "a"). */
static void test_vectors(void **state)
{
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };

    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char hex[SHA256_HEX_SIZE];
        Sha256 s;

        sha256_init(&s);
        sha256_add(&s, vectors[i].text, strlen(vectors[i].text));
        sha256_finish_hex(&s, hex);
        assert_string_equal(hex, vectors[i].hex);
    }
}

static void test_million_in_pieces(void **state)
{
    char hex[SHA256_HEX_SIZE], a[100];
    size_t left = 1000000;
    Sha256 s;

    memset(a, 'a', sizeof(a));
    sha256_init(&s);
    for (size_t n = 1; left > 0; n = n % 99 + 1) {
        size_t take = n < left ? n : left;

        sha256_add(&s, a, take);
        left -= take;
    }
    sha256_finish_hex(&s, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_million_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
