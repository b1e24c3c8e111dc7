/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <string.h>

#include "base/json.h"
#include "ctl/daemon-status.h"
#include "ctl/report.h"

static Report *example(void)
{
    Report *report = report_new();

    assert_non_null(report);
    report_add(report, FINDING_OK, "kvm", NULL, "runs");
    report_add(report, FINDING_NOTE, "image", "sign it", "is \"%s\"", "unsigned");
    return report;
}

static char *print(int (*function)(const Report *, FILE *), const Report *report)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    assert_int_equal(function(report, f), 0);
    fclose(f);
    return text;
}

static void test_text(void **state)
{
    _cleanup_report_ Report *report = example();
    _cleanup_free_ char *good = print(report_print, report), *bad = NULL;

    assert_true(report_ok(report));
    assert_non_null(strstr(good, "ok    kvm            runs\n"));
    assert_non_null(strstr(good, "note  image          is \"unsigned\"\n                     -> sign it\n"));
    assert_non_null(strstr(good, "can run pods"));
    report_add(report, FINDING_FAIL, "vmm", "install it", "missing");
    assert_false(report_ok(report));
    bad = print(report_print, report);
    assert_non_null(strstr(bad, "1 of 3 checks failed"));
}

static void test_json(void **state)
{
    _cleanup_report_ Report *report = example();
    _cleanup_free_ char *text = print(report_print_json, report);
    _cleanup_json_ json_t *root = NULL;
    json_t *entry;

    assert_int_equal(json_parse(text, strlen(text), "report", &root, NULL), 0);
    assert_true(json_is_true(json_object_get(root, "ok")));
    entry = json_array_get(json_object_get(root, "checks"), 1);
    assert_string_equal(json_string_value(json_object_get(entry, "result")), "note");
    assert_string_equal(json_string_value(json_object_get(entry, "message")), "is \"unsigned\"");
    assert_string_equal(json_string_value(json_object_get(entry, "remedy")), "sign it");
}

static void test_status(void **state)
{
    Cloudhv__Daemon__V1__SandboxStatus sandbox = CLOUDHV__DAEMON__V1__SANDBOX_STATUS__INIT;
    Cloudhv__Daemon__V1__SandboxStatus *sandboxes[] = {&sandbox};
    Cloudhv__Daemon__V1__TemplateStatus template = CLOUDHV__DAEMON__V1__TEMPLATE_STATUS__INIT;
    Cloudhv__Daemon__V1__TemplateStatus *templates[] = {&template};
    DaemonStatus status = CLOUDHV__DAEMON__V1__STATUS_RESPONSE__INIT;
    _cleanup_free_ char *text = NULL, *json = NULL;
    _cleanup_json_ json_t *root = NULL;
    char *containers[] = {(char *)"web", (char *)"log"};
    size_t n;
    FILE *f;

    sandbox.namespace_ = (char *)"k8s.io";
    sandbox.sandbox_id = (char *)"0123456789abcdef0123456789abcdef";
    sandbox.state = (char *)"running";
    sandbox.vmm_pid = 4711;
    sandbox.memory_mb = 128;
    sandbox.since_usec = 1000000;
    sandbox.containers = containers;
    sandbox.n_containers = 2;
    status.daemon_version = (char *)"1.2";
    status.kvm_reason = (char *)"no device";
    status.sandboxes = sandboxes;
    status.n_sandboxes = 1;
    template.key = (char *)"00112233445566778899aabbccddeeff";
    template.state = (char *)"ready";
    template.vcpus = 2;
    template.memory_mb = 128;
    template.bytes = 57 << 20;
    template.created_usec = 3600 * 1000000ULL;
    template.clones = 12;
    status.templates = templates;
    status.n_templates = 1;
    status.pool_ready = 2;
    status.pool_target = 3;

    f = open_memstream(&text, &n);
    assert_int_equal(daemon_status_print(&status, 3 * 3600 * 1000000ULL, f), 0);
    fclose(f);
    assert_non_null(strstr(text, "VMM none, no KVM: no device\n"));
    assert_non_null(strstr(text, "k8s.io     0123456789abc running       2h     4711"));
    assert_non_null(strstr(text, "pool 2 of 3"));
    assert_non_null(strstr(text, "00112233445566778899aabbccddeeff ready         2h      2     128       57     12\n"));
    assert_null(strstr(text, "No templates"));
    f = open_memstream(&json, &n);
    assert_int_equal(daemon_status_print_json(&status, f), 0);
    fclose(f);
    assert_int_equal(json_parse(json, strlen(json), "status", &root, NULL), 0);
    assert_int_equal(
        json_array_size(json_object_get(json_array_get(json_object_get(root, "sandboxes"), 0), "containers")),
        2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(root, "templates"), 0), "clones")),
                     12);
}

static void test_status_without_daemon(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    DaemonStatus *status = NULL;

    assert_true(daemon_status_get("/no/such.sock", 1000000, &status, &e) < 0);
    assert_non_null(strstr(error_message(&e), "/no/such.sock"));
    assert_null(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_status_without_daemon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
